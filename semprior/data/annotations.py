"""Point labels on disk: one PNG per image in ``masks_centroid/``, or one table ``points.csv`` of name, x, y.

A row of the table may give the box that the target was marked with: its first and last column and row, inclusive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from semprior.data.images import FaultHandler, image_files, raise_fault, read_marks, stem
from semprior.errors import UserError
from semprior.reading.csv_text import rows as csv_rows
from semprior.reading.csv_text import whole_number
from semprior.reading.files import read_utf8
from semprior.reading.schema import shown, shown_key

POINT_FOLDER = "masks_centroid"
POINT_TABLE = "points.csv"
BOX_COLUMNS = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Targets:
    """The labels of an image.

    Attributes:
        points: (P,2) int64, rows of (row, column) in row-major order.
        boxes: (P,4) int64, rows of (top, left, bottom, right), the last row and column exclusive; a target without a
            box has that of the image. None if no target has a box.
    """

    points: np.ndarray
    boxes: np.ndarray | None = None


class PointSource(Protocol):
    """A source of the points of images."""

    def read(self, name: str, shape: tuple[int, int], on_fault: FaultHandler) -> Targets | None:
        """The points of an image of shape (H,W); None after a fault, such as points that touch."""
        ...

    def file_of(self, name: str) -> Path:
        """The file to name in a message about this image's points."""
        ...


@dataclass(frozen=True)
class PointImages:
    """One image file per image, in which every non-zero pixel is a point."""

    folder: Path
    files: dict[str, list[Path]]

    def file_of(self, name: str) -> Path:
        """The file with the image's points."""
        return self.files[name][0] if name in self.files else self.folder / f"{name}.png"

    def read(self, name: str, shape: tuple[int, int], on_fault: FaultHandler) -> Targets | None:
        """See `PointSource.read`."""
        if name not in self.files:
            on_fault(f"{self.folder}: no points for the image {name} (an all-black {name}.png means no target)")
            return None
        path = self.file_of(name)
        if len(self.files[name]) > 1:
            on_fault(f"{self.files[name][1]}: {path.name} has the same name; keep one")
            return None
        marks = read_marks(path, on_fault, "points lie")
        if marks is None:
            return None
        if not np.all(marks[marks > 0] == marks.max(initial=0)):
            on_fault(
                f"{path}: not two-valued; it holds {len(np.unique(marks))} values instead of 0 and one"
                " other; save it with two"
            )
            return None
        if marks.shape != shape:
            on_fault(
                f"{path}: {size(marks.shape)}, but its image is {size(shape)} (width x height); mark"
                " the points again at the size of the image"
            )
            return None
        points = np.argwhere(marks).astype(np.int64)
        if touching := touching_points(points, shape):
            on_fault(
                f"{path}: {touching} of {len(points)} points touch; a point is one pixel. If these are masks or dots,"
                " `semprior data import` makes points of them"
            )
            return None
        return Targets(points)


@dataclass(frozen=True)
class TableRow:
    """One target of a point table.

    Attributes:
        row: of the point.
        column: of the point.
        box: (top, left, bottom, right), the last row and column exclusive; None if the table gives none.
        line: of the table.
    """

    row: int
    column: int
    box: tuple[int, int, int, int] | None
    line: int


@dataclass(frozen=True)
class PointTable:
    """The rows of a CSV by image. An image without rows has no target.

    Attributes:
        path: of the file.
        rows: None if the table could not be read, which is a fault of its own.
    """

    path: Path
    rows: dict[str, list[TableRow]] | None

    def file_of(self, name: str) -> Path:
        """The table."""
        return self.path

    def read(self, name: str, shape: tuple[int, int], on_fault: FaultHandler) -> Targets | None:
        """See `PointSource.read`."""
        if self.rows is None:
            return None
        rows, sound = sorted(self.rows.get(name, []), key=lambda row: (row.row, row.column)), True
        for row in rows:
            where = f"{self.path}: line {row.line}: x={row.column}, y={row.row}"
            if not (0 <= row.row < shape[0] and 0 <= row.column < shape[1]):
                on_fault(f"{where} is outside the image {name}, {size(shape)}")
                sound = False
            elif row.box is not None and not (
                row.box[0] <= row.row < row.box[2] and row.box[1] <= row.column < row.box[3]
            ):
                on_fault(f"{where} is outside its box {', '.join(BOX_COLUMNS)}")
                sound = False
        if not sound:
            return None
        points = np.array([(row.row, row.column) for row in rows], np.int64).reshape(-1, 2)
        if touching := touching_points(points, shape):
            on_fault(f"{self.path}: {touching} of the {len(points)} points of {name} touch; one target has one point")
            return None
        if all(row.box is None for row in rows):
            return Targets(points)
        return Targets(points, boxes_within((row.box for row in rows), shape))


def boxes_within(boxes: Iterable[tuple[int, int, int, int] | None], shape: tuple[int, int]) -> np.ndarray:
    """Boxes (P,4) int64 cut to an image of shape (H,W); None stands for the whole image."""
    whole = (0, 0, *shape)
    found = np.array([whole if box is None else box for box in boxes], np.int64).reshape(-1, 4)
    return np.clip(found, 0, (shape[0], shape[1], shape[0], shape[1]))


def touching_points(points: np.ndarray, shape: tuple[int, int]) -> int:
    """How many of the points (P,2) have another one among their eight neighbours."""
    marks = np.zeros((shape[0] + 2, shape[1] + 2), np.uint8)
    marks[points[:, 0] + 1, points[:, 1] + 1] = 1
    around = sum(
        marks[points[:, 0] + 1 + down, points[:, 1] + 1 + right] for down in (-1, 0, 1) for right in (-1, 0, 1)
    )
    return int(np.count_nonzero(np.asarray(around) > 1))


def find_points(root: Path, images: Collection[str], on_fault: FaultHandler = raise_fault) -> PointSource | None:
    """The points of a data set, or None if it has none.

    Args:
        root: folder of the data set.
        images: names of its images; a table may name no others.
        on_fault: receives each fault of the table, with its line.
    """
    folder, table = root / POINT_FOLDER, root / POINT_TABLE
    if folder.is_dir() and table.exists():
        on_fault(f"{root}: both {POINT_FOLDER}/ and {POINT_TABLE} hold points; keep one")
    if folder.is_dir():
        return PointImages(folder, image_files(folder))
    return PointTable(table, _read_table(table, images, on_fault)) if table.exists() else None


def _read_table(path: Path, images: Collection[str], on_fault: FaultHandler) -> dict[str, list[TableRow]] | None:
    rows: dict[str, list[TableRow]] = {}
    try:
        text = read_utf8(path)
    except UserError as error:
        on_fault(str(error))
        return None
    unread: list[str] = []

    def on_unread(fault: str) -> None:
        unread.append(fault)
        on_fault(fault)

    seen: dict[tuple[str, int, int], int] = {}
    for number, values in csv_rows(
        text, ("name", "x", "y"), str(path), on_unread, BOX_COLUMNS, " (x = column, y = row)"
    ):
        where = f"{path}: line {number}"
        name = stem(values["name"])
        column, row = whole_number(values["x"]), whole_number(values["y"])
        if column is None or row is None:
            given = f"x={shown_key(values['x'])}, y={shown_key(values['y'])}"
            on_fault(f"{where}: {given} are not whole numbers of pixels")
            continue
        try:
            box = _box([values.get(key, "") for key in BOX_COLUMNS])
        except UserError as error:
            on_fault(f"{where}: {error}")
            continue
        if name not in images:
            on_fault(f"{where}: no image is named {shown(name)}; correct the name, or delete the line")
        elif (name, row, column) in seen:
            on_fault(f"{where}: the same point as on line {seen[name, row, column]}; delete one")
        else:
            seen[name, row, column] = number
            rows.setdefault(name, []).append(TableRow(row, column, box, number))
    return None if unread and not rows else rows


def _box(given: list[str]) -> tuple[int, int, int, int] | None:
    """The box (top, left, bottom, right) of cells left, top, right, bottom; None if all are empty.

    Raises:
        UserError: some are no whole numbers.
    """
    if not any(given):
        return None
    left, top, right, bottom = map(whole_number, given)
    if left is None or top is None or right is None or bottom is None:
        raise UserError(f"the box {', '.join(map(shown_key, given))} is not four whole numbers of pixels")
    return top, left, bottom + 1, right + 1


def size(shape: tuple[int, ...]) -> str:
    """Width x height of an array (H,W), for messages."""
    return f"{shape[1]}x{shape[0]}"
