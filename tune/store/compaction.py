"""Many small files of records into few large ones, while others write and read.

A compaction reads some files, writes their records to new ones in ``records/merged``, and then commits: it writes a
*generation*, ``records/generations/NUMBER-ID.json``, that names every merged file that counts, every file whose records
these hold (*absorbed*), and the generations it was made from (*parents*). No file ever changes. So ::

    files that count = merged ones of the generations that are no other's parent, and appended ones, less absorbed ones

- **A crash** before the commit leaves a file that nobody names; after it, absorbed files that nobody reads. Both are
  removed later.
- **Two compactions at once** give two generations that are no other's parent. A reader takes both. Records that both
  hold are read twice and counted once, for a record is known by its trial, attempt, writer, epoch and kind
  (`tune.store.visible_records`). The next compaction has both as parents and drops the doubles.
- **A file is removed** only when a generation that counts has absorbed it. A reader that has it in its view finds it
  gone and takes a new view (`tune.store.snapshot.read_view`).

No lock, no clock and no conditional write is needed for this, so that it holds in a bucket as in a folder.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from semprior.errors import UserError
from semprior.io.storage import Storage
from tune.store.record_files import file_name, join, read_file, write_file
from tune.store.snapshot import GENERATIONS, MERGED, NEW, Generation, Merged, View, take_view, to_json
from tune.store.visible_records import ranked_kinds, ranked_words

FULL = 1 << 18  # records of a merged file that is not merged again
GROWTH = 4  # a merged file is merged again with at least a fourth of its size
GRACE = 120.0  # seconds for which an absorbed file stays, for those who are reading it
PATIENCE = 3600.0  # seconds after which a compaction gives up
LEFTOVER = 24 * PATIENCE  # age at which what nobody names is a crash's, and no compaction that knew it can be under way


def compact(storage: Storage, *, least: int = 16, full: int = FULL, grace: float = GRACE) -> int:
    """Gather the records of small files, if there are enough of them; remove what earlier compactions absorbed.

    Args:
        storage: of a sweep.
        least: number of appended files below which nothing is done.
        full: records of a file that is large enough.
        grace: seconds for which absorbed files stay.

    Returns:
        The number of files that were gathered.

    Raises:
        UserError: the storage cannot be read or written.
    """
    began = time.monotonic()
    try:
        view = take_view(storage)
        sweep_up(view, grace)
        if len(view.appended) < least:
            return 0
        gathered, made = _gather(view, full)
    except FileNotFoundError:  # another one was faster; what it left is for the next time
        return 0
    if time.monotonic() - began > PATIENCE:
        return 0
    now = time.time()
    there = {entry.name for entry in storage.list(NEW)}
    absorbed = {name: when for name, when in view.absorbed.items() if name in there or now - when < LEFTOVER}
    absorbed |= dict.fromkeys(gathered, now)
    files = (*(file for file in view.merged if file.name not in gathered), *made)
    number = 1 + max((int(head.name.rpartition("/")[2].partition("-")[0]) for head in view.heads), default=0)
    name = f"{GENERATIONS}/{number:08d}-{uuid.uuid4().hex[:12]}.json"
    parents = tuple(head.name for head in view.heads)
    storage.put(name, to_json(Generation(name, parents, files, absorbed)))
    return len(gathered)


@contextmanager
def compacting(storage: Storage, complain: Callable[[str], None], every: float = 30.0) -> Iterator[None]:
    """Compact in the background, every so many seconds and once at the end.

    Args:
        storage: of a sweep.
        complain: is told, from another thread, when a compaction fails; the next one is tried all the same.
        every: seconds.
    """
    done = threading.Event()

    def work() -> None:
        while not done.wait(every):
            attempt()

    def attempt() -> None:
        try:
            compact(storage)
        except UserError as error:
            complain(f"records were not compacted: {error}")

    thread = threading.Thread(target=work, name="compaction", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        attempt()


def sweep_up(view: View, grace: float = GRACE) -> None:
    """Remove absorbed files, generations that have a child, and what a crash has left.

    Raises:
        UserError: the storage cannot be written.
    """
    storage, now = view.storage, time.time()
    named = {file.name for head in view.heads for file in head.files}
    for entry in (*storage.list(NEW), *storage.list(MERGED)):
        absorbed = view.absorbed.get(entry.name)
        if absorbed is not None and now - absorbed >= grace:
            storage.delete(entry.name)
        lost = entry.name.startswith(MERGED) and entry.name not in named and absorbed is None
        if lost and entry.modified and (datetime.now(UTC) - entry.modified).total_seconds() > LEFTOVER:
            storage.delete(entry.name)
    for name in view.older:
        storage.delete(name)


def _gather(view: View, full: int) -> tuple[list[str], list[Merged]]:
    """Write the records of all appended files, and of merged ones that are not much larger, to new merged files."""
    storage, names, made = view.storage, list(view.appended), []
    parts: list[pa.Table] = []
    held = 0

    def write() -> None:
        made.append(_write(storage, sort_records(join(parts))))
        parts.clear()

    for name in view.appended:
        parts.append(read_file(storage, name))
        held += parts[-1].num_rows
        if sum(part.num_rows for part in parts) >= full:
            write()
    for file in sorted(view.merged, key=lambda file: file.rows):
        if file.rows >= min(full, GROWTH * held + 1):
            break
        parts.append(read_file(storage, file.name))
        names.append(file.name)
        held += file.rows
        if sum(part.num_rows for part in parts) >= full:
            write()
    if parts:
        write()
    return names, made


def _write(storage: Storage, table: pa.Table) -> Merged:
    trials = table["trial"].unique().to_pylist()
    name = f"{MERGED}/{file_name(f'{time.time_ns():020d}-{uuid.uuid4().hex[:12]}', trials)}"
    storage.put(name, write_file(table))
    return Merged(name, table.num_rows, min(trials), max(trials))


def sort_records(table: pa.Table) -> pa.Table:
    """A table's records in their order (`records.order`), each once."""
    keys = [
        ranked_words(table["trial"])[1],
        table["attempt"].to_numpy(),
        ranked_words(table["writer"])[1],
        table["epoch"].to_numpy(),
        ranked_kinds(table["kind"]),
        table["time"].to_numpy(),
    ]
    order = np.lexsort(keys[::-1])
    again = np.logical_and.reduce([key[order][1:] == key[order][:-1] for key in keys])
    return table.unify_dictionaries().take(order[np.append(np.ones(min(1, len(order)), bool), ~again)])
