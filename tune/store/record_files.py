"""Parquet files of records: their names, writing them, and reading some of their columns and rows."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semprior.errors import UserError
from semprior.io.storage import Storage
from semprior.reading.parquet import explained, open_parquet, require_values
from tune.store.records import METRIC_PREFIX, RECORD_KINDS, RECORD_SCHEMA, SCHEMA_VERSION, State

ROW_GROUP = 1 << 15  # records; the smallest unit that can be read
SMALL = 1 << 20  # bytes up to which a file of a bucket is read in one request rather than in parts
_NULLABLE = ("checkpoint", "sha256")
DICTIONARY_COLUMNS = [field.name for field in RECORD_SCHEMA if pa.types.is_dictionary(field.type)]
_NAME = re.compile(r"(?:@(?P<trial>[\w.]+))?\.v(?P<version>\d+)\.parquet$", re.ASCII)


def file_name(stem: str, trials: Collection[str]) -> str:
    """The name of a file of records: with the schema version, and with the trial if all records belong to one trial."""
    trial = next(iter(trials)) if len(trials) == 1 else ""
    suffix = f"@{trial}" if re.fullmatch(r"[\w.]+", trial, re.ASCII) else ""
    return f"{stem}{suffix}.v{SCHEMA_VERSION}.parquet"


def is_record_file(name: str) -> bool:
    """Whether a file with this name contains records."""
    return _NAME.search(name) is not None


def trial_in_name(name: str) -> str | None:
    """The trial in the name of a file, if the name contains one."""
    found = _NAME.search(name)
    return found["trial"] if found else None


def write_file(table: pa.Table) -> bytes:
    """Encode records as Parquet: compressed, and with each distinct text once per row group."""
    content = io.BytesIO()
    with pq.ParquetWriter(
        content,
        table.schema,
        compression="zstd",
        use_dictionary=DICTIONARY_COLUMNS,
        dictionary_pagesize_limit=64 << 20,  # a row group contains the configurations of hundreds of trials
        store_schema=False,
    ) as writer:
        for start in range(0, table.num_rows, ROW_GROUP):
            writer.write_table(_compact_dictionaries(table.slice(start, ROW_GROUP)))
    return content.getvalue()


def read_file(
    storage: Storage,
    name: str,
    columns: Sequence[str] | None = None,
    trials: Collection[str] | None = None,
    rows: np.ndarray | None = None,
) -> pa.Table:
    """Read records of a file.

    Args:
        storage: the storage of the sweep.
        name: name of the file.
        columns: names of the columns; None for all.
        trials: trials whose records are read; None for all.
        rows: (N,) ascending indices of the rows to read; None for all.

    Raises:
        FileNotFoundError: the file does not exist any longer.
        UserError: the file is damaged, or has another schema version.
    """
    _check_version(storage, name)
    place = f"{storage.uri}/{name}"
    with explained(place), storage.open_file(name) as source:
        remote = storage.local is None
        if remote and source.size() <= SMALL:
            content = pa.BufferReader(source.read_buffer())
            file = open_parquet(content, RECORD_SCHEMA, place, extra=METRIC_PREFIX)
        else:
            file = open_parquet(source, RECORD_SCHEMA, place, extra=METRIC_PREFIX, pre_buffer=remote)
        known = [n for n in file.schema_arrow.names if n in RECORD_SCHEMA.names or n.startswith(METRIC_PREFIX)]
        present = known if columns is None else [column for column in columns if column in known]
        if rows is not None:
            table = _rows_of(file, present, rows)
        elif trials is not None:
            table = _trials_of(file, present, trials)
        else:
            table = file.read(columns=present, use_threads=False)
    optional = {*_NULLABLE, *(name for name in present if name.startswith(METRIC_PREFIX))}
    require_values(table, optional, {"kind": RECORD_KINDS, "state": get_args(State)}, place)
    return _with_all_metrics(table, RECORD_SCHEMA.names if columns is None else columns)


def join(parts: Sequence[pa.Table], columns: Sequence[str] | None = None) -> pa.Table:
    """Concatenate tables. Metrics that a table does not have are null in its rows."""
    if columns is None:
        names = dict.fromkeys(name for part in parts for name in part.column_names)  # distinct, in order
        columns = [*RECORD_SCHEMA.names, *(name for name in names if name not in RECORD_SCHEMA.names)]
    empty = pa.schema([_field(name) for name in columns]).empty_table()
    return pa.concat_tables([empty, *parts], promote_options="default").select(columns)


def _check_version(storage: Storage, name: str) -> None:
    """Refuse a file of another schema version."""
    found = _NAME.search(name)
    version = int(found["version"]) if found else 0
    if version > SCHEMA_VERSION:
        raise UserError(f"{storage.uri}/{name}: was written by a newer version (schema {version}); upgrade semprior")
    if version < SCHEMA_VERSION:
        raise UserError(
            f"{storage.uri}/{name}: was written before the first release (schema {version}) and is no longer read;"
            " begin the sweep anew in another folder"
        )


def _with_all_metrics(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Add a column of nulls for each metric that none of the file's records has."""
    for name in columns:
        if name not in table.column_names:
            table = table.append_column(_field(name), pa.nulls(table.num_rows, pa.float64()))
    return table


def _compact_dictionaries(table: pa.Table) -> pa.Table:
    """Remove unused entries from the dictionaries of a table, which Parquet would write as well."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = pa.table({field.name: table[field.name]}).unify_dictionaries()[field.name].combine_chunks()
            used, codes = np.unique(column.indices.to_numpy(), return_inverse=True)
            compact = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), column.dictionary.take(used))
            table = table.set_column(index, field, compact)
    return table


def _field(name: str) -> pa.Field:
    return pa.field(name, pa.float64()) if name.startswith(METRIC_PREFIX) else RECORD_SCHEMA.field(name)


def _rows_of(file: pq.ParquetFile, columns: list[str], rows: np.ndarray) -> pa.Table:
    """Read some rows. Only row groups that contain one of them are read."""
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    parts = []
    for index in np.unique(np.searchsorted(ends, rows, side="right")):
        first = ends[index] - sizes[index]
        inside = rows[(rows >= first) & (rows < ends[index])] - first
        parts.append(file.read_row_group(int(index), columns=columns, use_threads=False).take(inside))
    return pa.concat_tables(parts)


def _trials_of(file: pq.ParquetFile, columns: list[str], trials: Collection[str]) -> pa.Table:
    """Read the rows of some trials. Only row groups that may contain one of them are read."""
    groups = [index for index in range(file.num_row_groups) if _may_contain(file.metadata.row_group(index), trials)]
    table = file.read_row_groups(groups, columns=list({*columns, "trial"}), use_threads=False)
    wanted = pc.is_in(table["trial"].cast(pa.string()), pa.array(sorted(trials), pa.string()))
    return table.filter(wanted).select(columns)


def _may_contain(group: pq.RowGroupMetaData, trials: Collection[str]) -> bool:
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "trial":
            bounds = column.statistics
            return bounds is None or not bounds.has_min_max or any(bounds.min <= t <= bounds.max for t in trials)
    return True
