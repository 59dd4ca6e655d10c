"""Which files hold the records of a sweep at this moment, and reading columns of all of them.

Records lie in ``records/new``, one file an append, and in ``records/merged``, where compaction gathers them; what of
that counts is told by the generations (`tune.store.compaction`, which also says why this is safe). A view is taken by
two
listings and then read. Where a file of it has gone meanwhile, because its records are in another now, a new view is
taken.
"""

from __future__ import annotations

import json
import os
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
from tune.store.record_files import is_records, join, read_file, trial_of

NEW, MERGED, GENERATIONS = "records/new", "records/merged", "records/generations"
T = TypeVar("T")
_FEW_LARGE = threading.BoundedSemaphore(3)
"""Merged files that are read at once, for each takes memory."""
_BUCKET_READERS = 8
"""Files of a bucket that are read at once: it answers slowly, and many at once; each takes memory, too."""


@dataclass(frozen=True)
class Merged:
    """A file that compaction made.

    Attributes:
        name: relative to the sweep.
        rows: records in it.
        first: the least trial in it.
        last: the greatest.
    """

    name: str
    rows: int
    first: str
    last: str


@dataclass(frozen=True)
class Generation:
    """What one compaction left.

    Attributes:
        name: of its file, relative to the sweep.
        parents: names of the generations it was made from; it holds all that they hold.
        files: that count.
        absorbed: names of files whose records these hold, and when that happened, in seconds since 1970.
    """

    name: str
    parents: tuple[str, ...]
    files: tuple[Merged, ...]
    absorbed: Mapping[str, float]


@dataclass(frozen=True)
class View:
    """Files that together hold every record.

    Attributes:
        storage: of the sweep.
        heads: the generations that are no other's parent; there are several after compactions at once.
        older: names of the other generations.
        appended: names of the files in ``records/new`` that count.
        absorbed: of all heads.
    """

    storage: Storage
    heads: tuple[Generation, ...]
    older: tuple[str, ...]
    appended: tuple[str, ...]
    absorbed: Mapping[str, float]

    @property
    def merged(self) -> tuple[Merged, ...]:
        """The merged files that count."""
        files = {file.name: file for head in self.heads for file in head.files if file.name not in self.absorbed}
        return tuple(files[name] for name in sorted(files))

    def files(self, trials: Collection[str] | None = None) -> tuple[str, ...]:
        """Names of the files that hold every record, or every one of some trials, in the order they are read in."""
        merged, appended = self.merged, self.appended
        if trials is not None:
            merged = tuple(file for file in merged if any(file.first <= trial <= file.last for trial in trials))
            appended = tuple(name for name in appended if trial_of(name) in {None, *trials})
        return (*(file.name for file in merged), *appended)


def take_view(storage: Storage) -> View:
    """The files that hold the records now.

    Raises:
        FileNotFoundError: a generation was removed between its listing and its reading.
        UserError: the storage cannot be read.
    """
    # what is appended is listed first: a file that goes after this is absorbed by a generation that is listed then
    appended = [entry.name for entry in storage.list(NEW) if is_records(entry.name)]
    listed = [entry.name for entry in storage.list(GENERATIONS) if entry.name.endswith(".json")]
    generations = {name: _parse(storage, name) for name in listed}
    parents = {parent for generation in generations.values() for parent in generation.parents}
    heads = tuple(generation for name, generation in generations.items() if name not in parents)
    absorbed = {name: when for head in heads for name, when in head.absorbed.items()}
    return View(
        storage,
        heads,
        tuple(name for name in listed if name in parents),
        tuple(name for name in appended if name not in absorbed),
        absorbed,
    )


def read_view(storage: Storage, read: Callable[[View], T]) -> T:
    """What `read` makes of the view; once more with a new one where a file has gone.

    Raises:
        UserError: the storage cannot be read.
    """
    for _ in range(10):
        try:
            return read(take_view(storage))
        except FileNotFoundError as error:
            gone = error
    raise UserError(f"{storage.uri}: a file of its records is missing ({' '.join(str(gone).split())})")


def to_json(generation: Generation) -> bytes:
    """A generation as it is stored."""
    files = [{"name": f.name, "rows": f.rows, "first": f.first, "last": f.last} for f in generation.files]
    content = {"parents": generation.parents, "files": files, "absorbed": dict(generation.absorbed)}
    return json.dumps(content, indent=1).encode()


def _parse(storage: Storage, name: str) -> Generation:
    try:
        content = json.loads(storage.read(name))
        files = tuple(Merged(f["name"], int(f["rows"]), f["first"], f["last"]) for f in content["files"])
        return Generation(name, tuple(content["parents"]), files, dict(content["absorbed"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{storage.uri}/{name}: is damaged ({error!r})") from error


@dataclass(frozen=True)
class Files:
    """Files that were read, of which more can be read. A position is a row, counted over all of them.

    Attributes:
        storage: of the sweep.
        names: of the files, in this order.
        rows: of each.
        held: columns of the small files, which are many, so that each is opened once.
    """

    storage: Storage
    names: tuple[str, ...]
    rows: tuple[int, ...]
    held: Mapping[str, pa.Table]

    def columns(self, columns: Sequence[str]) -> pa.Table:
        """Columns of all rows.

        Raises:
            FileNotFoundError: a file has gone.
            UserError: the storage cannot be read.
        """

        def read(name: str) -> pa.Table:
            if name in self.held and {*columns} <= {*self.held[name].column_names}:
                return self.held[name].select(columns)
            return _read(self.storage, name, columns)

        return join(_at_once(self.storage, read, self.names), columns)

    def details(self, positions: Sequence[int] | np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns, or all, of some rows, in the order of `positions`.

        Raises:
            FileNotFoundError: a file has gone.
            UserError: the storage cannot be read.
        """
        positions = np.asarray(positions, np.int64)
        order = np.argsort(positions, kind="stable")
        wanted, ends = positions[order], np.cumsum(self.rows)

        def read(index: int) -> pa.Table:
            first = ends[index] - self.rows[index]
            inside = wanted[(wanted >= first) & (wanted < ends[index])] - first
            return _read(self.storage, self.names[index], columns, rows=inside)

        parts = _at_once(self.storage, read, np.unique(np.searchsorted(ends, wanted, side="right")).tolist())
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return join(parts, columns).take(back)

    def times(self, positions: np.ndarray) -> np.ndarray:
        """When the records at some positions were made."""
        return self.details(positions, ["time"])["time"].to_numpy()


def scan(
    view: View,
    columns: Sequence[str] | None = None,
    trials: Collection[str] | None = None,
    soon: Sequence[str] = (),
) -> tuple[Files, pa.Table]:
    """Columns of all records, or all columns; or of the records of some trials.

    Args:
        view: that holds them.
        columns: none: all.
        trials: none: all.
        soon: further columns that `Files.columns` will be asked for.

    Raises:
        FileNotFoundError: a file has gone.
        UserError: a file is damaged, or of a newer version.
    """
    names = view.files(trials)
    held: dict[str, pa.Table] = {}

    def read(name: str) -> pa.Table:
        if columns is None or not soon or not name.startswith(NEW):
            return _read(view.storage, name, columns, trials)
        held[name] = read_file(view.storage, name, [*columns, *soon], trials)
        return held[name].select(columns)

    parts = _at_once(view.storage, read, names)
    return Files(view.storage, names, tuple(part.num_rows for part in parts), held), join(parts, columns)


def _read(storage: Storage, name: str, *arguments: Any, **named: Any) -> pa.Table:  # noqa: ANN401
    with _FEW_LARGE if name.startswith(MERGED) else nullcontext():
        return read_file(storage, name, *arguments, **named)


def _at_once(storage: Storage, read: Callable[[T], pa.Table], items: Sequence[T]) -> list[pa.Table]:
    workers = (os.cpu_count() or 1) if storage.local is not None else _BUCKET_READERS
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(read, items))
