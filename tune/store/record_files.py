"""One file of records: its name, writing it, reading some of its columns and rows."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semprior.errors import UserError
from semprior.io.storage import Storage
from tune.store.records import METRIC, SCHEMA, SCHEMA_VERSION

ROW_GROUP = 1 << 15  # records that are read at once where only some are wanted
SMALL = 1 << 20  # bytes of a bucket's file up to which one question for all of it is quicker than several for parts
WORDS = [field.name for field in SCHEMA if pa.types.is_dictionary(field.type)]
_NAME = re.compile(r"(?:@(?P<trial>[\w.]+))?\.v(?P<version>\d+)\.parquet$", re.ASCII)


def file_name(stem: str, trials: Collection[str]) -> str:
    """The name of a file of records: its schema version, and its trial, where it is of one, so that others skip it."""
    only = next(iter(trials)) if len(trials) == 1 else ""
    of = f"@{only}" if re.fullmatch(r"[\w.]+", only, re.ASCII) else ""
    return f"{stem}{of}.v{SCHEMA_VERSION}.parquet"


def is_records(name: str) -> bool:
    """Whether a file of this name holds records."""
    return _NAME.search(name) is not None


def trial_of(name: str) -> str | None:
    """The trial that a file's name says it is of, if it does."""
    found = _NAME.search(name)
    return found["trial"] if found else None


def write_file(table: pa.Table) -> bytes:
    """Records as Parquet: each word once a row group, everything compressed."""
    content = io.BytesIO()
    with pq.ParquetWriter(
        content,
        table.schema,
        compression="zstd",
        use_dictionary=WORDS,
        dictionary_pagesize_limit=64 << 20,  # a row group holds the configurations of hundreds of trials
        store_schema=False,
    ) as writer:
        for start in range(0, table.num_rows, ROW_GROUP):
            writer.write_table(_own_words(table.slice(start, ROW_GROUP)))
    return content.getvalue()


def read_file(
    storage: Storage,
    name: str,
    columns: Sequence[str] | None = None,
    trials: Collection[str] | None = None,
    rows: np.ndarray | None = None,
) -> pa.Table:
    """Columns, or all, of a file's records; of some trials, or of some rows, given in rising order.

    Raises:
        FileNotFoundError: it has gone.
        UserError: it is damaged, or of another schema version.
    """
    _check_version(storage, name)
    try:
        with storage.filesystem.open_input_file(storage.path(name)) as source:
            far = storage.local is None
            if far and source.size() <= SMALL:
                file = pq.ParquetFile(pa.BufferReader(source.read_buffer()), read_dictionary=WORDS)
            else:
                file = pq.ParquetFile(source, read_dictionary=WORDS, pre_buffer=far)
            names = file.schema_arrow.names
            present = names if columns is None else [column for column in columns if column in names]
            if rows is not None:
                table = _rows_of(file, present, rows)
            elif trials is not None:
                table = _trials_of(file, present, trials)
            else:
                table = file.read(columns=present, use_threads=False)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{storage.uri}/{name}: cannot be read: {' '.join(str(error).split())}") from error
    return _with_all_metrics(table, SCHEMA.names if columns is None else columns)


def join(parts: Sequence[pa.Table], columns: Sequence[str] | None = None) -> pa.Table:
    """Tables one after the other; metrics that one lacks are null there."""
    if columns is None:
        found = {name: None for part in parts for name in part.column_names}  # a set that keeps its order
        columns = [*SCHEMA.names, *(name for name in found if name not in SCHEMA.names)]
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


def _own_words(table: pa.Table) -> pa.Table:
    """A table whose dictionaries hold only words that occur in it; Parquet would write the others, too."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = pa.table({field.name: table[field.name]}).unify_dictionaries()[field.name].combine_chunks()
            used, places = np.unique(column.indices.to_numpy(), return_inverse=True)
            own = pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), column.dictionary.take(used))
            table = table.set_column(index, field, own)
    return table


def _field(name: str) -> pa.Field:
    return pa.field(name, pa.float64()) if name.startswith(METRIC) else SCHEMA.field(name)


def _rows_of(file: pq.ParquetFile, columns: list[str], rows: np.ndarray) -> pa.Table:
    """Some rows; only the row groups that hold any are read."""
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    parts = []
    for index in np.unique(np.searchsorted(ends, rows, side="right")):
        first = ends[index] - sizes[index]
        inside = rows[(rows >= first) & (rows < ends[index])] - first
        parts.append(file.read_row_group(int(index), columns=columns, use_threads=False).take(inside))
    return pa.concat_tables(parts)


def _trials_of(file: pq.ParquetFile, columns: list[str], trials: Collection[str]) -> pa.Table:
    """The rows of some trials; only the row groups that may hold any are read."""
    groups = [index for index in range(file.num_row_groups) if _may_hold(file.metadata.row_group(index), trials)]
    table = file.read_row_groups(groups, columns=list({*columns, "trial"}), use_threads=False)
    wanted = pc.is_in(table["trial"].cast(pa.string()), pa.array(sorted(trials), pa.string()))
    return table.filter(wanted).select(columns)


def _may_hold(group: pq.RowGroupMetaData, trials: Collection[str]) -> bool:
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "trial":
            found = column.statistics
            return found is None or not found.has_min_max or any(found.min <= t <= found.max for t in trials)
    return True
