"""Snapshots of a results store: the files that contain its records at one moment, and reading columns of them.

Each append writes a file to ``records/new``; compaction merges such files into ``records/merged``. The commits of the
compactions determine which of the files count (`tune.store.compaction` explains why this is safe). Two listings give
a snapshot. If a compaction removes a file of the snapshot before it is read, a new snapshot is taken.

A file that cannot be used (damaged, foreign, of another version) is left out, and with it its records; who reads is
told which files those are. A commit is less of a loss: without it, all merged files count, as records that are read
twice are counted once.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from semprior.errors import UserError
from semprior.io.storage import Storage
from semprior.reading.json_text import parse_json
from tune.store.record_files import UnusableFilesError, join, name_fault, read_file, trial_in_name

NEW, MERGED, COMMITS = "records/new", "records/merged", "records/generations"
_COMMIT = re.compile(rf"{COMMITS}/\d{{8,}}-[0-9a-f]{{12}}\.json")
_LAST = "\U0010ffff"  # no trial comes after it
T = TypeVar("T")
_MERGED_READERS = threading.BoundedSemaphore(3)
"""Limits how many merged files are read at the same time, because each needs memory."""
_BUCKET_READERS = 8
"""Number of files of a bucket that are read at the same time: requests are slow, and each file needs memory."""
_TRIES = 10  # snapshots of which a file may be gone when it is read


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
class LeftOut:
    """A file in the folder of the records that was not used.

    Attributes:
        name: path relative to the sweep.
        reason: why.
        missing: what is therefore missing; empty if nothing is, or if it is not known.
    """

    name: str
    reason: str
    missing: str = ""

    def __str__(self) -> str:
        """One line."""
        return f"{self.name} {self.reason}" + (f" ({self.missing})" if self.missing else "")


_NAMED = 3  # files that a line names


def left_out_in_words(left_out: Sequence[LeftOut | str]) -> str:
    """One line on files that were left out: their number, the first of them, and what is missing."""
    more = f"; and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
    files = "1 file is" if len(left_out) == 1 else f"{len(left_out)} files are"
    return f"{files} left out: {'; '.join(map(str, left_out[:_NAMED]))}{more}"


@dataclass(frozen=True)
class StoreSnapshot:
    """The files that together contain all records.

    Attributes:
        storage: the storage of the sweep.
        heads: the commits without a child; concurrent compactions leave several of them.
        older: names of the other commits.
        appended: names of the files in ``records/new`` that count.
        absorbed: the absorbed files of all heads.
        damaged: names of the commits that cannot be read.
        recovered: merged files that commits which cannot be read may have named.
        left_out: the files that are not used.
    """

    storage: Storage
    heads: tuple[Commit, ...]
    older: tuple[str, ...]
    appended: tuple[str, ...]
    absorbed: Mapping[str, float]
    damaged: tuple[str, ...] = ()
    recovered: tuple[MergedFile, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def merged(self) -> tuple[MergedFile, ...]:
        """The merged files that count."""
        unused = {*self.absorbed, *(file.name for file in self.left_out)}
        files = {file.name: file for file in self.recovered}
        files |= {file.name: file for head in self.heads for file in head.files}
        return tuple(files[name] for name in sorted(files) if name not in unused)

    def files(self, trials: Collection[str] | None = None) -> tuple[str, ...]:
        """Names of the files that contain all records, or all records of some trials, in reading order."""
        merged, appended = self.merged, self.appended
        if trials is not None:
            merged = tuple(file for file in merged if any(file.first <= trial <= file.last for trial in trials))
            appended = tuple(name for name in appended if trial_in_name(name) in {None, *trials})
        return (*(file.name for file in merged), *appended)


def take_snapshot(storage: Storage, unusable: Mapping[str, str] | None = None) -> StoreSnapshot:
    """Take a snapshot of a store.

    Args:
        storage: the storage of the sweep.
        unusable: files of records that are left out, each with the reason.

    Raises:
        FileNotFoundError: a commit was removed between its listing and its reading.
        UserError: the storage cannot be read.
    """
    # Appended files are listed first: if one is removed after this, the commits listed next contain its records.
    new = [entry.name for entry in storage.list(NEW)]
    listed = [entry.name for entry in storage.list(COMMITS)]
    faults = {name: fault for name in new if (fault := name_fault(name))}
    commits: dict[str, Commit] = {}
    damaged = []
    for name in listed:
        try:
            if _COMMIT.fullmatch(name):
                commits[name] = _parse(storage, name)
            else:
                faults[name] = "is not a commit of a compaction"
        except UnusableFilesError as error:
            faults |= error.reasons
            damaged.append(name)
    parents = {parent for commit in commits.values() for parent in commit.parents}
    heads = tuple(commit for name, commit in commits.items() if name not in parents)
    absorbed = {name: when for head in heads for name, when in head.absorbed.items()}
    recovered: tuple[MergedFile, ...] = ()
    if damaged := [name for name in damaged if name not in parents]:
        names = [entry.name for entry in storage.list(MERGED) if not name_fault(entry.name)]
        recovered = tuple(MergedFile(name, 0, "", _LAST) for name in names)
    faults |= unusable or {}
    faults = {name: fault for name, fault in faults.items() if name not in absorbed and name not in parents}
    rows = {file.name: file for head in heads for file in head.files}
    return StoreSnapshot(
        storage,
        heads,
        tuple(name for name in listed if name in parents),
        tuple(name for name in new if name not in absorbed and name not in faults),
        absorbed,
        tuple(damaged),
        recovered,
        tuple(LeftOut(name, faults[name], _missing(name, rows.get(name))) for name in sorted(faults)),
    )


def _missing(name: str, merged: MergedFile | None) -> str:
    """What is missing without a file."""
    if merged is not None:
        trials = f"trial {merged.first}" if merged.first == merged.last else f"trials {merged.first} to {merged.last}"
        return f"{merged.rows} records of {trials} are missing"
    trial = trial_in_name(name)
    return f"records of trial {trial} are missing" if trial else ""


def read_snapshot(storage: Storage, read: Callable[[StoreSnapshot], T]) -> tuple[T, tuple[LeftOut, ...]]:
    """Apply `read` to a snapshot, and to a new one if a file was removed in the meantime or cannot be used.

    Returns:
        What `read` returns, and the files that are left out.

    Raises:
        UserError: the storage cannot be read.
    """
    unusable: dict[str, str] = {}
    snapshot: StoreSnapshot | None = None
    gone = 0
    while True:
        try:
            snapshot = take_snapshot(storage, unusable)
            return read(snapshot), snapshot.left_out
        except UnusableFilesError as error:
            if error.reasons.keys() <= unusable.keys():
                raise
            unusable |= error.reasons
        except FileNotFoundError as error:
            gone += 1
            if gone == _TRIES:
                raise UserError(
                    f"{storage.uri}: a file of its records is missing ({' '.join(str(error).split())})"
                ) from error
            if gone == _TRIES - 1 and snapshot is not None:
                # no compaction has removed it: commits would not name it any more
                unusable |= {file.name: "is missing" for file in snapshot.merged if not storage.exists(file.name)}


def to_json(commit: Commit) -> bytes:
    """Encode a commit as the content of its file."""
    files = [{"name": f.name, "rows": f.rows, "first": f.first, "last": f.last} for f in commit.files]
    content = {"parents": commit.parents, "files": files, "absorbed": dict(commit.absorbed)}
    return json.dumps(content, indent=1).encode()


def _parse(storage: Storage, name: str) -> Commit:
    try:
        content = parse_json(storage.read(name), dict[str, Any], name)
        files = tuple(
            MergedFile(str(f["name"]), int(f["rows"]), str(f["first"]), str(f["last"])) for f in content["files"]
        )
        absorbed = {str(absorbed): float(when) for absorbed, when in content["absorbed"].items()}
        return Commit(name, tuple(map(str, content["parents"])), files, absorbed)
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableFilesError({name: f"is damaged ({error})"}) from error


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
        UnusableFilesError: a file is damaged, foreign, or has another schema version.
        UserError: the storage cannot be read.
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
    unusable: dict[str, str] = {}

    def read_or_note(item: T) -> pa.Table | None:
        try:
            return read(item)
        except UnusableFilesError as error:  # all are found in one pass
            unusable.update(error.reasons)
            return None

    with ThreadPoolExecutor(workers) as pool:
        tables = [table for table in pool.map(read_or_note, items) if table is not None]
    if unusable:
        raise UnusableFilesError(unusable)
    return tables
