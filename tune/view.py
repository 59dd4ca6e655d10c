"""Which files hold the records of a sweep at this moment, and reading columns of them.

Records lie in ``records/new``, one file an append, and in ``records/merged``, where compaction gathers them
(`tune.compaction`). A view is taken by two listings and then read; where a file of it has gone meanwhile, because
compaction put its records into another, a new view is taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semprior.errors import UserError
from tune.records import METRIC, SCHEMA, SCHEMA_VERSION
from tune.storage import Storage

NEW = "records/new"
NAME = re.compile(r"(?:@(?P<trial>[\w.]+))?\.v(?P<version>\d+)\.parquet$")
T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """Files that together hold every record.

    Attributes:
        storage: of the sweep.
        files: their names, in the order in which they are read.
    """

    storage: Storage
    files: tuple[str, ...]


def file_name(stem: str, trials: Collection[str]) -> str:
    """The name of a file of records: its schema version, and its trial, where it is of one, so that others skip it."""
    (trial, *others) = trials
    of = f"@{trial}" if not others and re.fullmatch(r"[\w.]+", trial, re.ASCII) else ""
    return f"{stem}{of}.v{SCHEMA_VERSION}.parquet"


def take_view(storage: Storage) -> View:
    """The files that hold the records now.

    Raises:
        UserError: the storage cannot be read.
    """
    return View(storage, tuple(entry.name for entry in storage.list(NEW) if NAME.search(entry.name)))


def read_view(storage: Storage, read: Callable[[View], T]) -> T:
    """What `read` makes of the view; once more with a new one where a file has gone.

    Raises:
        UserError: the storage cannot be read.
    """
    for _ in range(10):
        view = take_view(storage)
        try:
            return read(view)
        except FileNotFoundError as error:
            gone = error
    raise UserError(f"{storage.uri}: its records change faster than they can be read ({gone})")


@dataclass(frozen=True)
class Scan:
    """Columns of the records of a view.

    Attributes:
        view: that was read.
        table: the columns; those of the metrics that were asked for are always there.
        rows: of each file.
    """

    view: View
    table: pa.Table
    rows: tuple[int, ...]

    def details(self, positions: Sequence[int] | np.ndarray, columns: Sequence[str] | None = None) -> pa.Table:
        """Other columns, or all, of some rows of the table, in the order of `positions`."""
        positions = np.asarray(positions, np.int64)
        order = np.argsort(positions, kind="stable")
        wanted = positions[order]
        ends = np.cumsum(self.rows)
        parts = []
        for index in np.unique(np.searchsorted(ends, wanted, side="right")):
            first = ends[index] - self.rows[index]
            inside = wanted[(wanted >= first) & (wanted < ends[index])] - first
            parts.append(_read(self.view.storage, self.view.files[index], columns, rows=inside))
        joined = join(parts, columns)
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return joined.take(back)


def scan(view: View, columns: Sequence[str] | None = None, trials: Collection[str] | None = None) -> Scan:
    """Columns of all records, or all columns; or of the records of some trials.

    Raises:
        FileNotFoundError: a file has gone.
        UserError: a file is damaged, or of a newer version.
    """

    def read(name: str) -> pa.Table:
        return _read(view.storage, name, columns, trials)

    if trials is not None:
        view = View(view.storage, tuple(name for name in view.files if _trial_of(name) in {None, *trials}))

    workers = 2 * (os.cpu_count() or 1) if view.storage.local is not None else 32
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(read, view.files))
    return Scan(view, join(parts, columns), tuple(part.num_rows for part in parts))


def join(parts: Sequence[pa.Table], columns: Sequence[str] | None = None) -> pa.Table:
    """Tables one after the other; metrics that one lacks are null there."""
    fields = {field.name: field for part in parts for field in part.schema}
    if columns is not None:
        fields |= {name: _field(name) for name in columns}
        fields = {name: fields[name] for name in columns}
    else:
        fields = {field.name: field for field in SCHEMA} | fields
    schema = pa.schema(list(fields.values()))
    return pa.concat_tables([schema.empty_table(), *parts], promote_options="default").select(schema.names)


def _read(
    storage: Storage,
    name: str,
    columns: Sequence[str] | None,
    trials: Collection[str] | None = None,
    rows: np.ndarray | None = None,
) -> pa.Table:
    version = int(_parts(name)["version"])
    if version > SCHEMA_VERSION:
        raise UserError(f"{storage.uri}/{name}: was written by a newer version (schema {version}); upgrade semprior")
    try:
        with storage.filesystem.open_input_file(storage.path(name)) as source:
            words = [field.name for field in SCHEMA if pa.types.is_dictionary(field.type)]
            file = pq.ParquetFile(source, read_dictionary=words, pre_buffer=storage.local is None)
            present = [column for column in columns or file.schema_arrow.names if column in file.schema_arrow.names]
            if rows is not None:
                return upgrade(_rows_of(file, present, rows), columns)
            if trials is not None:
                groups = [i for i in range(file.num_row_groups) if _may_hold(file.metadata.row_group(i), trials)]
                table = file.read_row_groups(groups, columns=list({*present, "trial"}), use_threads=False)
                kept = pc.is_in(table["trial"].cast(pa.string()), pa.array(sorted(trials), pa.string()))
                return upgrade(table.filter(kept).select(present), columns)
            return upgrade(file.read(columns=present, use_threads=False), columns)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{storage.uri}/{name}: cannot be read: {' '.join(str(error).split())}") from error


def upgrade(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Add what an older version, or a record without a metric, does not have."""
    names = [field.name for field in SCHEMA] if columns is None else columns
    for name in names:
        if name not in table.column_names:
            table = table.append_column(_field(name), pa.nulls(table.num_rows, _field(name).type))
    return table


def _parts(name: str) -> re.Match[str]:
    found = NAME.search(name)
    if found is None:
        raise UserError(f"{name}: is not the name of a file of records")
    return found


def _trial_of(name: str) -> str | None:
    return _parts(name)["trial"]


def _field(name: str) -> pa.Field:
    return pa.field(name, pa.float64()) if name.startswith(METRIC) else SCHEMA.field(name)


def _rows_of(file: pq.ParquetFile, columns: list[str], rows: np.ndarray) -> pa.Table:
    """Some rows, in rising order, of which only the row groups that hold any are read."""
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    parts = []
    for index in np.unique(np.searchsorted(ends, rows, side="right")):
        first = ends[index] - sizes[index]
        inside = rows[(rows >= first) & (rows < ends[index])] - first
        parts.append(file.read_row_group(int(index), columns=columns, use_threads=False).take(inside))
    return pa.concat_tables(parts)


def _may_hold(group: pq.RowGroupMetaData, trials: Collection[str]) -> bool:
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "trial":
            found = column.statistics
            return found is None or not found.has_min_max or any(found.min <= t <= found.max for t in trials)
    return True
