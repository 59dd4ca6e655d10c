"""A data set on disk -> checked scenes.

::

    ROOT/images/NAME.png|bmp          grey or colour, 8 or 16 bit
    ROOT/masks_centroid/NAME.png      one pixel per target; or ROOT/points.csv with name,x,y (x = column, y = row)
    ROOT/mode/train|val|test*.txt     or img_idx/: names with or without extension; else the splits are seeded
    ROOT/labels/NAME.png              or masks/: full masks, for evaluation only

`find_layout` reads names only. `read_scenes` opens the images of one split, their points and, on request only, their
masks; it raises the first fault that it meets. `iter_scenes` yields one scene at a time. `check_dataset` runs the same
code and lists every fault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from semprior.data.annotations import POINT_FOLDER, POINT_TABLE, PointSource, find_points, size
from semprior.data.images import (
    FaultHandler,
    IntensityRange,
    image_files,
    intensity_range_of,
    raise_fault,
    read_image,
    read_mask,
)
from semprior.data.splits import SPLITS, find_splits
from semprior.errors import UserError

SCENES_VERSION = 1  # increase it when files are read to other grey values, points or masks: it keys cached scenes
Masks = Literal["never", "optional", "required"]
MASK_FOLDERS = ("labels", "masks")


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with its annotations.

    Attributes:
        name: of the image, without extension.
        image: (H,W) uint8, grey.
        points: (P,2) int64, a row and a column for each target.
        mask: (H,W) bool, the true targets; None if it was not requested or does not exist.
    """

    name: str
    image: np.ndarray
    points: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Layout:
    """The files of a data set.

    Attributes:
        root: its folder.
        splits: names without extension, by ``train``, ``val``, ``test``.
        listed_in: the file that lists each split.
        images: files by name; a valid data set has one of each name.
        masks: folder of full masks, or None.
    """

    root: Path
    splits: dict[str, tuple[str, ...]]
    listed_in: dict[str, str] = field(repr=False)
    images: dict[str, list[Path]] = field(repr=False)
    masks: Path | None

    @property
    def has_masks(self) -> bool:
        """Whether there are full masks."""
        return self.masks is not None


def find_layout(root: Path | str) -> Layout:
    """Find the parts of a data set by name; no image, point or mask is opened.

    Raises:
        UserError: a folder or every split is missing, a split is empty, lists a name twice or shares one with another.
    """
    layout = _find_layout(Path(root), raise_fault)
    assert layout is not None  # a fault would have been raised
    return layout


def _find_layout(root: Path, on_fault: FaultHandler) -> Layout | None:
    folder = root / "images"
    for needed in (root, folder):
        if not needed.is_dir():
            on_fault(f"{needed}: {'not a folder' if needed.exists() else 'no such folder'}")
            return None
    images = image_files(folder)
    if not images:
        on_fault(f"{folder}: holds no PNG or BMP image")
        return None
    splits, listed_in = find_splits(root, images, on_fault)
    folders = [root / name for name in MASK_FOLDERS if (root / name).is_dir()]
    if len(folders) > 1:
        on_fault(f"{root}: both {folders[0].name}/ and {folders[1].name}/ hold masks; keep one")
    masks = next((folder for folder in folders if image_files(folder)), None)
    return Layout(root, splits, listed_in, images, masks)


def all_masked(layout: Layout, split: str) -> bool:
    """Whether every image of a split has a full mask, by name; no mask is opened.

    Raises:
        UserError: there is no such split.
    """
    return _mask_files(layout, None).keys() >= set(_names(layout, split))


def intensity_range(layout: Layout) -> IntensityRange:
    """The map of source grey values to 0..255: the identity for 8 bit, the range of the training images for 16 bit.

    Raises:
        UserError: there is no training split, or an image of it cannot be read.
    """
    paths = (_image(layout, "train", name, raise_fault) for name in _names(layout, "train"))
    return intensity_range_of(path for path in paths if path is not None)


def read_scenes(layout: Layout, split: str, intensity: IntensityRange, *, masks: Masks = "never") -> list[Scene]:
    """Read and check the images of a split.

    Args:
        layout: of the data set.
        split: ``train``, ``val`` or ``test``.
        intensity: of `intensity_range`, or of the checkpoint that is evaluated.
        masks: ``never`` opens no mask. ``optional`` reads the masks that exist and checks points against them.
            ``required`` needs all masks and reads no points: those of every scene are (0,2).

    Returns:
        Scenes in the order of the split.

    Raises:
        UserError: the first fault, in one line.
    """
    return list(iter_scenes(layout, split, intensity, masks=masks))


def content_of(layout: Layout) -> list[str]:
    """What a reading of the data set depends on: the splits, and name and SHA-256 of every file.

    Size and time would not do: moving a point by a digit within a second changes neither.

    Raises:
        UserError: a file cannot be read.
    """
    folders = [layout.root / name for name in ("images", *MASK_FOLDERS, POINT_FOLDER) if (layout.root / name).is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
    files += [layout.root / POINT_TABLE] if (layout.root / POINT_TABLE).is_file() else []
    with ThreadPoolExecutor(4) as pool:  # hashing and reading release the GIL
        digests = pool.map(_digest, files)
        named = [f"{path.relative_to(layout.root)} {digest}" for path, digest in zip(files, digests, strict=True)]
    return [str(layout.splits), *named]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def iter_scenes(layout: Layout, split: str, intensity: IntensityRange, *, masks: Masks = "never") -> Iterator[Scene]:
    """Like `read_scenes`, but yields one scene at a time."""
    names = _names(layout, split)
    points = None if masks == "required" else _points(layout, raise_fault)
    files = {} if masks == "never" else _mask_files(layout, raise_fault if masks == "required" else None)
    for name in names:
        if masks == "required" and name not in files:
            raise_fault(f"{layout.masks}: no mask for the image {name}, which {layout.listed_in[split]} lists")
        scene = _scene(layout, split, name, intensity, points, files, raise_fault)
        assert scene is not None  # a fault would have been raised
        yield scene


def check_dataset(root: Path | str) -> list[str]:
    """Every fault of a data set, one line each: of its layout, splits, images, points and masks.

    A split may lack all its masks, as training needs none; the test split may lack them only if the data set has none.
    """
    faults: list[str] = []
    layout = _find_layout(Path(root), faults.append)
    if layout is None:
        return faults
    for split in SPLITS:
        if split not in layout.splits and layout.splits:
            faults.append(_no_split(layout, split))
    points = _points(layout, faults.append)
    files = _mask_files(layout, None)
    train = [layout.images[name][0] for name in layout.splits.get("train", ()) if name in layout.images]
    intensity = intensity_range_of(train, lambda _: None)  # faults of these files are listed below
    for split, names in layout.splits.items():
        partly = any(name in files for name in names) or (split == "test" and layout.has_masks)
        for name in names:
            if partly and name in layout.images and name not in files:
                faults.append(f"{layout.masks}: no mask for the image {name}, which {layout.listed_in[split]} lists")
            _scene(layout, split, name, intensity, points, files, faults.append)
    return list(dict.fromkeys(faults))  # an image in two splits lists its faults once


def normalisation(scenes: Sequence[Scene]) -> tuple[float, float]:
    """The means over images of their mean and of their standard deviation, both / 255 (method, notation)."""
    means = [scene.image.mean() for scene in scenes]
    deviations = [scene.image.std() for scene in scenes]
    return float(np.mean(means) / 255), float(np.mean(deviations) / 255)


def _names(layout: Layout, split: str) -> tuple[str, ...]:
    if split not in layout.splits:
        raise_fault(_no_split(layout, split))
    return layout.splits[split]


def _no_split(layout: Layout, split: str) -> str:
    return f"{layout.root}: no split {split!r}; there is {', '.join(layout.splits)}"


def _points(layout: Layout, on_fault: FaultHandler) -> PointSource | None:
    points = find_points(layout.root, layout.images, on_fault)
    if points is None:
        on_fault(
            f"{layout.root}: no points; give {POINT_FOLDER}/ or {POINT_TABLE}, or make them from masks with "
            f"`semprior data points {layout.root}`"
        )
    return points


def _mask_files(layout: Layout, on_fault: FaultHandler | None) -> dict[str, Path]:
    """Files of masks by the name of their image; SIRST v1 names them NAME_pixels0.png."""
    if layout.masks is None:
        if on_fault is not None:
            on_fault(f"{layout.root}: no masks; neither labels/ nor masks/ holds any")
        return {}
    files = {name: paths[0] for name, paths in image_files(layout.masks).items()}
    return files | {name.removesuffix("_pixels0"): path for name, path in files.items() if name not in layout.images}


def _image(layout: Layout, split: str, name: str, on_fault: FaultHandler) -> Path | None:
    files = layout.images.get(name, [])
    if not files:
        on_fault(f"{layout.root / 'images'}: no image {name}, which {layout.listed_in[split]} lists")
        return None
    if len(files) > 1:
        on_fault(f"{files[1]}: {files[0].name} has the same name; keep one")
        return None
    return files[0]


def _scene(
    layout: Layout,
    split: str,
    name: str,
    intensity: IntensityRange,
    points: PointSource | None,
    masks: dict[str, Path],
    on_fault: FaultHandler,
) -> Scene | None:
    """Read an image with its points and, if `masks` names one, its mask; None after a fault that was not raised."""
    path = _image(layout, split, name, on_fault)
    image = None if path is None else read_image(path, intensity, on_fault)
    mask = None if name not in masks else read_mask(masks[name], on_fault)
    if image is None:
        return None
    if mask is not None and mask.shape != image.shape:
        on_fault(f"{masks[name]}: the mask is {size(mask.shape)}, its image {size(image.shape)} (width x height)")
        mask = None
    if points is None:
        return Scene(name, image, np.zeros((0, 2), np.int64), mask)
    marked = points.read(name, image.shape, on_fault)
    if marked is None:
        return None
    if mask is not None:
        _compare(points.file_of(name), name, marked, mask, on_fault)
    return Scene(name, image, marked, mask)


def _compare(file: Path, name: str, points: np.ndarray, mask: np.ndarray, on_fault: FaultHandler) -> None:
    for row, column in points[~mask[points[:, 0], points[:, 1]]]:
        on_fault(f"{file}: the point x={column}, y={row} of {name} is outside every target of its mask")
    if mask.any() and not len(points):
        on_fault(f"{file}: {name} has targets in its mask and no point")
