"""Text, JSON, XML and CSV of unknown origin: bounded in size and depth, without entities.

Each function raises a `UserError` that names the file where its content cannot be used.
"""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from semprior.errors import UserError

LARGEST = 512 << 20  # bytes of a file
DEEPEST = 100  # elements of XML within one another


def text_of(path: Path) -> str:
    """The text of a file: UTF-8, with or without a byte order mark, or UTF-16 with one."""
    content = _read_bytes(path)
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UserError(f"{path}: not a file")
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> object:
    """The value of a JSON file; not-a-number and infinity are refused."""
    try:
        value: object = json.loads(text_of(path), parse_constant=_no_constant)
        return value
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({' '.join(str(error).split())[:120]})") from error


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file; one that declares a document type or entities is refused."""
    content = _read_bytes(path)
    depth = 0

    def refuse(*_: object) -> None:
        raise UserError(f"{path}: declares a document type or entities, which are not read")

    def enter(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise UserError(f"{path}: elements lie deeper than {DEEPEST} within one another")

    def leave(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    try:
        parser.Parse(content, True)
        return ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not XML ({error})") from error


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a table separated by commas, semicolons or tabs, with their line numbers; empty ones are left out."""
    lines = text_of(path).splitlines()
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        return [
            (reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}") from error


def number(value: object, where: str) -> float:
    """A finite number, given as a number or as text.

    Raises:
        UserError: it is none; the message begins with `where`.
    """
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{where}: {str(value)[:40]!r} is no number")
    return found
