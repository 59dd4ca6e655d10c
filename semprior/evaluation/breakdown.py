"""Metrics of parts of a split: of a subset of its images, or of targets of one size, contrast or kind.

Every predicted pixel belongs to one true target or to none:

- A pixel in the mask of a target belongs to that target.
- The other pixels of a predicted component belong to the target with which the component shares most pixels (of equal
  ones the first). A component that shares none belongs to the target it is matched with; without a match, its pixels
  belong to no target: they are astray.

So the intersections of all targets add up to that of the image, and their unions, with the pixels astray, to its union.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from semprior.data.connected_components import find_regions, label_regions
from semprior.evaluation.conventions import Convention
from semprior.evaluation.metrics import ImageCounts, Metrics, bootstrap_errors, false_pixels, match_regions, summarise
from semprior.evaluation.target_traits import KINDS, TargetTraits, target_traits

SIZES = ((1, 9), (10, 19), (20, 39), (40, 79), (80, None))  # pixels of a target
CONTRASTS = ((0, 2), (2, 4), (4, 8), (8, 16), (16, None))  # signal-to-clutter ratios, with the first, below the second
NO_TARGET = "no target"


@dataclass(frozen=True)
class TargetCounts:
    """The counts of one true target.

    Attributes:
        traits: what is measured of it.
        intersection: its predicted pixels.
        union: its pixels, and predicted pixels outside all targets that belong to it.
        matched: whether a predicted component matches it.
    """

    traits: TargetTraits
    intersection: int
    union: int
    matched: bool


@dataclass(frozen=True)
class EvaluatedImage:
    """What an evaluation found in one image.

    Attributes:
        name: of the image.
        subset: the part of a joined data set that it comes from; None if the data set names none.
        shape: (height, width) in pixels.
        counts: of the whole image.
        targets: in the order of `find_regions`.
        astray: predicted pixels that belong to no target.
    """

    name: str
    subset: str | None
    shape: tuple[int, int]
    counts: ImageCounts
    targets: tuple[TargetCounts, ...]
    astray: int


@dataclass(frozen=True)
class Part:
    """Metrics of a part of a split.

    Attributes:
        name: of the part.
        metrics: over its images and targets; an undefined one is NaN.
        errors: bootstrap standard errors of ``iou``, ``niou``, ``pd`` and ``fa`` over its images; NaN for one image.
    """

    name: str
    metrics: Metrics
    errors: dict[str, float]


def evaluate_image(
    name: str,
    subset: str | None,
    image: np.ndarray,
    predicted: np.ndarray,
    truth: np.ndarray,
    convention: Convention,
) -> EvaluatedImage:
    """Compare one predicted mask with the true one, target by target.

    Args:
        name: of the image.
        subset: that it comes from, or None.
        image: (H,W) uint8, grey.
        predicted: (H,W) bool.
        truth: (H,W) bool.
        convention: of the metrics.
    """
    found, targets = find_regions(predicted), find_regions(truth)
    matches = match_regions(found, targets)
    components, labels = label_regions(predicted), label_regions(truth)
    shared = np.zeros((len(found) + 1, len(targets) + 1), np.int64)  # row and column 0: outside of all
    np.add.at(shared, (components[predicted | truth], labels[predicted | truth]), 1)
    intersections, areas, excess = shared[1:, 1:].sum(axis=0), shared[:, 1:].sum(axis=0), shared[1:, 0]
    owners = np.full(len(found), -1)
    owners[matches[matches >= 0]] = np.flatnonzero(matches >= 0)
    overlaps = shared[1:, 1:].any(axis=1)
    if overlaps.any():
        owners[overlaps] = shared[1:, 1:][overlaps].argmax(axis=1)
    unions = areas + np.bincount(owners[owners >= 0], excess[owners >= 0], len(targets)).astype(np.int64)
    astray = int(excess[owners < 0].sum())
    counts = ImageCounts(
        intersection=int(intersections.sum()),
        union=int(unions.sum()) + astray,
        targets=len(targets),
        matched=int(np.count_nonzero(matches >= 0)),
        false_pixels=false_pixels(found, matches[matches >= 0], convention.false_area),
        pixels=truth.size,
    )
    each = tuple(
        TargetCounts(traits, int(intersection), int(union), bool(match >= 0))
        for traits, intersection, union, match in zip(
            target_traits(image, truth), intersections, unions, matches, strict=True
        )
    )
    height, width = truth.shape
    return EvaluatedImage(name, subset, (height, width), counts, each, astray)


def size_name(traits: TargetTraits) -> str:
    """The bin of `SIZES` that a target belongs to: ``10-19``."""
    return next(_bin(low, high) for low, high in SIZES if high is None or traits.size <= high)


def contrast_name(traits: TargetTraits) -> str:
    """The bin of `CONTRASTS` that a target belongs to: ``2-4``, which includes 2 and excludes 4."""
    return next(_bin(low, high) for low, high in CONTRASTS if high is None or traits.contrast < high)


def _bin(low: int, high: int | None) -> str:
    return f"{low}+" if high is None else f"{low}-{high}"


_TRAITS: dict[str, Callable[[TargetTraits], str]] = {
    "size": size_name,
    "contrast": contrast_name,
    "kind": lambda traits: traits.kind,
}
_ORDER: dict[str, list[str]] = {
    "size": [_bin(low, high) for low, high in SIZES],
    "contrast": [_bin(low, high) for low, high in CONTRASTS],
    "kind": [*KINDS],
}
BREAKDOWNS = ("subset", *_TRAITS)
"""What a split can be broken down by."""


def break_down(images: Sequence[EvaluatedImage], by: str, convention: Convention) -> list[Part]:
    """Metrics of the parts of a split that have an image, in a fixed order.

    A subset has its images, with all that was predicted in them. A part of targets has its targets, the predicted
    pixels that belong to them, and the images that hold at least one of them: nIoU is the mean over these images of the
    IoU of the part's targets in the image, and Fa the false alarms in these images over all of their pixels. So the
    false alarms of an image count in each part that it has a target of, and those of images without any target count in
    the part `NO_TARGET`. Pixels astray count in no part's IoU but that of `NO_TARGET`.

    Args:
        images: of the split.
        by: one of `BREAKDOWNS`.
        convention: of the metrics.
    """
    groups: dict[str, list[ImageCounts]] = {}
    for image in images:
        for name, counts in _parts_of(image, by):
            groups.setdefault(name, []).append(counts)
    order = [name for name in _ORDER.get(by, sorted(groups)) if name in groups]
    order += [NO_TARGET] if NO_TARGET in groups and by != "subset" else []
    return [part_of(name, groups[name], convention) for name in order]


def part_of(name: str, counts: Sequence[ImageCounts], convention: Convention) -> Part:
    """Metrics of counts of images, with their errors."""
    metrics = summarise(counts, empty_union=convention.empty_union)
    if len(counts) < 2:
        return Part(name, metrics, dict.fromkeys(("iou", "niou", "pd", "fa"), float("nan")))
    return Part(name, metrics, bootstrap_errors(counts, empty_union=convention.empty_union))


def _parts_of(image: EvaluatedImage, by: str) -> Iterable[tuple[str, ImageCounts]]:
    """The parts that an image has a share in, and its counts there."""
    if by == "subset":
        yield image.subset or "", image.counts
        return
    if not image.targets:
        yield NO_TARGET, image.counts
    targets: dict[str, list[TargetCounts]] = {}
    for target in image.targets:
        targets.setdefault(_TRAITS[by](target.traits), []).append(target)
    for name, own in targets.items():
        yield (
            name,
            ImageCounts(
                intersection=sum(target.intersection for target in own),
                union=sum(target.union for target in own),
                targets=len(own),
                matched=sum(target.matched for target in own),
                false_pixels=image.counts.false_pixels,
                pixels=image.counts.pixels,
            ),
        )
