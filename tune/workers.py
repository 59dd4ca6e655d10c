"""Who trains an attempt of a trial, as the trial's own process sees it: it hires, listens, and ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tune.order import Order

Take = Callable[[Mapping[str, Any]], None]
"""Takes what a worker reports of an epoch."""


class Workers(Protocol):
    """Who trains an attempt."""

    def fit(self) -> object:
        """Train to the end; raises what ended it before, `asyncio.CancelledError` after `abort`."""

    def abort(self) -> None:
        """End it at once, from another thread; without effect once it is over."""


Hire = Callable[[Order, str, Take, Callable[[str], None]], Workers]
"""Finds workers for an order: by a folder for them, who takes reports, and who takes the placement group's id."""
