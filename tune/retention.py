"""Removing the checkpoints of a trial that are not kept (`tune.kept`).

Whoever runs a trial calls `prune` after each record. Of two attempts that run at once, as when a worker that was cut
off comes back, only the higher one may remove anything.
"""

from __future__ import annotations

from tune.checkpoints import FOLDER, remove_checkpoint
from tune.kept import kept_checkpoints
from tune.records import visible
from tune.results import ResultsStore


class SupersededError(Exception):
    """A higher attempt of the trial has started; this one has to stop, and what it writes no longer counts."""


def prune(store: ResultsStore, trial: str, attempt: int) -> list[str]:
    """Remove the checkpoints of a trial that are no longer kept; what lower attempts left behind, too.

    To be called when a record has been appended: by the trial's rank 0, and by whoever appends an end.

    Args:
        store: of the sweep.
        trial: its id.
        attempt: of the caller.

    Returns:
        The addresses that were removed.

    Raises:
        SupersededError: a higher attempt has started; nothing was removed.
        UserError: the storage cannot be read or written.
    """
    records = store.records([trial]).get(trial, [])
    if any(record.attempt > attempt for record in records):
        raise SupersededError(f"trial {trial}: attempt {attempt} was followed by another")
    history = visible(records)
    kept = kept_checkpoints(history)
    stored = _stored(store, trial, attempt)
    if not any(record.kind == "end" for record in history):
        told = {record.checkpoint for record in records}
        kept |= {address for address, of in stored.items() if of == attempt and address not in told}  # being written
    removed = [address for address in stored if address not in kept]
    for address in removed:
        remove_checkpoint(store.storage, address)
    return removed


def _stored(store: ResultsStore, trial: str, attempt: int) -> dict[str, int]:
    """Addresses of all checkpoints of this attempt and lower ones, and the attempt of each."""
    found = {}
    for entry in store.storage.list(f"{FOLDER}/{trial}"):
        number = entry.name.rpartition("/")[2]
        if entry.folder and number.isdecimal() and int(number) <= attempt:
            found |= {inner.name: int(number) for inner in store.storage.list(entry.name) if inner.folder}
    return found
