"""What is said of a sweep in the terminal and in pages alike: why it ended, values with errors, gains."""

from __future__ import annotations

import math

from tune.monitor.heartbeat import last_heartbeat
from tune.monitor.tables import format_metric
from tune.store.sweeps import Sweep


def why_ended(sweep: Sweep) -> str:
    """Why a sweep has ended, in a line, as its last driver has recorded it; empty if it has not."""
    heartbeat = last_heartbeat(sweep.storage)
    if heartbeat is None or heartbeat.state == "running":
        return ""
    state = "is done" if heartbeat.state == "done" else "was stopped"
    note = heartbeat.note or ("on request" if heartbeat.state == "stopped" else "")
    return f"{sweep.id} {state}{' ' if note == 'on request' else ': ' if note else ''}{note}"


def with_error(value: float, error: float | None, *, signed: bool = False) -> str:
    """A value, and its standard error if there is one; a plus before positive values if they are to be signed."""
    shown = format_metric(value)
    return (f"+{shown}" if signed and value > 0 else shown) + (
        f" ± {format_metric(error)}" if error is not None and math.isfinite(error) else ""
    )


def gain_over(best: str, base: str, gain: float, error: float | None) -> str:
    """By how much the first configuration is better than the preset itself, in words.

    The gain can be negative: within the standard error, the ranking prefers the cheaper configuration.

    Args:
        best: trial of the first of the ranking.
        base: trial of the preset itself.
        gain: the difference, positive if the first is better.
        error: its standard error on the same images; None if it is not known.
    """
    spread = "" if error is None else f" ± {error:.4f}"
    if gain > (error or 0.0):
        return f"trial {best} is better than trial {base}, the preset itself, by {gain:.4f}{spread}"
    within = ", within the standard error" if error is not None and abs(gain) <= error else ""
    return f"trial {best} is no better than trial {base}, the preset itself{within} ({gain:+.4f}{spread})"
