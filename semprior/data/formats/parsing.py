"""Values in annotations, which may be of any type: checked where they are used."""

from __future__ import annotations

import math

from semprior.errors import UserError
from semprior.reading.schema import shown

LARGEST = 512 << 20  # bytes of an annotation file


def number(value: object, where: str) -> float:
    """A finite number, given as a number or as text.

    Raises:
        UserError: it is none; the message begins with `where`.
    """
    if value is None:
        raise UserError(f"{where}: a number is missing")
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{where}: {shown(value)} is no number")
    return found


def text(value: object, where: str) -> str:
    """A text, or a whole number as text.

    Raises:
        UserError: it is neither; the message begins with `where`.
    """
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise UserError(f"{where}: {shown(value)} is no text")


def size(width: object, height: object) -> tuple[float, float] | None:
    """Width and height of an image as an annotation gives them; None if it gives none, as many tools do with zeros."""
    try:
        found = number(width, ""), number(height, "")
    except UserError:
        return None
    return found if min(found) > 0 else None
