"""Which checkpoints of a trial are kept: the last, the one before and the best while it runs, then the best alone.

A function of the records that count, so that whoever reads the store knows which addresses in it are still true.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tune.store.records import Record


def kept_checkpoints(history: Sequence[Record]) -> set[str]:
    """Addresses of the checkpoints that are kept of a trial.

    Args:
        history: its records that count, in their order (`records.visible`).
    """
    reports = [record for record in history if record.kind == "report" and record.checkpoint]
    best = [record for record in reports if record.best][-1:]
    ended = any(record.kind == "end" for record in history)
    if ended:
        return {str(record.checkpoint) for record in best or reports[-1:]}
    return {str(record.checkpoint) for record in [*best, *reports[-2:]]}


def with_kept_checkpoints(history: Sequence[Record]) -> list[Record]:
    """A trial's history in which only checkpoints that are kept have an address."""
    kept = kept_checkpoints(history)
    return [
        record
        if record.checkpoint is None or record.checkpoint in kept
        else dataclasses.replace(record, checkpoint=None)
        for record in history
    ]
