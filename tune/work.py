"""Ray Train's loop of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def work(settings: Mapping[str, Any]) -> None:
    """Run one worker of an attempt to its end.

    Args:
        settings: its ``order``.

    Raises:
        BrokenError: whatever ended it.
    """
    from ray.train import report

    from tune.attempt import Attempt
    from tune.diagnosis import BrokenError, fault_of

    order = settings["order"]
    try:
        Attempt(order, report).run()
    except Exception as error:  # its place is known here alone
        raise BrokenError(fault_of(error, order.params)) from None
