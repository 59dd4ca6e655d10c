"""Whether a sweep that is done has measured anything."""

from __future__ import annotations

from semprior.errors import UserError
from tune.launch.target import Target
from tune.monitor.sweep_progress import SweepProgress
from tune.store.sweeps import Sweep


def require_value(sweep: Sweep, view: SweepProgress, target: Target) -> None:
    """Refuse a sweep that is done if it evaluates its trials and none has a value.

    Raises:
        UserError: tells the most common reason.
    """
    if fault := why_valueless(sweep, view, target):
        raise UserError(fault)


def why_valueless(sweep: Sweep, view: SweepProgress, target: Target) -> str:
    """Why no trial of a sweep that is done has a value, in a line; empty if one has, or if nothing is held out."""
    if view.ranked() or not sweep.spec.holds_out:
        return ""
    if view.failures():
        way_out = f"once that is mended, run them again with: {target.command('retry', sweep)}"
    else:
        way_out = "start another sweep, with other settings or a larger budget"
    return f"{sweep.id}: no trial has a value of {view.metric}: {view.common_reason()}; {way_out}"
