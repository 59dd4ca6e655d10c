"""A data set on disk -> checked scenes.

::

    ROOT/images/NAME.png|bmp          grey or colour, 8 or 16 bit
    ROOT/masks_centroid/NAME.png      one pixel a target; or ROOT/points.csv with name,x,y (x = column, y = row)
    ROOT/mode/train|val|test*.txt     or img_idx/: names with or without extension; without them a split by seed
    ROOT/labels/NAME.png              or masks/: full masks, for evaluation alone

`find_layout` looks at names only. `read_scenes` opens the images of one split, their points and, only where asked to,
their masks; it raises the first fault it meets. `each_scene` holds one of them at a time. `check_dataset` runs the same
code and lists every fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from semprior.data.annotations import POINT_FOLDER, POINT_TABLE, PointSource, find_points, size
from semprior.data.images import IntensityRange, Report, fail, image_files, range_of, read_image, read_mask
from semprior.data.splits import SPLITS, find_splits, split_holdout

__all__ = [
    "IntensityRange",
    "Layout",
    "Masks",
    "Scene",
    "all_masked",
    "check_dataset",
    "each_scene",
    "find_layout",
    "intensity_range",
    "normalisation",
    "read_image",
    "read_scenes",
    "split_holdout",
]

SCENES_VERSION = 1  # raise it when a file is read to other grey values, points or masks: cached scenes are keyed by it
Masks = Literal["never", "optional", "required"]
MASK_FOLDERS = ("labels", "masks")


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with what is known of its targets.

    Attributes:
        name: of the image, without extension.
        image: (H,W) uint8, grey.
        points: (P,2) int64, a row and a column for each target.
        mask: (H,W) bool, the true targets; None where it was not asked for or does not exist.
    """

    name: str
    image: np.ndarray
    points: np.ndarray
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class Layout:
    """What lies where in a data set.

    Attributes:
        root: its folder.
        splits: names without extension, by ``train``, ``val``, ``test``.
        origins: by split, where its names come from.
        images: files by name; a sound data set has one for each.
        masks: folder of full masks, if there are any.
    """

    root: Path
    splits: dict[str, tuple[str, ...]]
    origins: dict[str, str] = field(repr=False)
    images: dict[str, list[Path]] = field(repr=False)
    masks: Path | None

    @property
    def has_masks(self) -> bool:
        """Whether full masks lie beside the images."""
        return self.masks is not None


def find_layout(root: Path | str) -> Layout:
    """Find the parts of a data set by their names; no image, point or mask is opened.

    Raises:
        UserError: a folder or every split is missing, a split is empty, lists a name twice or shares one with another.
    """
    layout = _find_layout(Path(root), fail)
    assert layout is not None  # a fault has been raised
    return layout


def _find_layout(root: Path, report: Report) -> Layout | None:
    folder = root / "images"
    for needed in (root, folder):
        if not needed.is_dir():
            return report(f"{needed}: {'not a folder' if needed.exists() else 'no such folder'}")
    images = image_files(folder)
    if not images:
        return report(f"{folder}: holds no PNG or BMP image")
    splits, origins = find_splits(root, images, report)
    folders = [root / name for name in MASK_FOLDERS if (root / name).is_dir()]
    if len(folders) > 1:
        report(f"{root}: both {folders[0].name}/ and {folders[1].name}/ hold masks; keep one")
    masks = next((folder for folder in folders if image_files(folder)), None)
    return Layout(root, splits, origins, images, masks)


def all_masked(layout: Layout, split: str) -> bool:
    """Whether there is a full mask for every image of a split, by their names; no mask is opened.

    Raises:
        UserError: there is no such split.
    """
    return _mask_files(layout, None).keys() >= set(_names(layout, split))


def intensity_range(layout: Layout) -> IntensityRange:
    """How source grey values become 0..255: the identity for 8-bit data, the training images' range for 16 bit.

    Raises:
        UserError: there is no training split, or an image of it cannot be read.
    """
    return range_of(_image(layout, "train", name, fail) for name in _names(layout, "train"))


def read_scenes(layout: Layout, split: str, intensity: IntensityRange, *, masks: Masks = "never") -> list[Scene]:
    """Read and check the images of a split.

    Args:
        layout: of the data set.
        split: ``train``, ``val`` or ``test``.
        intensity: from `intensity_range`, or of the checkpoint that is evaluated.
        masks: ``never`` opens no mask. ``optional`` reads those that exist, and checks points against them.
            ``required`` needs all of them, and reads no points: every scene's are (0,2).

    Returns:
        Scenes in the order of the split.

    Raises:
        UserError: with one line for the first fault.
    """
    return list(each_scene(layout, split, intensity, masks=masks))


def each_scene(layout: Layout, split: str, intensity: IntensityRange, *, masks: Masks = "never") -> Iterator[Scene]:
    """As `read_scenes`, one scene at a time."""
    names = _names(layout, split)
    points = None if masks == "required" else _points(layout, fail)
    files = {} if masks == "never" else _mask_files(layout, fail if masks == "required" else None)
    for name in names:
        if masks == "required" and name not in files:
            fail(f"{layout.masks}: no mask for the image {name}, which {layout.origins[split]} lists")
        scene = _scene(layout, split, name, intensity, points, files, fail)
        assert scene is not None  # a fault has been raised
        yield scene


def check_dataset(root: Path | str) -> list[str]:
    """Every fault of a data set, one line each: layout, splits, images, points, and masks where there are any.

    Masks may be missing from a whole split, as training needs none; from the test split they may be missing only
    where the data set has none at all.
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
    intensity = range_of(train, lambda _: None)  # the faults of these files are listed below
    for split, names in layout.splits.items():
        partly = any(name in files for name in names) or (split == "test" and layout.has_masks)
        for name in names:
            if partly and name in layout.images and name not in files:
                faults.append(f"{layout.masks}: no mask for the image {name}, which {layout.origins[split]} lists")
            _scene(layout, split, name, intensity, points, files, faults.append)
    return list(dict.fromkeys(faults))  # an image in two splits has its faults once


def normalisation(scenes: Sequence[Scene]) -> tuple[float, float]:
    """Mean of the images' means and mean of their standard deviations, both / 255 (method, notation)."""
    means = [scene.image.mean() for scene in scenes]
    deviations = [scene.image.std() for scene in scenes]
    return float(np.mean(means) / 255), float(np.mean(deviations) / 255)


def _names(layout: Layout, split: str) -> tuple[str, ...]:
    if split not in layout.splits:
        fail(_no_split(layout, split))
    return layout.splits[split]


def _no_split(layout: Layout, split: str) -> str:
    return f"{layout.root}: no split {split!r}; there is {', '.join(layout.splits)}"


def _points(layout: Layout, report: Report) -> PointSource | None:
    points = find_points(layout.root, layout.images, report)
    if points is None:
        report(
            f"{layout.root}: no points; give {POINT_FOLDER}/ or {POINT_TABLE}, or make them from masks with "
            f"`semprior data points {layout.root}`"
        )
    return points


def _mask_files(layout: Layout, report: Report | None) -> dict[str, Path]:
    """Files of masks by name of their image; the original of SIRST v1 writes NAME_pixels0.png."""
    if layout.masks is None:
        if report is not None:
            report(f"{layout.root}: no masks; neither labels/ nor masks/ holds any")
        return {}
    files = {name: paths[0] for name, paths in image_files(layout.masks).items()}
    return files | {name.removesuffix("_pixels0"): path for name, path in files.items() if name not in layout.images}


def _image(layout: Layout, split: str, name: str, report: Report) -> Path | None:
    files = layout.images.get(name, [])
    if not files:
        return report(f"{layout.root / 'images'}: no image {name}, which {layout.origins[split]} lists")
    if len(files) > 1:
        return report(f"{files[1]}: {files[0].name} has the same name; keep one")
    return files[0]


def _scene(
    layout: Layout,
    split: str,
    name: str,
    intensity: IntensityRange,
    points: PointSource | None,
    masks: dict[str, Path],
    report: Report,
) -> Scene | None:
    """Read one image with its points, and its mask where `masks` has one; None if a report did not raise."""
    path = _image(layout, split, name, report)
    image = None if path is None else read_image(path, intensity, report)
    mask = None if name not in masks else read_mask(masks[name], report)
    if image is None:
        return None
    if mask is not None and mask.shape != image.shape:
        report(f"{masks[name]}: the mask is {size(mask.shape)}, its image {size(image.shape)} (width x height)")
        mask = None
    if points is None:
        return Scene(name, image, np.zeros((0, 2), np.int64), mask)
    marked = points.read(name, image.shape, report)
    if marked is None:
        return None
    if mask is not None:
        _compare(points.file_of(name), name, marked, mask, report)
    return Scene(name, image, marked, mask)


def _compare(file: Path, name: str, points: np.ndarray, mask: np.ndarray, report: Report) -> None:
    for row, column in points[~mask[points[:, 0], points[:, 1]]]:
        report(f"{file}: the point x={column}, y={row} of {name} is outside every target of its mask")
    if mask.any() and not len(points):
        report(f"{file}: {name} has targets in its mask and no point")
