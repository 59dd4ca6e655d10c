"""JSON -> values of an expected type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn, TypeVar

from semprior.errors import UserError
from semprior.reading.files import LARGEST_TEXT, as_text, read_bytes
from semprior.reading.schema import checked

T = TypeVar("T")


def parse_json(content: bytes | str, hint: type[T], place: str) -> T:
    """Parse JSON and check its type.

    Args:
        content: of a file, or a line of one.
        hint: the type, as in `checked`.
        place: where the content was read, for error messages.

    Raises:
        UserError: the content is not JSON, is nested too deeply, has numbers that are not finite, or has another type.
    """
    if isinstance(content, bytes):
        content = as_text(content, place)
    try:
        value = json.loads(content, parse_constant=_refuse)
    except RecursionError as error:
        raise UserError(f"{place}: is nested too deeply") from error
    except ValueError as error:  # also numbers of thousands of digits
        reason = f"{error.msg}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{place}: is damaged: not valid JSON ({reason.partition(';')[0]})") from error
    return checked(value, hint, place)


def read_json(path: Path, hint: type[T], limit: int = LARGEST_TEXT) -> T:
    """Read a JSON file and check its type.

    Raises:
        UserError: the file cannot be read, or as `parse_json`.
    """
    return parse_json(read_bytes(path, limit), hint, str(path))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")
