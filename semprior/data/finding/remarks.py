"""What `semprior data check` and `semprior train` say about a data set, in the same words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semprior.data.finding.sequences import sequences
from semprior.data.finding.split_lists import BY_SEED, SPLIT_FOLDERS
from semprior.data.finding.unread import counted, unread_files
from semprior.data.image_tables import GROUP_TABLE, SUBSET_TABLE
from semprior.io.wording import plural

_READ = (
    *("images", "labels", "masks", "masks_centroid", "points.csv", "skipped.csv"),
    *(GROUP_TABLE, SUBSET_TABLE),
)
"""What a data set holds, but for lists."""
_JPEG = (".jpg", ".jpeg")


def remarks_by_name(
    root: Path,
    images: Mapping[str, list[Path]],
    splits: Mapping[str, Collection[str]],
    listed_in: Mapping[str, str],
    masks: Mapping[str, Path],
    groups: Mapping[str, str],
    subsets: Mapping[str, str],
) -> list[str]:
    """How the split was made, what is not used and what should be known, one line each; no image is opened."""
    lines = [_split_line(root, splits, listed_in)]
    if splits and "test" not in splits:
        lines.append("no test split: `semprior evaluate` can score val and train only")
    listed = {name for names in splits.values() for name in names}
    if unlisted := sorted(set(images) - listed):
        lines.append(f"not used, in no split: {len(unlisted)} of {plural(len(images), 'image')}, such as {unlisted[0]}")
    folder = next((paths[0].parent for paths in images.values()), root)
    if unread := unread_files(folder):
        lines.append(f"{folder.name}/: {counted(unread)} not read")
    if others := _not_read(root, listed_in):
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        lines.append(f"not read, under names that mean nothing: {', '.join(others[:8])}{more}")
    if jpegs := sum(paths[0].suffix.lower() in _JPEG for paths in images.values()):
        lines.append(f"JPEG: {plural(jpegs, 'image')}; the artefacts of this format look like small targets")
    if spare := sorted(set(masks) - set(images)):
        lines.append(f"not used, for no image: {plural(len(spare), 'mask')}, such as {masks[spare[0]].name}")
    if subsets:
        count = len(set(subsets.values()))
        lines.append(f"{count} subsets: {', '.join(sorted(set(subsets.values()))[:8])}")
    if groups:
        several = plural(len(set(groups.values())), "group")
        lines.append(f"{GROUP_TABLE}: {several} of {plural(len(groups), 'image')}, which stay together")
    elif found := sequences(images, subsets):
        beginning, frames = max(found.items(), key=lambda item: item[1])
        lines.append(
            f"names look like frames of sequences ({len(found)}, such as {frames} images {beginning}N): a holdout of"
            f" neighbouring frames measures nothing; list them in {GROUP_TABLE} (name,group)"
        )
    return lines


def _not_read(root: Path, listed_in: Mapping[str, str]) -> list[str]:
    """What lies in a data set under names that nothing reads, such as ``Masks/`` or ``group.csv``, sorted."""
    lists = {Path(place).relative_to(root).parts[0] for place in listed_in.values() if Path(place).is_relative_to(root)}
    known = {*lists, *_READ, *SPLIT_FOLDERS}
    names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir() if not path.name.startswith("."))
    return [name for name in names if name.rstrip("/") not in known and not name.startswith(("README", "LICENSE"))]


def _split_line(root: Path, splits: Mapping[str, Collection[str]], listed_in: Mapping[str, str]) -> str:
    sizes = ", ".join(f"{len(names)} {split}" for split, names in splits.items())
    places = {Path(place) for place in listed_in.values()}
    if any(place.endswith(f"({BY_SEED})") for place in listed_in.values()):
        return f"no lists of splits: all images are {BY_SEED}: {sizes}"
    names = sorted(str(place.relative_to(root)) for place in places if place.is_relative_to(root))
    own = "val" not in listed_in or listed_in["val"] != listed_in.get("train")
    return f"splits of {', '.join(names)}: {sizes}" + ("" if own else " (a seeded fifth of the training images)")


@dataclass
class Tally:
    """Counts over the scenes of a split.

    Attributes:
        images: number of scenes.
        points: number of their points.
        boxes: number of points with a box of their own.
        without: number of scenes without points.
        masks: number of scenes with a mask.
        graded: number of masks that hold values besides two.
        pixels: number of pixels of such values.
    """

    images: int = 0
    points: int = 0
    boxes: int = 0
    without: int = 0
    masks: int = 0
    graded: int = 0
    pixels: int = 0

    def add(self, shape: tuple[int, ...], points: np.ndarray, boxes: np.ndarray | None, graded: int | None) -> None:
        """Count a scene.

        Args:
            shape: of the image.
            points: (P,2).
            boxes: (P,4) or None.
            graded: number of pixels of its mask that hold neither 0 nor the largest value; None without a mask.
        """
        self.images += 1
        self.points += len(points)
        self.without += not len(points)
        if boxes is not None:
            self.boxes += int(np.count_nonzero((boxes != (0, 0, *shape)).any(axis=1)))
        if graded is not None:
            self.masks += 1
            self.graded += graded > 0
            self.pixels += graded


def remarks_by_content(tallies: Mapping[str, Tally], *, points: bool = True) -> list[str]:
    """Targets by split, and what reading the masks decided, one line each.

    Args:
        tallies: by split.
        points: whether points were read.
    """
    lines = []
    for split, tally in tallies.items():
        boxes = f", {tally.boxes} of them with a box" if tally.boxes else ""
        empty = f"; {plural(tally.without, 'image')} without any" if tally.without else ""
        if points:
            lines.append(f"{split}: {plural(tally.images, 'image')}, {plural(tally.points, 'target')}{boxes}{empty}")
    if graded := sum(tally.graded for tally in tallies.values()):
        masks = sum(tally.masks for tally in tallies.values())
        pixels = sum(tally.pixels for tally in tallies.values())
        lines.append(graded_line(graded, masks, pixels))
    return lines


def graded_line(graded: int, masks: int, pixels: int) -> str:
    """The remark that of some masks, `graded` hold other values than two, which decided some pixels."""
    return (
        f"{graded} of {plural(masks, 'mask')} {'holds' if graded == 1 else 'hold'} other values than two;"
        f" {plural(pixels, 'pixel')} decided by > half of the largest value (> 127 of 255)"
    )


def no_target(root: Path, points: str) -> str:
    """The fault that no training image has a point."""
    return f"{root}: no training image has a target; is {points} the right file?"
