"""The files of a new data set in our layout."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from semprior.data.annotations import BOX_COLUMNS, POINT_TABLE
from semprior.data.finding.split_lists import SPLITS
from semprior.data.image_tables import GROUP_TABLE, SUBSET_TABLE, write_table
from semprior.data.layout import find_layout
from semprior.errors import StorageError, UserError
from semprior.io.atomic_files import atomic_folder

SKIPPED_TABLE = "skipped.csv"
PixelBox = tuple[int, int, int, int]


@dataclass
class NewImage:
    """An image of a new data set.

    Attributes:
        path: of its file.
        mask: its mask's file, or None.
        points: (P,2) int64; None if the data set has no points.
        boxes: one for each point, (top, left, bottom, right), the last row and column exclusive, or None.
    """

    path: Path
    mask: Path | None = None
    points: np.ndarray | None = None
    boxes: Sequence[PixelBox | None] = ()


@dataclass
class NewDataset:
    """A data set to be written.

    Attributes:
        images: by name.
        splits: names by split; empty for a seeded split.
        groups: by name.
        subsets: by name.
        skipped: the reason why an image was left out, by name.
    """

    images: dict[str, NewImage]
    splits: Mapping[str, Collection[str]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    subsets: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def write_dataset(folder: Path, dataset: NewDataset, *, link: bool) -> None:
    """Write a data set; its folder appears whole or not at all.

    Args:
        folder: to create.
        dataset: what to write.
        link: whether images and masks become symbolic links to the original files instead of copies.

    Raises:
        UserError: the folder exists, or what was written is no data set.
        StorageError: the folder cannot be written.
    """
    with atomic_folder(folder) as root:
        (root / "images").mkdir()
        masked = any(image.mask is not None for image in dataset.images.values())
        if masked:
            (root / "labels").mkdir()
        for name, image in dataset.images.items():
            _place(image.path, root / "images" / f"{name}{image.path.suffix}", link)
            if image.mask is not None:
                _place(image.mask, root / "labels" / f"{name}{image.mask.suffix}", link)
        if any(image.points is not None for image in dataset.images.values()):
            _write_points(root / POINT_TABLE, dataset.images)
        if dataset.splits:
            (root / "mode").mkdir()
        for split in (split for split in SPLITS if dataset.splits.get(split)):
            content = "".join(f"{name}\n" for name in dataset.splits[split])
            (root / "mode" / f"{split}.txt").write_text(content, encoding="utf-8")
        if dataset.groups:
            write_table(root / GROUP_TABLE, "group", dict(dataset.groups))
        if dataset.subsets:
            write_table(root / SUBSET_TABLE, "subset", dict(dataset.subsets))
        if dataset.skipped:
            _write_rows(root / SKIPPED_TABLE, [("name", "reason"), *dataset.skipped.items()])
        if not dataset.splits:
            return  # what a seeded split would lack can still be mended in the folder
        try:
            find_layout(root)
        except UserError as error:
            raise UserError(str(error).replace(str(root), str(folder))) from error


def _place(source: Path, target: Path, link: bool) -> None:
    try:
        if link:
            os.symlink(source.resolve(), target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        raise StorageError(f"{error.filename or target}: {error.strerror or error}") from error


def _write_points(path: Path, images: Mapping[str, NewImage]) -> None:
    boxed = any(box is not None for image in images.values() for box in image.boxes)
    rows: list[tuple[object, ...]] = [("name", "x", "y", *(BOX_COLUMNS if boxed else ()))]
    for name, image in images.items():
        points = np.zeros((0, 2), np.int64) if image.points is None else image.points
        boxes = image.boxes or [None] * len(points)
        for (row, column), box in zip(points.tolist(), boxes, strict=True):
            limits: tuple[object, ...] = ("",) * 4 if box is None else (box[1], box[0], box[3] - 1, box[2] - 1)
            rows.append((name, column, row, *(limits if boxed else ())))
    _write_rows(path, rows)


def _write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
