"""Parquet files, whose columns are checked against a schema before any of them is read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from semprior.errors import UserError


def open_parquet(
    source: Any,  # noqa: ANN401  # whatever pyarrow reads
    schema: pa.Schema,
    place: str,
    *,
    extra: str = "\0",
    pre_buffer: bool = False,
) -> pq.ParquetFile:
    """Open a Parquet file that has the columns of a schema.

    Args:
        source: the open file, or its content in a buffer.
        schema: the columns that the file must have; dictionaries are read as such. It may have others.
        place: name of the file in error messages.
        extra: prefix of the names of further columns, which must be float64.
        pre_buffer: whether to read ahead, as suits a bucket.

    Raises:
        UserError: the file is not Parquet, lacks a column, or has one of another type.
    """
    with explained(place):
        file = pq.ParquetFile(source)
        plain = file.schema_arrow
    for wanted in schema:
        if plain.get_field_index(wanted.name) < 0:  # also if there are two of the name
            raise UserError(f"{place}: is damaged: there must be one column {wanted.name}")
        given, expected = plain.field(wanted.name).type, wanted.type
        if pa.types.is_dictionary(expected):
            expected = expected.value_type
        same = given.value_type == expected.value_type if _both_lists(given, expected) else given == expected
        if not same:
            raise UserError(f"{place}: is damaged: the column {wanted.name} has the type {given}, not {expected}")
    for column in plain:
        if column.name.startswith(extra) and column.type != pa.float64():
            raise UserError(f"{place}: is damaged: the column {column.name!r} has the type {column.type}, not double")
    dictionaries = [column.name for column in schema if pa.types.is_dictionary(column.type)]
    with explained(place):
        return pq.ParquetFile(source, metadata=file.metadata, read_dictionary=dictionaries, pre_buffer=pre_buffer)


def require_values(table: pa.Table, optional: Collection[str], choices: dict[str, tuple[str, ...]], place: str) -> None:
    """Refuse rows that lack a value.

    Args:
        table: with dictionaries for the columns in `choices`.
        optional: names of columns whose values may be null.
        choices: by column, the texts that its rows may have.
        place: name of the file in error messages.

    Raises:
        UserError: a value is null, or is none of the choices.
    """
    for name in table.column_names:
        column = table[name]
        if name not in optional and column.null_count:
            raise UserError(f"{place}: is damaged: {column.null_count} rows have no {name}")
        if name in choices:
            words = {word for part in column.chunks for word in part.dictionary.to_pylist()}
            unknown = sorted(map(str, words.difference(choices[name])))
            if unknown:
                raise UserError(f"{place}: is damaged: {name} is {unknown[0][:40]!r}")


@contextmanager
def explained(place: str) -> Iterator[None]:
    """A fault of the block is the file's. Of a file that is missing, the exception remains what it is.

    Raises:
        UserError: pyarrow cannot read the file.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{place}: cannot be read: {' '.join(str(error).split())[:300]}") from error


def _both_lists(given: pa.DataType, expected: pa.DataType) -> bool:
    return bool(pa.types.is_list(given) and pa.types.is_list(expected))
