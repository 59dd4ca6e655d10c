"""CSV tables with a header, and the whole numbers in them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from semprior.errors import UserError

_WHOLE = re.compile(r"([+-]?[0-9]{1,18})(?:\.0{0,18})?")


def rows(
    text: str,
    columns: Sequence[str],
    place: str,
    on_fault: Callable[[str], None],
    optional: Sequence[str] = (),
    meaning: str = "",
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a table that are not blank: the number of their last line, and their cells by column.

    Args:
        text: the table; its first line names the columns, in any order and case.
        columns: that the table must have; it may have others.
        place: name of the file in messages.
        on_fault: receives each fault with its line; the rows after it are still read, where that is possible.
        optional: columns that the table may have, but not twice.
        meaning: of the columns, to follow their names in a message.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        lacking = [name for name in columns if name not in header]
        twice = next((name for name in header if name in (*columns, *optional) and header.count(name) > 1), None)
        if lacking:
            on_fault(f"{place}: line 1: the header must be {','.join(columns)}{meaning}")
            return
        if twice:
            on_fault(f"{place}: line 1: the column {twice} is given twice")
            return
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                on_fault(f"{place}: line {reader.line_num}: {len(cells)} values instead of {len(header)}")
                continue
            yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))
    except csv.Error as error:  # a field above 131,072 characters
        on_fault(f"{place}: line {reader.line_num}: cannot be read as CSV ({error})")


def foreign_rows(text: str, place: str) -> list[tuple[int, list[str]]]:
    """The rows of a table of another tool, separated by commas, semicolons, tabs or bars, and their line numbers.

    Blank rows are left out, and blanks around cells.

    Raises:
        UserError: a cell is too long.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise UserError(f"{place}: line {reader.line_num}: cannot be read as CSV ({error})") from error
    return [(number, cells) for number, cells in rows if any(cells)]


def whole_number(text: str) -> int | None:
    """A whole number of at most 18 digits, such as ``21`` or ``21.0``; None for any other text."""
    found = _WHOLE.fullmatch(text)
    return int(found[1]) if found else None
