"""Point labels on disk: one PNG per image in ``masks_centroid/``, or one table ``points.csv`` of name, x, y."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from semprior.data.images import FaultHandler, image_files, raise_fault, read_mask, stem
from semprior.errors import UserError
from semprior.reading.csv_text import rows as csv_rows
from semprior.reading.csv_text import whole_number
from semprior.reading.files import read_utf8
from semprior.reading.schema import shown, shown_key

POINT_FOLDER = "masks_centroid"
POINT_TABLE = "points.csv"


class PointSource(Protocol):
    """A source of the points of images."""

    def read(self, name: str, shape: tuple[int, int], on_fault: FaultHandler) -> np.ndarray | None:
        """The points of an image of shape (H,W): (P,2) int64, rows of (row, column) in row-major order."""
        ...

    def file_of(self, name: str) -> Path:
        """The file to name in a message about this image's points."""
        ...


@dataclass(frozen=True)
class PointImages:
    """One PNG or BMP per image, in which every non-zero pixel is a point."""

    folder: Path
    files: dict[str, list[Path]]

    def file_of(self, name: str) -> Path:
        """The file with the image's points."""
        return self.files[name][0] if name in self.files else self.folder / f"{name}.png"

    def read(self, name: str, shape: tuple[int, int], on_fault: FaultHandler) -> np.ndarray | None:
        """See `PointSource.read`."""
        if name not in self.files:
            on_fault(f"{self.folder}: no points for the image {name} (an all-black {name}.png means no target)")
            return None
        path = self.file_of(name)
        marks = read_mask(path, on_fault)
        if marks is None:
            return None
        if marks.shape != shape:
            on_fault(f"{path}: {size(marks.shape)}, but its image is {size(shape)} (width x height)")
            return None
        return np.argwhere(marks).astype(np.int64)


@dataclass(frozen=True)
class PointTable:
    """The rows of a CSV by image: (row, column, line number). An image without rows has no target."""

    path: Path
    rows: dict[str, list[tuple[int, int, int]]]

    def file_of(self, name: str) -> Path:
        """The table."""
        return self.path

    def read(self, name: str, shape: tuple[int, int], on_fault: FaultHandler) -> np.ndarray | None:
        """See `PointSource.read`."""
        points, sound = set(), True
        for row, column, line in self.rows.get(name, []):
            if not (0 <= row < shape[0] and 0 <= column < shape[1]):
                on_fault(f"{self.path}: line {line}: x={column}, y={row} is outside the image {name}, {size(shape)}")
                sound = False
            points.add((row, column))
        return np.array(sorted(points), np.int64).reshape(-1, 2) if sound else None


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


def _read_table(path: Path, images: Collection[str], on_fault: FaultHandler) -> dict[str, list[tuple[int, int, int]]]:
    rows: dict[str, list[tuple[int, int, int]]] = {}
    try:
        text = read_utf8(path)
    except UserError as error:
        on_fault(str(error))
        return rows
    seen: dict[tuple[str, int, int], int] = {}
    for number, values in csv_rows(text, ("name", "x", "y"), str(path), on_fault):
        where = f"{path}: line {number}"
        name = stem(values["name"])
        column, row = whole_number(values["x"]), whole_number(values["y"])
        if column is None or row is None:
            given = f"x={shown_key(values['x'])}, y={shown_key(values['y'])}"
            on_fault(f"{where}: {given} are not whole numbers of pixels")
        elif name not in images:
            on_fault(f"{where}: no image is named {shown(name)}")
        elif (name, row, column) in seen:
            on_fault(f"{where}: the same point as on line {seen[name, row, column]}")
        else:
            seen[name, row, column] = number
            rows.setdefault(name, []).append((row, column, number))
    return rows


def size(shape: tuple[int, ...]) -> str:
    """Width x height of an array (H,W), for messages."""
    return f"{shape[1]}x{shape[0]}"
