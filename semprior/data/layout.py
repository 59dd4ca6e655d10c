"""A data set on disk -> checked scenes.

::

    ROOT/images/NAME.png              PNG, BMP, TIFF or JPEG; grey or colour; 8 bit, 16 bit or float
    ROOT/masks_centroid/NAME.png      one pixel per target; or ROOT/points.csv with name,x,y (x = column, y = row)
    ROOT/mode/train|val|test*.txt     names with or without extension, wherever they lie; else the splits are seeded
    ROOT/labels/NAME.png              or masks/: full masks, for evaluation only
    ROOT/groups.csv                   name,group: images that no split may part; ROOT/subset.csv of a joined data set

`find_layout` reads names only. `read_scenes` opens the images of one split, their points and, on request only, their
masks; it raises the first fault that it meets. `iter_scenes` yields one scene at a time. `check_dataset` runs the same
code and lists every fault. Other layouts are converted to this one by `semprior data import`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from semprior.data.annotations import (
    POINT_FOLDER,
    POINT_TABLE,
    PointImages,
    PointSource,
    PointTable,
    Targets,
    find_points,
    size,
)
from semprior.data.finding.remarks import Tally, no_target, remarks_by_content, remarks_by_name
from semprior.data.finding.unread import refuse_unread_pictures
from semprior.data.image_tables import GROUP_TABLE, SUBSET_TABLE, read_groups, read_subsets
from semprior.data.images import (
    READABLE,
    FaultHandler,
    IntensityRange,
    image_files,
    intensity_range_of,
    raise_fault,
    read_image,
    read_mask_as_it_is,
)
from semprior.data.splits import find_splits
from semprior.errors import UserError

SCENES_VERSION = 4  # increase it when files are read to other grey values, points or masks: it keys cached scenes
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
        boxes: (P,4) int64, the box of each target as in `Targets`; None if no target has one.
        graded: number of pixels of the mask's file that hold neither 0 nor its largest value.
    """

    name: str
    image: np.ndarray
    points: np.ndarray
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None
    graded: int = 0


@dataclass(frozen=True)
class Layout:
    """The files of a data set.

    Attributes:
        root: its folder.
        splits: names without extension, by ``train``, ``val``, ``test``.
        listed_in: the file that lists each split.
        images: files by name; a valid data set has one of each name.
        masks: folder of full masks, or None.
        groups: of images, by name; splits and holdout never part them.
        subsets: of a joined data set, by name.
    """

    root: Path
    splits: dict[str, tuple[str, ...]]
    listed_in: dict[str, str] = field(repr=False)
    images: dict[str, list[Path]] = field(repr=False)
    masks: Path | None
    groups: dict[str, str] = field(repr=False, default_factory=dict)
    subsets: dict[str, str] = field(repr=False, default_factory=dict)

    @property
    def has_masks(self) -> bool:
        """Whether there are full masks."""
        return self.masks is not None

    def mask_files(self) -> dict[str, Path]:
        """Files of masks by the name of their image; SIRST v1 names them NAME_pixels0.png."""
        if self.masks is None:
            return {}
        files = {name: paths[0] for name, paths in image_files(self.masks).items()}
        return files | {name.removesuffix("_pixels0"): path for name, path in files.items() if name not in self.images}

    def files(self) -> list[Path]:
        """Every file that a reading of the data set may depend on, but for lists of splits."""
        points = find_points(self.root, self.images, lambda _: None)
        tables = [self.root / GROUP_TABLE, self.root / SUBSET_TABLE]
        found = [path for paths in self.images.values() for path in paths]
        found += [] if self.masks is None else [path for paths in image_files(self.masks).values() for path in paths]
        if isinstance(points, PointImages):
            found += [path for paths in points.files.values() for path in paths]
        elif isinstance(points, PointTable):
            tables.append(points.path)
        return sorted(found) + [path for path in tables if path.exists()]

    def remarks(self) -> list[str]:
        """What the names alone tell and a user should know, one line each."""
        files = _mask_files(self, None)
        return remarks_by_name(self.root, self.images, self.splits, self.listed_in, files, self.groups, self.subsets)


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
            way_out = "; `semprior data import` reads other layouts" if needed == folder else ""
            on_fault(f"{needed}: {'not a folder' if needed.exists() else 'no such folder'}{way_out}")
            return None
    for path in sorted(root.iterdir()):  # lists, masks or groups would be missing without notice
        if path.is_symlink() and not path.exists() and not path.name.startswith("."):
            on_fault(f"{path}: a link to nothing; mend it, or delete it")
    images = image_files(folder)
    refuse_unread_pictures(folder, on_fault)
    if not images:
        on_fault(f"{folder}: holds no {READABLE} image")
        return None
    groups, subsets = read_groups(root, images, on_fault), read_subsets(root, images, on_fault)
    splits, listed_in = find_splits(root, images, on_fault, groups)
    folders = [root / name for name in MASK_FOLDERS if (root / name).is_dir()]
    if len(folders) > 1:
        on_fault(f"{root}: both {folders[0].name}/ and {folders[1].name}/ hold masks; keep one")
    for masks_folder in folders:
        refuse_unread_pictures(masks_folder, on_fault)
    masks = next((folder for folder in folders if image_files(folder)), None)
    layout = Layout(root, splits, listed_in, images, masks, groups, subsets)
    if masks is not None and not _mask_files(layout, None).keys() & images.keys():
        example = next(iter(image_files(masks).values()))[0].name
        on_fault(f"{masks}: no mask is named like an image (NAME.png or NAME_pixels0.png), such as {example}")
    return layout


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
    files = layout.files()
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
    targets = 0
    for name in names:
        if masks == "required" and name not in files:
            raise_fault(_no_mask(layout, split, name))
        scene = _scene(layout, split, name, intensity, points, files, raise_fault)
        assert scene is not None  # a fault would have been raised
        targets += len(scene.points)
        yield scene
    if split == "train" and points is not None and not targets:
        raise_fault(no_target(layout.root, _shown(points)))


def check_dataset(root: Path | str) -> list[str]:
    """Every fault of a data set, one line each; see `survey_dataset`."""
    return survey_dataset(root)[0]


def survey_dataset(root: Path | str) -> tuple[list[str], list[str]]:
    """Every fault of a data set, and every remark on it: of its layout, splits, images, points and masks.

    A split may lack all its masks, as training needs none; the test split may lack them only if the data set has none.

    Returns:
        Faults and remarks, one line each. A data set without faults can be trained on, which says the same remarks.
    """
    faults: list[str] = []
    layout = _find_layout(Path(root), faults.append)
    if layout is None:
        return faults, []
    for split in ("train", "val"):  # training needs no test split
        if split not in layout.splits and layout.splits:
            faults.append(_no_split(layout, split))
    points = _points(layout, faults.append)
    files = _mask_files(layout, None)
    train = [layout.images[name][0] for name in layout.splits.get("train", ()) if name in layout.images]
    intensity = intensity_range_of(train, lambda _: None)  # faults of these files are listed below
    tallies: dict[str, Tally] = {}
    for split, names in layout.splits.items():
        partly = any(name in files for name in names) or (split == "test" and layout.has_masks)
        tally = tallies[split] = Tally()
        for name in names:
            if partly and name in layout.images and name not in files:
                faults.append(_no_mask(layout, split, name))
            scene = _scene(layout, split, name, intensity, points, files, faults.append)
            if scene is not None:
                _count(tally, scene)
    if points is not None and "train" in tallies and not tallies["train"].points and not faults:
        faults.append(no_target(layout.root, _shown(points)))
    remarks = [*layout.remarks(), *remarks_by_content(tallies, points=points is not None)]
    return list(dict.fromkeys(faults)), remarks  # an image in two splits lists its faults once


def content_remarks(scenes: dict[str, Sequence[Scene]]) -> list[str]:
    """The remarks of `survey_dataset` on the content of scenes, by split."""
    tallies = {}
    for split, own in scenes.items():
        tallies[split] = Tally()
        for scene in own:
            _count(tallies[split], scene)
    return remarks_by_content(tallies)


def _count(tally: Tally, scene: Scene) -> None:
    graded = None if scene.mask is None else scene.graded
    tally.add(scene.image.shape, scene.points, scene.boxes, graded)


def _shown(points: PointSource) -> str:
    return points.file_of("").name if isinstance(points, PointTable) else f"{POINT_FOLDER}/"


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


def _no_mask(layout: Layout, split: str, name: str) -> str:
    return (
        f"{layout.masks}: no mask for the image {name}, which {layout.listed_in[split]} lists; add it (all black means"
        " no target), or leave the image out"
    )


def _points(layout: Layout, on_fault: FaultHandler) -> PointSource | None:
    points = find_points(layout.root, layout.images, on_fault)
    if points is None:
        on_fault(
            f"{layout.root}: no points; give {POINT_FOLDER}/ or {POINT_TABLE}, or make them from masks with "
            f"`semprior data points {layout.root}`, or from other annotations with `semprior data import`"
        )
    return points


def _mask_files(layout: Layout, on_fault: FaultHandler | None) -> dict[str, Path]:
    if layout.masks is None and on_fault is not None:
        on_fault(f"{layout.root}: no masks; neither labels/ nor masks/ holds any")
    return layout.mask_files()


def _image(layout: Layout, split: str, name: str, on_fault: FaultHandler) -> Path | None:
    files = layout.images.get(name, [])
    if not files:
        on_fault(
            f"{layout.root / 'images'}: no image {name}, which {layout.listed_in[split]} lists; add it, or delete the"
            " line"
        )
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
    reading = None if name not in masks else read_mask_as_it_is(masks[name], on_fault)
    if image is None:
        return None
    mask, graded = (None, 0) if reading is None else (reading.mask, reading.graded)
    if mask is not None and mask.shape != image.shape:
        on_fault(
            f"{masks[name]}: the mask is {size(mask.shape)}, its image {size(image.shape)} (width"
            f" x height); correct one of them, or leave {name} out"
        )
        mask = None
    if points is None:
        return Scene(name, image, np.zeros((0, 2), np.int64), mask, graded=graded)
    marked: Targets | None = points.read(name, (image.shape[0], image.shape[1]), on_fault)
    if marked is None:
        return None
    if mask is not None:
        _compare(points.file_of(name), name, marked.points, mask, on_fault)
    return Scene(name, image, marked.points, mask, marked.boxes, graded)


def _compare(file: Path, name: str, points: np.ndarray, mask: np.ndarray, on_fault: FaultHandler) -> None:
    for row, column in points[~mask[points[:, 0], points[:, 1]]]:
        on_fault(
            f"{file}: the point x={column}, y={row} of {name} is outside every target of its mask; move it onto"
            " one, or correct the mask"
        )
    if mask.any() and not len(points):
        on_fault(f"{file}: {name} has targets in its mask and no point; mark them, or correct the mask")
