"""Which checkpoints of a trial are kept: the last, the one before and the best while it runs, then the best alone.

Of a trial that failed the last is kept, too: it may be begun again.

A function of the records that count, so that whoever reads the store knows which addresses in it are still true.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tune.records import Record


def kept_checkpoints(history: Sequence[Record]) -> set[str]:
    """Addresses of the checkpoints that are kept of a trial.

    Args:
        history: its records that count, in their order (`records.visible`).
    """
    reports = [record for record in history if record.kind == "report" and record.checkpoint]
    best = [record for record in reports if record.best][-1:]
    states = [record.state for record in history if record.kind == "end"]
    if states:
        last = reports[-1:] if not best or states[-1] == "failed" else []
        return {str(record.checkpoint) for record in [*best, *last]}
    again = max((record.attempt for record in history if record.kind == "retry"), default=0)
    removed = [record for record in reports if record.attempt < again][:-1]  # when the trial had failed
    return {str(record.checkpoint) for record in [*best, *(r for r in reports[-2:] if r not in removed)]}


def with_kept_checkpoints(history: Sequence[Record]) -> list[Record]:
    """A trial's history in which only checkpoints that are kept have an address."""
    kept = kept_checkpoints(history)
    return [
        record
        if record.checkpoint is None or record.checkpoint in kept
        else dataclasses.replace(record, checkpoint=None)
        for record in history
    ]
