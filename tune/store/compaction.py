"""Compaction: merges many small files of records into few large ones, concurrently with writers and readers.

A compaction reads some files, writes their records to new files in ``records/merged``, and then writes a *commit*,
``records/generations/NUMBER-ID.json``. The commit names every merged file that counts, every file whose records are
now in merged files (*absorbed*), and the commits that it replaces (*parents*). No file ever changes. Therefore::

    files that count = merged files of the commits without a child, and appended files, minus absorbed files

- **A crash** before the commit leaves merged files that no commit names; a crash after it leaves absorbed files that
  nobody reads. Later compactions remove both.
- **Concurrent compactions** leave two commits without a child. Readers use both. A record that is in merged files of
  both is read twice and counted once, because trial, attempt, writer, epoch and kind identify it
  (`tune.store.visible_records`). The next compaction has both commits as parents and drops the duplicates.
- **A file is removed** only after a commit that counts has absorbed it. A reader whose snapshot contains the file does
  not find it and takes a new snapshot (`tune.store.snapshot.read_snapshot`).

This needs no lock, no clock and no conditional write, and is therefore as safe in a bucket as in a folder.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from semprior.errors import UserError
from semprior.io.storage import Storage
from tune.store.record_files import UnusableFilesError, file_name, join, read_file, write_file
from tune.store.snapshot import COMMITS, MERGED, NEW, Commit, MergedFile, StoreSnapshot, take_snapshot, to_json
from tune.store.visible_records import kind_codes, sorted_words

FULL_ROWS = 1 << 18  # records; a merged file with so many is not merged again
GROWTH = 4  # a merged file is merged again with files that have at least a fourth of its records
GRACE_S = 120.0  # seconds before an absorbed file is removed, for readers of older snapshots
TIMEOUT_S = 3600.0  # seconds after which a compaction does not commit any more
ORPHAN_AGE_S = (
    24 * TIMEOUT_S
)  # age at which what nobody merged is a crash's, and no compaction that knew it can be under way


def compact(storage: Storage, *, least: int = 16, full: int = FULL_ROWS, grace: float = GRACE_S) -> int:
    """Merge appended files if there are enough of them, and remove files that earlier compactions absorbed.

    Args:
        storage: the storage of the sweep.
        least: minimum number of appended files for a compaction.
        full: number of records with which a file is not merged again.
        grace: seconds before absorbed files are removed.

    Returns:
        The number of files that were merged.

    Raises:
        UserError: the storage cannot be read or written.
    """
    began = time.monotonic()
    try:
        snapshot = take_snapshot(storage)
        remove_obsolete_files(snapshot, grace)
        if len(snapshot.appended) < least and not snapshot.damaged:
            return 0
        merged, new = _merge(snapshot, full)
    except FileNotFoundError:  # a concurrent compaction was faster
        return 0
    if not merged or time.monotonic() - began > TIMEOUT_S:
        return 0
    now = time.time()
    present = {entry.name for entry in storage.list(NEW)}
    absorbed = {name: when for name, when in snapshot.absorbed.items() if name in present or now - when < ORPHAN_AGE_S}
    absorbed |= dict.fromkeys(merged, now)
    files = (*(file for file in snapshot.merged if file.name not in merged), *new)
    number = 1 + max((int(head.name.rpartition("/")[2].partition("-")[0]) for head in snapshot.heads), default=0)
    name = f"{COMMITS}/{number:08d}-{uuid.uuid4().hex[:12]}.json"
    parents = (*(head.name for head in snapshot.heads), *snapshot.damaged)
    storage.put(name, to_json(Commit(name, parents, files, absorbed)))
    return len(merged)


@contextmanager
def compact_in_background(storage: Storage, complain: Callable[[str], None], every: float = 30.0) -> Iterator[None]:
    """Compact regularly in a background thread, and once at the end.

    Args:
        storage: the storage of the sweep.
        complain: is called from the thread with the error of a compaction that failed; the next one runs anyway.
        every: seconds between two compactions.
    """
    done = threading.Event()

    def run() -> None:
        while not done.wait(every):
            attempt()

    def attempt() -> None:
        try:
            compact(storage)
        except UserError as error:
            complain(f"records were not compacted: {error}")

    thread = threading.Thread(target=run, name="compaction", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        attempt()


def remove_obsolete_files(snapshot: StoreSnapshot, grace: float = GRACE_S) -> None:
    """Remove absorbed files, commits with a child, and merged files of crashed compactions.

    Raises:
        UserError: the storage cannot be written.
    """
    storage, now = snapshot.storage, time.time()
    named = {file.name for head in snapshot.heads for file in head.files}
    for entry in (*storage.list(NEW), *storage.list(MERGED)):
        absorbed = snapshot.absorbed.get(entry.name)
        if absorbed is not None and now - absorbed >= grace:
            storage.delete(entry.name)
        orphaned = entry.name.startswith(MERGED) and entry.name not in named and absorbed is None
        orphaned = orphaned and not snapshot.damaged  # else a commit that cannot be read may have named it
        if orphaned and entry.modified and (datetime.now(UTC) - entry.modified).total_seconds() > ORPHAN_AGE_S:
            storage.delete(entry.name)
    for name in snapshot.older:
        storage.delete(name)


def _merge(snapshot: StoreSnapshot, full: int) -> tuple[list[str], list[MergedFile]]:
    """Write the records of the appended files, and of merged files that are not much larger, to new merged files.

    Files that cannot be used stay where they are, so that readers go on to name them.

    Returns:
        The names of the files that were merged, and the new files.
    """
    storage = snapshot.storage
    merged: list[str] = []
    new: list[MergedFile] = []
    parts: list[pa.Table] = []
    rows = 0

    def write() -> None:
        new.append(_write(storage, sort_records(join(parts))))
        parts.clear()

    def add(name: str) -> None:
        nonlocal rows
        with suppress(UnusableFilesError):
            parts.append(read_file(storage, name))
            merged.append(name)
            rows += parts[-1].num_rows
        if sum(part.num_rows for part in parts) >= full:
            write()

    for name in snapshot.appended:
        add(name)
    for file in sorted(snapshot.merged, key=lambda file: file.rows):
        if file.rows >= min(full, GROWTH * rows + 1):
            break
        add(file.name)
    if parts:
        write()
    return merged, new


def _write(storage: Storage, table: pa.Table) -> MergedFile:
    trials = table["trial"].unique().to_pylist()
    content = write_file(table)
    name = f"{MERGED}/{file_name(f'{time.time_ns():020d}-{uuid.uuid4().hex[:12]}', trials, content)}"
    storage.put(name, content)
    return MergedFile(name, table.num_rows, min(trials), max(trials))


def sort_records(table: pa.Table) -> pa.Table:
    """Sort the rows of a table like `records.record_order` and drop duplicates."""
    keys = [
        sorted_words(table["trial"])[1],
        table["attempt"].to_numpy(),
        sorted_words(table["writer"])[1],
        table["epoch"].to_numpy(),
        kind_codes(table["kind"]),
        table["time"].to_numpy(),
    ]
    order = np.lexsort(keys[::-1])
    repeated = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    return table.unify_dictionaries().take(order[np.append(np.ones(min(1, len(order)), bool), ~repeated)])
