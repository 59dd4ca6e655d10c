"""Parquet files of records: their names, writing them, and reading some of their columns and rows.

What is read is verified. The name of a file has the SHA-256 of its footer, and the footer that of each 64 KiB before
it, so that a reader of few columns need not read the others. Whoever reads the files without semprior needs neither.
A file that was changed, that is of somebody else, or whose rows are not records, is an `UnusableFilesError`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semprior.errors import StorageError, UserError
from semprior.io.checked_file import CheckedFile, block_digests
from semprior.io.manifest import DamagedError
from semprior.io.storage import Storage
from tune.store.records import METRIC_PREFIX, RECORD_SCHEMA, SCHEMA_VERSION, row_fault

ROW_GROUP = 1 << 15  # records; the smallest unit that can be read
SMALL = 1 << 20  # bytes up to which a file of a bucket is read in one request rather than in parts
DICTIONARY_COLUMNS = [field.name for field in RECORD_SCHEMA if pa.types.is_dictionary(field.type)]
_NAME = re.compile(r"(?:\.(?P<sha256>[0-9a-f]{64}))?(?:@(?P<trial>[\w.]+))?\.v(?P<version>\d{1,9})\.parquet$", re.ASCII)
_DIGESTS = b"semprior.sha256"  # key of the footer's metadata
_MAGIC = b"PAR1"
_LENGTH = 8  # bytes behind the footer: its length, and `_MAGIC`
_TAIL = 1 << 16  # bytes at the end of a large file that are read for its footer


class UnusableFilesError(UserError):
    """Files of records that cannot be used: damaged, foreign, or of another version.

    Attributes:
        reasons: why, by the name of the file.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        self.reasons = dict(reasons)


def file_name(stem: str, trials: Collection[str], content: bytes) -> str:
    """The name of a file of records.

    Args:
        stem: its beginning, which no other file has.
        trials: the trials of its records; if there is one, the name contains it.
        content: of `write_file`; the name contains the SHA-256 of its footer, which verifies the rest.
    """
    trial = next(iter(trials)) if len(trials) == 1 else ""
    suffix = f"@{trial}" if re.fullmatch(r"[\w.]+", trial, re.ASCII) else ""
    footer = content[_footer_start(content, len(content)) :]
    return f"{stem}.{hashlib.sha256(footer).hexdigest()}{suffix}.v{SCHEMA_VERSION}.parquet"


def name_fault(name: str) -> str:
    """Why a file with this name is none that this version reads; empty if it is one."""
    found = _NAME.search(name)
    if found is None:
        return "is not a file of records"
    version = int(found["version"])
    if version > SCHEMA_VERSION:
        return f"was written by a newer version (schema {version}); upgrade semprior"
    if version < SCHEMA_VERSION:
        return (
            f"was written before the first release (schema {version}) and is no longer read; begin the sweep anew in"
            " another folder"
        )
    return "" if found["sha256"] else "has no SHA-256 in its name"


def trial_in_name(name: str) -> str | None:
    """The trial in the name of a file, if the name contains one."""
    found = _NAME.search(name)
    return found["trial"] if found else None


def write_file(table: pa.Table) -> bytes:
    """Encode records as Parquet: compressed, and with each distinct text once per row group."""
    stream = io.BytesIO()
    with pq.ParquetWriter(
        stream,
        table.schema,
        compression="zstd",
        use_dictionary=DICTIONARY_COLUMNS,
        dictionary_pagesize_limit=64 << 20,  # a row group contains the configurations of hundreds of trials
        store_schema=False,
    ) as writer:
        for start in range(0, table.num_rows, ROW_GROUP):
            writer.write_table(_compact_dictionaries(table.slice(start, ROW_GROUP)))
        size = stream.tell()
        with stream.getbuffer() as written:
            writer.add_key_value_metadata({_DIGESTS: block_digests(written[:size]).hex().encode()})
    content = stream.getvalue()
    if _footer_start(content, len(content)) != size:
        raise AssertionError("pyarrow wrote rows after the last row group, which have no digest")
    return content


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
        UnusableFilesError: the file is damaged, foreign or of another version, or has rows that are no records.
        StorageError: the storage cannot be read.
    """
    if fault := name_fault(name):
        raise UnusableFilesError({name: fault})
    try:
        with _opened(storage, name) as (file, checked):
            names = file.schema_arrow.names
            present = names if columns is None else [column for column in columns if column in names]
            if rows is not None:
                table = _rows_of(file, checked, present, rows)
            elif trials is not None:
                table = _trials_of(file, checked, present, trials)
            else:
                table = _groups_of(file, checked, present, range(file.num_row_groups))
    except (FileNotFoundError, StorageError):
        raise
    except DamagedError as error:
        raise UnusableFilesError({name: str(error)}) from error
    except KeyError as error:
        raise UnusableFilesError({name: f"lacks the column {error}"}) from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UnusableFilesError({name: f"is damaged ({' '.join(str(error).split())})"}) from error
    if fault := row_fault(table):
        raise UnusableFilesError({name: fault})
    return _with_all_metrics(table, RECORD_SCHEMA.names if columns is None else columns)


@contextmanager
def _opened(storage: Storage, name: str) -> Iterator[tuple[pq.ParquetFile, CheckedFile | None]]:
    """A file whose footer is verified, and whose rows are as they are read.

    Yields:
        The file; and what it is read from if that is to be fetched ahead, as of a bucket, whose requests are slow.
    """
    with storage.parts(name) as (size, read_at):
        whole = read_at(size, 0) if size <= SMALL else None
        end = whole if whole is not None else read_at(min(_TAIL, size), max(0, size - _TAIL))
        start = _footer_start(end, size)
        if size - start > len(end):
            end = read_at(size - start, start)
        footer = end[len(end) - (size - start) :]
        named = _NAME.search(name)
        if named is None or hashlib.sha256(footer).hexdigest() != named["sha256"]:
            raise DamagedError("is damaged; its footer does not match the SHA-256 in its name")
        if whole is not None:  # all of it is verified, so that it counts or does not, whatever is read of it
            file = pq.ParquetFile(pa.BufferReader(whole), read_dictionary=DICTIONARY_COLUMNS)
            if _digests(file.metadata) != block_digests(whole[:start]):
                raise DamagedError("is damaged; a part of it does not match its SHA-256")
            checked = None
        else:
            metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
            checked = CheckedFile(read_at, start, _digests(metadata), footer)
            file = pq.ParquetFile(checked, metadata=metadata, read_dictionary=DICTIONARY_COLUMNS)
        if fault := _schema_fault(file.schema_arrow):
            raise DamagedError(fault)
        yield file, checked if storage.local is None else None


def _digests(metadata: pq.FileMetaData) -> bytes:
    """The digests of the blocks of a file, from its footer."""
    return bytes.fromhex((metadata.metadata or {}).get(_DIGESTS, b"").decode("ascii"))


def _footer_start(end: bytes, size: int) -> int:
    """The position of the footer in a file of `size` bytes, of which `end` is the end.

    Raises:
        DamagedError: the file is too short, or does not end like a Parquet file.
    """
    if len(end) < len(_MAGIC) + _LENGTH or end[-4:] != _MAGIC:
        raise DamagedError("is damaged; it is empty, or was cut off" if size else "is empty")
    start = size - _LENGTH - int.from_bytes(end[-8:-4], "little")
    if start < len(_MAGIC):
        raise DamagedError("is damaged; its end says that it was longer")
    return start


@functools.lru_cache(256)
def _schema_fault(schema: pa.Schema) -> str:
    """Why the columns of a file are not those of records; empty if they are."""
    names = set(schema.names)
    for field in schema:
        expected = pa.float64() if field.name.startswith(METRIC_PREFIX) else None
        if field.name in RECORD_SCHEMA.names:
            expected = RECORD_SCHEMA.field(field.name).type
        if expected is None:
            return f"has a column {field.name!r}, which records do not have"
        if not _is_type(field.type, expected):
            return f"has {field.type} in the column {field.name!r}, which is {expected}"
    missing = [name for name in RECORD_SCHEMA.names if name not in names]
    if missing or len(names) < len(schema):
        return f"has no column {missing[0]!r}" if missing else "has two columns of one name"
    return ""


def _is_type(found: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_dictionary(expected):  # whose keys may have any number of bits
        return bool(pa.types.is_dictionary(found) and found.value_type == expected.value_type)
    if pa.types.is_list(expected):  # Parquet has another name for what is in a list
        return bool(pa.types.is_list(found) and found.value_type == expected.value_type)
    return bool(found == expected)


def join(parts: Sequence[pa.Table], columns: Sequence[str] | None = None) -> pa.Table:
    """Concatenate tables. Metrics that a table does not have are null in its rows."""
    if columns is None:
        names = dict.fromkeys(name for part in parts for name in part.column_names)  # distinct, in order
        columns = [*RECORD_SCHEMA.names, *(name for name in names if name not in RECORD_SCHEMA.names)]
    empty = pa.schema([_field(name) for name in columns]).empty_table()
    return pa.concat_tables([empty, *parts], promote_options="default").select(columns)


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


def _rows_of(file: pq.ParquetFile, checked: CheckedFile | None, columns: list[str], rows: np.ndarray) -> pa.Table:
    """Read some rows. Only row groups that contain one of them are read."""
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    ends = np.cumsum(sizes)
    groups = np.unique(np.searchsorted(ends, rows, side="right")).tolist()
    _prefetch(file, checked, columns, groups)
    parts = []
    for index in groups:
        first = ends[index] - sizes[index]
        inside = rows[(rows >= first) & (rows < ends[index])] - first
        parts.append(file.read_row_group(index, columns=columns, use_threads=False).take(inside))
    return pa.concat_tables(parts)


def _trials_of(
    file: pq.ParquetFile, checked: CheckedFile | None, columns: list[str], trials: Collection[str]
) -> pa.Table:
    """Read the rows of some trials. Only row groups that may contain one of them are read."""
    groups = [index for index in range(file.num_row_groups) if _may_contain(file.metadata.row_group(index), trials)]
    table = _groups_of(file, checked, list({*columns, "trial"}), groups)
    wanted = pc.is_in(table["trial"].cast(pa.string()), pa.array(sorted(trials), pa.string()))
    return table.filter(wanted).select(columns)


def _groups_of(
    file: pq.ParquetFile, checked: CheckedFile | None, columns: list[str], groups: Sequence[int]
) -> pa.Table:
    _prefetch(file, checked, columns, groups)
    return file.read_row_groups(list(groups), columns=columns, use_threads=False)


def _prefetch(
    file: pq.ParquetFile, checked: CheckedFile | None, columns: Collection[str], groups: Sequence[int]
) -> None:
    """Fetch the columns of some row groups, several parts at a time."""
    if checked is None:
        return
    ranges = []
    for group in map(file.metadata.row_group, groups):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.partition(".")[0] in columns or column.path_in_schema in columns:
                pages = [column.dictionary_page_offset, column.data_page_offset]
                ranges.append((min(page for page in pages if page), column.total_compressed_size))
    checked.prefetch(ranges)


def _may_contain(group: pq.RowGroupMetaData, trials: Collection[str]) -> bool:
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "trial":
            bounds = column.statistics
            return bounds is None or not bounds.has_min_max or any(bounds.min <= t <= bounds.max for t in trials)
    return True
