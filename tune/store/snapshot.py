"""Snapshots of a results store: the files that contain its records at one moment, and reading columns of them.

Each append writes a file to ``records/new``; compaction merges such files into ``records/merged``. The commits of the
compactions determine which of the files count (`tune.store.compaction` explains why this is safe). Two listings give
a snapshot. If a compaction removes a file of the snapshot before it is read, a new snapshot is taken.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from semprior.errors import UserError
from semprior.io.storage import Storage
from semprior.reading.json_text import parse_json
from tune.store.record_files import is_record_file, join, read_file, trial_in_name

NEW, MERGED, COMMITS = "records/new", "records/merged", "records/generations"
T = TypeVar("T")
_MERGED_READERS = threading.BoundedSemaphore(3)
"""Limits how many merged files are read at the same time, because each needs memory."""
_BUCKET_READERS = 8
"""Number of files of a bucket that are read at the same time: requests are slow, and each file needs memory."""


@dataclass(frozen=True)
class MergedFile:
    """A file that a compaction wrote.

    Attributes:
        name: path relative to the sweep.
        rows: number of records.
        first: the smallest trial id.
        last: the greatest trial id.
    """

    name: str
    rows: int
    first: str
    last: str


@dataclass(frozen=True)
class _StoredCommit:
    parents: tuple[str, ...]
    files: tuple[MergedFile, ...]
    absorbed: Mapping[str, float]


@dataclass(frozen=True)
class Commit:
    """The result of a compaction.

    Attributes:
        name: path of its file, relative to the sweep.
        parents: names of the commits that it replaces.
        files: the merged files that count.
        absorbed: names of the files whose records are now in merged files, each with the time of the compaction, in
            seconds since 1970.
    """

    name: str
    parents: tuple[str, ...]
    files: tuple[MergedFile, ...]
    absorbed: Mapping[str, float]


@dataclass(frozen=True)
class StoreSnapshot:
    """The files that together contain all records.

    Attributes:
        storage: the storage of the sweep.
        heads: the commits without a child; concurrent compactions leave several of them.
        older: names of the other commits.
        appended: names of the files in ``records/new`` that count.
        absorbed: the absorbed files of all heads.
    """

    storage: Storage
    heads: tuple[Commit, ...]
    older: tuple[str, ...]
    appended: tuple[str, ...]
    absorbed: Mapping[str, float]

    @property
    def merged(self) -> tuple[MergedFile, ...]:
        """The merged files that count."""
        files = {file.name: file for head in self.heads for file in head.files if file.name not in self.absorbed}
        return tuple(files[name] for name in sorted(files))

    def files(self, trials: Collection[str] | None = None) -> tuple[str, ...]:
        """Names of the files that contain all records, or all records of some trials, in reading order."""
        merged, appended = self.merged, self.appended
        if trials is not None:
            merged = tuple(file for file in merged if any(file.first <= trial <= file.last for trial in trials))
            appended = tuple(name for name in appended if trial_in_name(name) in {None, *trials})
        return (*(file.name for file in merged), *appended)


def take_snapshot(storage: Storage) -> StoreSnapshot:
    """Take a snapshot of a store.

    Raises:
        FileNotFoundError: a commit was removed between its listing and its reading.
        UserError: the storage cannot be read.
    """
    # Appended files are listed first: if one is removed after this, the commits listed next contain its records.
    appended = [entry.name for entry in storage.list(NEW) if is_record_file(entry.name)]
    listed = [entry.name for entry in storage.list(COMMITS) if entry.name.endswith(".json")]
    commits = {name: _parse(storage, name) for name in listed}
    parents = {parent for commit in commits.values() for parent in commit.parents}
    heads = tuple(commit for name, commit in commits.items() if name not in parents)
    absorbed = {name: when for head in heads for name, when in head.absorbed.items()}
    return StoreSnapshot(
        storage,
        heads,
        tuple(name for name in listed if name in parents),
        tuple(name for name in appended if name not in absorbed),
        absorbed,
    )


def read_snapshot(storage: Storage, read: Callable[[StoreSnapshot], T]) -> T:
    """Apply `read` to a snapshot, and to a new one if a file was removed in the meantime.

    Raises:
        UserError: the storage cannot be read.
    """
    for _ in range(10):
        try:
            return read(take_snapshot(storage))
        except FileNotFoundError as error:
            missing = error
    raise UserError(f"{storage.uri}: a file of its records is missing ({' '.join(str(missing).split())})")


def to_json(commit: Commit) -> bytes:
    """Encode a commit as the content of its file."""
    files = [{"name": f.name, "rows": f.rows, "first": f.first, "last": f.last} for f in commit.files]
    content = {"parents": commit.parents, "files": files, "absorbed": dict(commit.absorbed)}
    return json.dumps(content, indent=1).encode()


def _parse(storage: Storage, name: str) -> Commit:
    stored = parse_json(storage.read(name), _StoredCommit, f"{storage.uri}/{name}")
    return Commit(name, stored.parents, stored.files, stored.absorbed)


@dataclass(frozen=True)
class RecordFiles:
    """The files of a snapshot, of which further columns and rows can be read.

    A position is the index of a row in the concatenation of all files.

    Attributes:
        storage: the storage of the sweep.
        names: names of the files.
        rows: number of rows of each file.
        preloaded: columns of the appended files, which are small and many, so that each file is opened only once.
    """

    storage: Storage
    names: tuple[str, ...]
    rows: tuple[int, ...]
    preloaded: Mapping[str, pa.Table]

    def columns(self, columns: Sequence[str]) -> pa.Table:
        """Read columns of all rows.

        Raises:
            FileNotFoundError: a file was removed.
            UserError: the storage cannot be read.
        """

        def read(name: str) -> pa.Table:
            if name in self.preloaded and {*columns} <= {*self.preloaded[name].column_names}:
                return self.preloaded[name].select(columns)
            return _read(self.storage, name, columns)

        return join(_read_concurrently(self.storage, read, self.names), columns)

    def rows_at(self, positions: Sequence[int] | np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """Read columns, or all of them, of the rows at `positions`, in this order.

        Raises:
            FileNotFoundError: a file was removed.
            UserError: the storage cannot be read.
        """
        positions = np.asarray(positions, np.int64)
        order = np.argsort(positions, kind="stable")
        wanted, ends = positions[order], np.cumsum(self.rows)

        def read(index: int) -> pa.Table:
            first = ends[index] - self.rows[index]
            inside = wanted[(wanted >= first) & (wanted < ends[index])] - first
            return _read(self.storage, self.names[index], columns, rows=inside)

        parts = _read_concurrently(self.storage, read, np.unique(np.searchsorted(ends, wanted, side="right")).tolist())
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return join(parts, columns).take(back)

    def times(self, positions: np.ndarray) -> np.ndarray:
        """(N,) times of the records at some positions, in seconds since 1970."""
        times: np.ndarray = self.rows_at(positions, ["time"])["time"].to_numpy()
        return times


def scan(
    snapshot: StoreSnapshot,
    columns: Sequence[str] | None = None,
    trials: Collection[str] | None = None,
    preload: Sequence[str] = (),
) -> tuple[RecordFiles, pa.Table]:
    """Read columns of the records of a snapshot.

    Args:
        snapshot: the snapshot.
        columns: names of the columns; None for all.
        trials: trials whose records are read; None for all.
        preload: further columns that `RecordFiles.columns` will read later.

    Raises:
        FileNotFoundError: a file was removed.
        UserError: a file is damaged, or has another schema version.
    """
    names = snapshot.files(trials)
    preloaded: dict[str, pa.Table] = {}

    def read(name: str) -> pa.Table:
        if columns is None or not preload or not name.startswith(NEW):
            return _read(snapshot.storage, name, columns, trials)
        preloaded[name] = read_file(snapshot.storage, name, [*columns, *preload], trials)
        return preloaded[name].select(columns)

    parts = _read_concurrently(snapshot.storage, read, names)
    return RecordFiles(snapshot.storage, names, tuple(part.num_rows for part in parts), preloaded), join(parts, columns)


def _read(
    storage: Storage,
    name: str,
    columns: Sequence[str] | None = None,
    trials: Collection[str] | None = None,
    rows: np.ndarray | None = None,
) -> pa.Table:
    with _MERGED_READERS if name.startswith(MERGED) else nullcontext():
        return read_file(storage, name, columns, trials, rows)


def _read_concurrently(storage: Storage, read: Callable[[T], pa.Table], items: Sequence[T]) -> list[pa.Table]:
    workers = (os.cpu_count() or 1) if storage.local is not None else _BUCKET_READERS
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(read, items))
