"""What came of a sweep that is done."""

from __future__ import annotations

from semprior.errors import UserError
from tune.catalogue import Sweep, command
from tune.progress import SweepProgress


def require_value(sweep: Sweep, view: SweepProgress) -> None:
    """Refuse a sweep that is done if it was to measure its trials and none has a value.

    Raises:
        UserError: tells the most common reason.
    """
    if fault := valueless(sweep, view):
        raise UserError(fault)


def valueless(sweep: Sweep, view: SweepProgress) -> str:
    """Why no trial of a sweep that is done has a value, in a line; empty where one has, or nothing is measured."""
    if view.ranked() or not sweep.spec.base_config().data.holdout:
        return ""
    return f"{sweep.id}: no trial has a value of {view.metric}: {view.common_reason()}; {_way_out(sweep, view)}"


def _way_out(sweep: Sweep, view: SweepProgress) -> str:
    if view.failures():
        return f"once that is mended, run them again with: {command('retry', sweep)}"
    return "begin another sweep, with other settings or a larger budget"
