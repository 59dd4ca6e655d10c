"""`semprior data join`: several data sets -> one, with the subset of each image and all splits kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from semprior.data.annotations import find_points
from semprior.data.finding.split_lists import BY_SEED
from semprior.data.images import intensity_range_of
from semprior.data.importing.writing import NewDataset, NewImage, PixelBox, write_dataset
from semprior.data.layout import Layout, Masks, Scene, find_layout, iter_scenes
from semprior.data.points import centroid_points
from semprior.errors import UserError
from semprior.io.wording import plural
from semprior.reading.pixels import bits_per_channel


def join_datasets(folder: Path, sources: Mapping[str, Path], *, prefix: bool = False) -> list[str]:
    """Join data sets in our layout; ``subset.csv`` tells which one an image came from.

    Splits are kept: a split of the new data set is that of the old ones, one after another, seeded ones included. If
    only some of the data sets have points, the others get those at the centroids of their masks.

    Args:
        folder: to create.
        sources: data sets by the names of the subsets.
        prefix: whether the name of its subset and ``_`` are put before each name.

    Returns:
        What was joined, one line each.

    Raises:
        UserError: a data set has a fault, two have an image of the same name, or their depths differ.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder}: exists already; move it away or choose another place")
    if len(sources) < 2:
        raise UserError("NAME=SOURCE: name at least two data sets")
    for name in sources:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(f"{name!r}: the name of a subset has letters, digits, dots, hyphens and underscores only")
    if inside := next((place for place in sources.values() if folder.resolve().is_relative_to(place.resolve())), None):
        raise UserError(f"{folder}: lies in {inside}, where nothing is changed; choose another place")
    layouts = {subset: find_layout(place) for subset, place in sources.items()}
    pointed = {
        subset: find_points(layout.root, layout.images, lambda _: None) is not None
        for subset, layout in layouts.items()
    }
    depths = {
        bits_per_channel(paths[0]): subset for subset, layout in layouts.items() for paths in layout.images.values()
    }
    if len(depths) > 1:
        raise UserError(f"{' and '.join(sorted(depths.values()))}: their images differ in depth, {sorted(depths)} bit")
    joined, lines = NewDataset({}, {}, {}, {}), []
    splits: dict[str, tuple[str, ...]] = {}
    groups: dict[str, str] = {}
    subsets: dict[str, str] = {}
    bare: dict[str, int] = {}
    for subset, layout in layouts.items():
        first = f"{subset}_" if prefix else ""
        listed = {name for names in layout.splits.values() for name in names}
        for name in layout.images:
            if name in listed and first + name in subsets:
                other = subsets[first + name]
                raise UserError(
                    f"{layout.images[name][0]}: {other} has an image {name}, too; --prefix tells them apart"
                )
            if name in listed:
                subsets[first + name] = subset
        for split, names in layout.splits.items():
            splits[split] = splits.get(split, ()) + tuple(first + name for name in names)
        groups |= {first + name: f"{subset}/{group}" for name, group in layout.groups.items() if name in listed}
        derived = any(pointed.values()) and not pointed[subset]
        images = _read(layout, any(pointed.values()), derived)
        joined.images.update({first + name: image for name, image in images.items()})
        points = sum(len(image.points) for image in images.values() if image.points is not None)
        sizes = ", ".join(f"{len(names)} {split}" for split, names in layout.splits.items())
        how = " made from the centroids of its masks" if derived else ""
        seeded = f" ({BY_SEED})" if any(BY_SEED in place for place in layout.listed_in.values()) else ""
        lines.append(f"{subset}: {sizes}{seeded}" + (f"; {points} points{how}" if any(pointed.values()) else ""))
        if spare := len(layout.images) - len(listed):
            lines.append(f"{subset}: in no split and left out: {plural(spare, 'image')}")
        if layout.subsets:
            lines.append(
                f"{subset}: its own subsets {', '.join(sorted(set(layout.subsets.values()))[:8])} become {subset}"
            )
        bare[subset] = sum(image.mask is None for image in images.values())
    if any(image.mask is not None for image in joined.images.values()):
        lines += [
            f"{subset}: without a mask, which evaluation needs: {plural(count, 'image')}"
            for subset, count in bare.items()
            if count
        ]
    joined.splits, joined.groups, joined.subsets = splits, groups, subsets
    write_dataset(folder, joined, link=False)
    lines.append(f"{folder}: {', '.join(f'{len(names)} {split}' for split, names in splits.items())}")
    if not any(pointed.values()):
        lines.append(f"no points: make them from the masks with `semprior data points {folder}`")
    return lines


def _read(layout: Layout, with_points: bool, derived: bool) -> dict[str, NewImage]:
    """Read and check the listed images of a data set; their points are its own or made from its masks."""
    masks = layout.mask_files()
    listed = [layout.images[name][0] for names in layout.splits.values() for name in names if name in layout.images]
    intensity = intensity_range_of(listed)
    found = {}
    for split in layout.splits:
        how: Masks = "required" if derived or not with_points else "optional"
        for scene in iter_scenes(layout, split, intensity, masks=how):
            new = NewImage(layout.images[scene.name][0], masks.get(scene.name))
            if derived and scene.mask is not None:
                new.points = centroid_points(scene.mask)
            elif with_points:
                new.points = scene.points
                new.boxes = [] if scene.boxes is None else _own_boxes(scene)
            found[scene.name] = new
    return found


def _own_boxes(scene: Scene) -> list[PixelBox | None]:
    """The boxes of a scene's targets; None for one that has that of the whole image."""
    assert scene.boxes is not None
    rows = [(int(t), int(left), int(b), int(right)) for t, left, b, right in scene.boxes.tolist()]
    return [None if row == (0, 0, *scene.image.shape) else row for row in rows]
