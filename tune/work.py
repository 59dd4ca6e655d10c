"""Ray Train's loop of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def work(settings: Mapping[str, Any]) -> None:
    """Run one worker of an attempt to its end.

    Args:
        settings: its ``order``.
    """
    from ray.train import report

    from tune.attempt import Attempt

    Attempt(settings["order"], report).run()
