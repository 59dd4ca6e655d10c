"""Text files per image: YOLO's (class and box as shares of the image), and lists of points."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from semprior.data.formats.marks import Annotations, FindImage, Mark, extent
from semprior.data.formats.parsing import LARGEST, number
from semprior.errors import UserError
from semprior.reading.files import read_foreign_text
from semprior.reading.schema import shown

Lines = list[tuple[int, list[str]]]
"""The numbers of a text file's lines that are not empty, and their words."""
_BEYOND = 0.01  # how far shares of an image may lie beyond 0..1, where boxes at its border were rounded


def words(path: Path) -> Lines:
    """The words of each line, separated by blanks, commas or semicolons."""
    lines = enumerate(read_foreign_text(path, LARGEST).splitlines(), 1)
    return [(line, [word for word in re.split(r"[\s,;]+", text) if word]) for line, text in lines if text.strip()]


def kind_of(lines: Lines) -> str | None:
    """``yolo``, ``points``, ``empty``, or None for other text."""
    if not lines:
        return "empty"
    try:
        values = [[number(word, "") for word in line] for _, line in lines]
    except UserError:
        return None
    if all(len(row) == 2 for row in values):
        return "points"
    boxes = all(
        len(row) >= 5 and row[0] == int(row[0]) >= 0 and all(-_BEYOND <= value <= 1 + _BEYOND for value in row[1:5])
        for row in values
    )
    return "yolo" if boxes else None


def refuse(path: Path, lines: Lines, kind: str) -> NoReturn:
    """Refuse a file that is not of the kind of the files beside it, or of its folder.

    Raises:
        UserError: in any case; the message names the first line of another kind.
    """
    line, row = next((one for one in lines if kind_of([one]) != kind), lines[0])
    meant = {"yolo": "of YOLO: a class, then shares of the image within 0..1", "points": "of two numbers"}[kind]
    raise UserError(f"{path}: line {line}: {shown(' '.join(row))} is no line {meant}")


def read_yolo(files: Sequence[tuple[Path, Lines]], find_image: FindImage) -> Annotations:
    """Lines ``class x y width height`` of boxes with their centres, or ``class x y x y ...`` of polygons."""
    found = Annotations()
    for path, lines in files:
        name = find_image(str(path))
        if name is None:
            found.strangers.append(path.name)
            continue
        found.claim(name, str(path), str(path))
        found.add(name, [])
        for line, row in lines:
            where = f"{path}: line {line}"
            values = [number(word, where) for word in row[1:]]
            if len(values) > 5 and len(values) % 2 == 0:
                box = extent(list(zip(values[::2], values[1::2], strict=True)))
            elif len(values) in (4, 5):  # a fifth number is the confidence of a prediction
                x, y, width, height = values[:4]
                box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            else:
                raise UserError(f"{where}: {len(row)} numbers are neither a box nor a polygon")
            found.add(name, [Mark(where, box=box, shares=True)])
            found.labels[f"class {row[0]}"] += 1
    return found


def read_points(files: Sequence[tuple[Path, Lines]], find_image: FindImage) -> Annotations:
    """Lines of two numbers, read as x and y; which of them is the row is decided where images are at hand."""
    found = Annotations()
    for path, lines in files:
        name = find_image(str(path))
        if name is None:
            found.strangers.append(path.name)
            continue
        found.claim(name, str(path), str(path))
        marks = []
        for line, row in lines:
            where = f"{path}: line {line}"
            marks.append(Mark(where, point=(number(row[0], where), number(row[1], where))))
        found.add(name, marks)
    return found
