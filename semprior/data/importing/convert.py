"""`semprior data import`: one foreign data set -> a new folder in our layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from semprior.data.annotations import size, touching_points
from semprior.data.finding.remarks import graded_line
from semprior.data.finding.sequences import groups_by_pattern
from semprior.data.finding.split_lists import SPLITS
from semprior.data.formats.marks import Annotations, Mark
from semprior.data.image_tables import GROUP_TABLE, SUBSET_TABLE, read_groups, read_subsets
from semprior.data.images import decode, raise_fault, read_marks, read_mask_as_it_is
from semprior.data.importing.annotation_files import READERS, choose_format, find_annotations
from semprior.data.importing.source import Source, find_source
from semprior.data.importing.targets import Decisions, dot_points, order_of_numbers, pixel_targets, regions_without
from semprior.data.importing.writing import SKIPPED_TABLE, NewDataset, NewImage, write_dataset
from semprior.data.layout import find_layout
from semprior.data.splits import Splits, listed_splits, report_overlaps, report_parted_groups
from semprior.errors import UserError
from semprior.io.wording import plural
from semprior.reading.schema import shown_key

_FITTING = 0.9  # share of points that must lie on targets for their order to be believed
_CLEARER = 1.2  # how many times further the points of one order stand out


def import_dataset(
    source_folder: Path,
    folder: Path,
    *,
    form: str = "auto",
    link: bool = False,
    skip_faulty: bool = False,
    groups: str | None = None,
) -> list[str]:
    """Convert a data set to our layout.

    Args:
        source_folder: in any layout that `find_source` and `find_annotations` know; nothing in it is changed.
        folder: to create.
        form: a name in `annotation_files.FORMATS`.
        link: whether to link images and masks instead of copying them.
        skip_faulty: whether images with a fault are left out and listed in ``skipped.csv``.
        groups: regular expression that finds the group in a name; see `groups_by_pattern`.

    Returns:
        What was found and decided, one line each.

    Raises:
        UserError: an image, mask or annotation has a fault, or it is not clear what is meant; nothing is written.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder}: exists already; move it away or choose another place")
    if folder.resolve().is_relative_to(source_folder.resolve()):
        raise UserError(f"{folder}: lies in {source_folder}, where nothing is changed; choose another place")
    source = find_source(source_folder)
    found = find_annotations(source)
    form = choose_format(source, found, form)
    annotations = None
    if form != "masks" and form in found:
        annotations = READERS[form](found[form], source.find_image)
        if not annotations.marks:
            raise UserError(f"{source_folder}: none of its {form} annotations fits an image, {_first(annotations)}")
        if form == "points":
            _put_in_order(source, annotations)
    images, skipped, lines = _read(source, annotations, read_marks=form == "points" and annotations is None)
    if skipped and (not skip_faulty or not images):
        first = next(iter(skipped.values()))
        others = f" (and faults of {plural(len(skipped) - 1, 'more image', 'more images')})" if len(skipped) > 1 else ""
        way_out = "" if skip_faulty else "; --skip-faulty leaves such images out and lists them"
        raise UserError(f"{first}{others}{way_out}")
    has_points = any(image.points is not None for image in images.values())
    if has_points and not any(image.points is not None and len(image.points) for image in images.values()):
        notes = "" if annotations is None else "".join(f"; {note}" for note in annotations.notes)
        raise UserError(f"{source_folder}: no image has a target{notes}")
    splits, listed_in, split_line = _splits(source, annotations, images, skipped, skip_faulty)
    report_overlaps(splits, listed_in, raise_fault)
    own_groups, place = _groups(source, groups, images, skipped, skip_faulty)
    way_out = ", or tell other groups with --groups"
    report_parted_groups(splits, listed_in, own_groups, place, raise_fault, way_out)
    subsets, _ = _of_table(source, SUBSET_TABLE, read_subsets, images, skipped, skip_faulty)
    write_dataset(folder, NewDataset(images, splits, own_groups, subsets, skipped), link=link)
    lines.append(split_line)
    listed = {name for names in splits.values() for name in names}
    if splits and (unlisted := [name for name in images if name not in listed]):
        lines.append(f"in no split: {plural(len(unlisted), 'image')}, such as {unlisted[0]}")
    return _report(source, form, annotations, images, skipped, lines, own_groups, folder)


def _first(annotations: Annotations) -> str:
    return f"such as {shown_key(annotations.strangers[0])}" if annotations.strangers else "as they are empty"


def _read(
    source: Source, annotations: Annotations | None, *, read_marks: bool
) -> tuple[dict[str, NewImage], dict[str, str], list[str]]:
    """Read every image with its mask and targets; the images, the first fault of each faulty one, and remarks."""
    decisions, depths = Decisions(), Counter[str]()
    images: dict[str, NewImage] = {}
    skipped: dict[str, str] = {}
    kinds: dict[str, str] = {}
    graded = pixels = 0
    two_valued: dict[Path, bool] = {}
    for name, own in source.images.items():
        faults: list[str] = []
        image = decode(own.path, faults.append)
        mask_file, mask = source.masks.get(name), None
        if mask_file is not None and (reading := read_mask_as_it_is(mask_file, faults.append)) is not None:
            mask = reading.mask
            graded, pixels = graded + (reading.graded > 0), pixels + reading.graded
        if image is None or faults:
            skipped[name] = faults[0]
            continue
        two_valued[own.path.parent] = two_valued.get(own.path.parent, True) and _is_two_valued(image)
        if mask is not None and mask.shape != image.shape:
            skipped[name] = (
                f"{mask_file}: the mask is {size(mask.shape)}, its image {size(image.shape)} (width x height)"
            )
            continue
        new = NewImage(own.path, mask_file)
        if annotations is not None:
            width, height = annotations.sizes.get(name, image.shape[::-1])
            if (height, width) != image.shape:
                skipped[name] = (
                    f"{own.path}: is {size(image.shape)}, but was annotated as {width:g}x{height:g} (width x height);"
                    " annotate it at its size, or correct the size"
                )
                continue
            targets = pixel_targets(annotations.marks.get(name, []), image, mask, decisions)
            new, faults = replace(new, points=targets.points, boxes=targets.boxes), targets.faults
        elif read_marks:
            new.points = _marked(source, name, image.shape, decisions, faults)
        if new.points is not None and not faults:
            faults = _implausible(source, name, new.points, (image.shape[0], image.shape[1]), mask)
        if faults:
            skipped[name] = faults[0]
            continue
        images[name] = new
        depths[image.dtype.name] += 1
        kinds[name] = image.dtype.name
    for folder in (folder for folder, always in two_valued.items() if always):
        raise UserError(
            f"{folder}: every image in it holds two values only; if these are masks, name their folder masks/,"
            " else move it away"
        )
    usual = max(sorted(depths), key=depths.__getitem__, default="")
    for name in [name for name, kind in kinds.items() if kind != usual]:
        skipped[name] = f"{images.pop(name).path}: holds {kinds[name]}, where most images hold {usual}"
    lines = decisions.lines()
    if graded:
        lines.append(graded_line(graded, sum(image.mask is not None for image in images.values()), pixels))
    return images, skipped, lines


def _is_two_valued(image: np.ndarray) -> bool:
    low, high = image.min(), image.max()
    return low < high and bool(((image == low) | (image == high)).all())


def _marked(
    source: Source, name: str, shape: tuple[int, ...], decisions: Decisions, faults: list[str]
) -> np.ndarray | None:
    """The points of an image's point image; a fault if it has none, or one of another size, or a mask."""
    path = source.marks.get(name)
    if path is None:
        faults.append(f"{source.images[name].path}: no point image in the folder {source.points}")
        return None
    marks = read_marks(path, faults.append, "points lie")
    if marks is None:
        return None
    if marks.shape != shape:
        faults.append(f"{path}: {size(marks.shape)}, but its image is {size(shape)} (width x height)")
        return None
    above = marks > marks.max(initial=0) / 2
    if low := regions_without(marks > 0, above):
        faults.append(
            f"{path}: {low} of its points {'lies' if low == 1 else 'lie'} below half of its largest value"
            f" {marks.max():g}; if values number the points, save it as 0 and 255"
        )
        return None
    points = dot_points(above, decisions)
    if points is None:
        faults.append(
            f"{path}: holds regions, not points; if these are masks, name their folder masks/, import them and make"
            " points with `semprior data points`"
        )
    return points


def _implausible(
    source: Source, name: str, points: np.ndarray, shape: tuple[int, int], mask: np.ndarray | None
) -> list[str]:
    path = source.images[name].path
    if touching := touching_points(points, shape):
        return [f"{path}: {touching} of its {len(points)} points touch; one target has one point"]
    if mask is None:
        return []
    outside = points[~mask[points[:, 0], points[:, 1]]]
    if len(outside):
        row, column = outside[0]
        return [f"{path}: the point x={column}, y={row} is outside every target of its mask"]
    if mask.any() and not len(points):
        return [f"{path}: has targets in its mask and no point"]
    return []


def _put_in_order(source: Source, annotations: Annotations) -> None:
    """Decide whether text files of points give x y or row column, and turn the latter round.

    Masks decide where there are any, then the borders of the images, then which pixels stand out.
    """
    fits, count, masked = np.zeros((2, 3)), 0, 0
    for name, marks in annotations.marks.items():
        image = decode(source.images[name].path, lambda _: None)
        pairs = [mark.point for mark in marks if mark.point is not None]
        if image is None or not pairs:
            continue
        reading = read_mask_as_it_is(source.masks[name], lambda _: None) if name in source.masks else None
        mask = reading.mask if reading is not None and reading.mask.shape == image.shape else None
        fits += order_of_numbers(pairs, image, mask)
        count += len(pairs)
        masked += len(pairs) if mask is not None else 0
    names = ("x y", "row column")
    if masked:
        best = int(fits[1, 1] > fits[0, 1])
        reason = f"{int(fits[best, 1])} of {masked} lie on targets of the masks, {int(fits[1 - best, 1])} the other way"
        if fits[best, 1] < _FITTING * masked:
            raise UserError(
                f"{source.root}: the numbers in its text files of points fit its masks neither as x y"
                f" ({int(fits[0, 1])} of {masked}) nor as row column ({int(fits[1, 1])})"
            )
    elif fits[0, 0] != fits[1, 0]:
        best = int(fits[1, 0] > fits[0, 0])
        reason = f"the other way {int(count - fits[1 - best, 0])} of {count} lie outside their images"
    else:
        clear = max(fits[:, 2]) > _CLEARER * min(fits[:, 2])
        best = int(clear and fits[1, 2] > fits[0, 2])
        reason = "by which pixels stand out" if clear else "as usual; nothing tells which it is"
        reason += "; there are no masks to check it against"
    annotations.notes.append(f"points are read as {names[best]}: {reason}")
    if best:
        for name, marks in annotations.marks.items():
            annotations.marks[name] = [
                Mark(mark.where, None if mark.point is None else (mark.point[1], mark.point[0])) for mark in marks
            ]


def _splits(
    source: Source,
    annotations: Annotations | None,
    images: Mapping[str, NewImage],
    skipped: dict[str, str],
    skip_faulty: bool,
) -> tuple[Splits, dict[str, str], str]:
    """The splits: of lists, else of folders, else of annotation files, else none; what lists each; how all were found.

    Names in lists that are no images are added to `skipped`, or refused.
    """
    for place in dict.fromkeys((source.top, source.root)):
        listed = listed_splits(place, source.images, source.resolve, raise_fault)
        if listed is not None:
            splits, files = listed
            for split, names in splits.items():
                for name in (name for name in names if name not in source.images):
                    _leave_out(f"{files[split]}: lists", name, skipped, skip_faulty)
            lists = ", ".join(str(path.relative_to(source.root)) for path in files.values())
            present = {split: _present(names, images) for split, names in splits.items()}
            return present, {split: str(path) for split, path in files.items()}, _sized(present, f"splits of {lists}")
    by_folder = {
        split: tuple(name for name in images if source.images[name].split == split)
        for split in SPLITS
        if any(image.split == split for image in source.images.values())
    }
    how, splits = "the names of folders", by_folder
    if not by_folder and annotations is not None:
        how = "the annotation files"
        named = annotations.splits
        splits = {split: _present(named[split], images) for split in SPLITS if split in named}
        if len(splits) == 1 and all(len(names) == len(images) for names in splits.values()):
            splits = {}  # as CVAT calls all images "Train"
    if splits:
        listed_in = {split: f"{source.root} ({split} by {how})" for split in splits}
        return splits, listed_in, _sized(splits, f"splits by {how}")
    return {}, {}, "no lists of splits: `semprior train` splits all images by seed"


def _leave_out(what: str, name: str, skipped: dict[str, str], skip_faulty: bool) -> None:
    """Note that `name`, which something lists, is no image."""
    if not skip_faulty:
        raise UserError(f"{what} {shown_key(name)}, but there is no such image; --skip-faulty leaves it out")
    skipped[name] = f"{what} it, but there is no such image"


def _present(names: object, images: Mapping[str, NewImage]) -> tuple[str, ...]:
    assert isinstance(names, list | tuple)
    return tuple(name for name in dict.fromkeys(names) if name in images)


def _sized(splits: Splits, how: str) -> str:
    return f"{how}: {', '.join(f'{len(names)} {split}' for split, names in splits.items())}"


def _groups(
    source: Source,
    pattern: str | None,
    images: Mapping[str, NewImage],
    skipped: dict[str, str],
    skip_faulty: bool,
) -> tuple[dict[str, str], str]:
    """The groups of images: by a pattern, else of ``groups.csv``, else of their folders; and what gives them."""
    if pattern is not None:
        return groups_by_pattern(images, pattern), f"--groups {pattern}"
    groups, table = _of_table(source, GROUP_TABLE, read_groups, images, skipped, skip_faulty)
    if table:
        return groups, table
    folders = {name: "/".join(source.images[name].folders) for name in images if source.images[name].folders}
    several = len({source.images[name].folders for name in images}) > 1
    return folders if several else {}, f"{source.root}: the folders of its images"


def _of_table(
    source: Source,
    table: str,
    read: Callable[[Path], dict[str, str]],
    images: Mapping[str, NewImage],
    skipped: dict[str, str],
    skip_faulty: bool,
) -> tuple[dict[str, str], str]:
    """What a table of the source tells of its images, by their new names, and its path; empty if there is none."""
    path = next((place / table for place in (source.root, source.top) if (place / table).exists()), None)
    if path is None:
        return {}, ""
    found: dict[str, str] = {}
    for given, value in read(path.parent).items():
        name = given if given in source.images else source.find_image(given)
        if name is None:
            _leave_out(f"{path}: names", given, skipped, skip_faulty)
        elif found.setdefault(name, value) != value:
            raise UserError(f"{path}: the image {name} is named twice, for {found[name]} and {value}; delete one")
    return {name: value for name, value in found.items() if name in images}, str(path)


def _report(
    source: Source,
    form: str,
    annotations: Annotations | None,
    images: Mapping[str, NewImage],
    skipped: Mapping[str, str],
    lines: list[str],
    groups: Mapping[str, str],
    folder: Path,
) -> list[str]:
    masks = sum(image.mask is not None for image in images.values())
    targets = sum(len(image.points) for image in images.values() if image.points is not None)
    boxes = sum(box is not None for image in images.values() for box in image.boxes)
    has_points = form != "masks"
    about = [plural(len(images), "image"), plural(masks, "mask")]
    about += [f"{plural(targets, 'target')} ({form}), {boxes} of them with a box"] if has_points else []
    report = [f"{source.root}: {', '.join(about)}", *source.notes]
    if annotations is not None:
        report += annotations.notes
        if len(annotations.labels) > 1:
            classes = ", ".join(f"{label or 'unnamed'} {count}" for label, count in annotations.labels.most_common(8))
            report.append(f"all classes are targets: {classes}")
        if annotations.strangers:
            strangers = len(annotations.strangers)
            report.append(
                f"not used, for no image: {plural(strangers, 'annotation')}, such as {annotations.strangers[0]}"
            )
        if bare := [name for name in images if name not in annotations.marks]:
            report.append(
                f"without an annotation, counted as without targets: {plural(len(bare), 'image')}, such as {bare[0]}"
            )
    report += lines
    if masks and (unmasked := [name for name, image in images.items() if image.mask is None]):
        report.append(f"without a mask: {plural(len(unmasked), 'image')}, such as {unmasked[0]}")
    if groups:
        report.append(
            f"{plural(len(set(groups.values())), 'group')} of {plural(len(groups), 'image')}, which stay together"
            f" ({GROUP_TABLE})"
        )
    if skipped:
        report.append(
            f"left out {plural(len(skipped), 'image')}, such as {next(iter(skipped))}; listed in"
            f" {folder / SKIPPED_TABLE}"
        )
    if not has_points and masks:
        report.append(f"no points: make them from the masks with `semprior data points {folder}`")
    elif not has_points:
        report.append("no points and no masks: mark the targets before you train")
    try:
        find_layout(folder)
    except UserError as error:
        report.append(f"before you train: {error}")
    return report
