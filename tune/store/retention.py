"""Retention of checkpoints: the last two and the best while a trial runs, and only the best after its end.

The last checkpoint of a trial that failed is kept, too, because `retry` continues from it.

Retention depends on the visible records alone, so that every reader of the store knows which addresses are still valid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tune.store.records import Record


def kept_checkpoints(history: Sequence[Record]) -> set[str]:
    """The addresses of a trial's checkpoints that are kept.

    Args:
        history: the visible records of the trial, in order (`records.visible`).
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
    """The history of a trial, without the addresses of checkpoints that are not kept."""
    kept = kept_checkpoints(history)
    return [
        record
        if record.checkpoint is None or record.checkpoint in kept
        else dataclasses.replace(record, checkpoint=None)
        for record in history
    ]
