"""Agreement of predicted masks with true ones, by pixel (IoU, nIoU) and by target (Pd, Fa) (method, section 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np

from semprior.data.connected_components import find_regions

THRESHOLD = 0.5  # a pixel of a strictly higher probability is predicted
MATCH_DISTANCE = 3.0  # pixels between centroids; a match is strictly closer
ROUNDING = 1e-9  # of a squared distance, so that centroids exactly `MATCH_DISTANCE` apart never match
EmptyUnion = Literal["skip", "zero"]
"""How nIoU counts an image without predicted and true pixels: it omits the image, or counts it as 0 (published)."""


@dataclass(frozen=True)
class ImageCounts:
    """The counts of one image, from which metrics are computed.

    Attributes:
        intersection: pixels both predicted and true.
        union: pixels predicted or true.
        targets: true components, 8-connected.
        matched: true components with a matching predicted one.
        false_pixels: pixels of the predicted components without a match.
        pixels: of the image.
    """

    intersection: int
    union: int
    targets: int
    matched: int
    false_pixels: int
    pixels: int


@dataclass(frozen=True)
class Metrics:
    """Metrics over images. An undefined metric, such as the Pd of images without targets, is NaN.

    Attributes:
        iou: sum of intersections over sum of unions, in 0..1.
        niou: mean over images of the image's IoU, in 0..1.
        pd: matched over true components, in 0..1.
        fa: pixels of unmatched predicted components, in 1e-6 of all pixels.
        images: number of images.
        targets: number of true components.
    """

    iou: float
    niou: float
    pd: float
    fa: float
    images: int
    targets: int


def count_image(predicted: np.ndarray, truth: np.ndarray) -> ImageCounts:
    """Compare one predicted mask with the true one.

    Components are ordered by their first pixels in row-major order. Each true component is matched with the first
    predicted component that is not matched yet and whose centroid is closer than `MATCH_DISTANCE`.

    Args:
        predicted: (H,W) bool.
        truth: (H,W) bool.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted mask of {predicted.shape}, true mask of {truth.shape}")
    intersection = int(np.count_nonzero(predicted & truth))
    union = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth)) - intersection
    found, targets = find_regions(predicted), find_regions(truth)
    gaps = targets.centroids[:, None] - found.centroids
    close = (gaps * gaps).sum(axis=2) < MATCH_DISTANCE**2 - ROUNDING
    free = np.ones(len(found), bool)
    for row in close[close.any(axis=1)]:
        candidates = row & free
        if candidates.any():
            free[candidates.argmax()] = False
    matched = int(np.count_nonzero(~free))
    return ImageCounts(intersection, union, len(targets), matched, int(found.areas[free].sum()), predicted.size)


def empty_union_of(preset: str) -> EmptyUnion:
    """How runs of a preset count images with an empty union: as published only under ``paper``."""
    return "zero" if preset == "paper" else "skip"


def summarise(counts: Sequence[ImageCounts], *, empty_union: EmptyUnion = "skip") -> Metrics:
    """Metrics over the images of a split.

    Args:
        counts: of each image; at least one.
        empty_union: see `EmptyUnion`.

    Raises:
        ValueError: there are no images.
    """
    table = _table(counts, empty_union)
    iou, niou, pd, fa = _rates(table.sum(axis=0)).tolist()
    return Metrics(iou, niou, pd, fa, images=len(counts), targets=int(table[:, TARGETS].sum()))


def bootstrap_errors(
    counts: Sequence[ImageCounts], *, rounds: int = 200, seed: int = 0, empty_union: EmptyUnion = "skip"
) -> dict[str, float]:
    """Bootstrap standard errors of ``iou``, ``niou``, ``pd`` and ``fa`` (1e-6), over images.

    Args:
        counts: of each image; at least one.
        rounds: number of bootstrap samples, at least 2.
        seed: of the samples.
        empty_union: see `EmptyUnion`.

    Raises:
        ValueError: there are no images.
    """
    table, number = _table(counts, empty_union), len(counts)
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=rounds)
    rates = _rates(drawn @ table)
    errors = {}
    for name, values in zip(("iou", "niou", "pd", "fa"), rates, strict=True):
        defined = values[np.isfinite(values)]
        errors[name] = float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
    return errors


INTERSECTION, UNION, TARGETS, MATCHED, FALSE_PIXELS, PIXELS, IMAGE_IOU, IMAGE_WEIGHT = range(8)


def _table(counts: Sequence[ImageCounts], empty_union: EmptyUnion) -> np.ndarray:
    """(images, 8) float64: the counts, the IoU of the image and its weight in the mean of nIoU."""
    if not counts:
        raise ValueError("metrics of no image")
    table = np.array([astuple(count) for count in counts], np.float64)
    union = table[:, UNION]
    image_iou = table[:, INTERSECTION] / np.maximum(union, 1)
    weight = np.ones(len(counts)) if empty_union == "zero" else union > 0
    return np.column_stack([table, image_iou, weight])


def _rates(sums: np.ndarray) -> np.ndarray:
    """IoU, nIoU, Pd and Fa, (4, ...), of column sums of the table, (..., 8)."""
    pairs = ((INTERSECTION, UNION), (IMAGE_IOU, IMAGE_WEIGHT), (MATCHED, TARGETS), (FALSE_PIXELS, PIXELS))
    with np.errstate(invalid="ignore"):
        rates: np.ndarray = np.stack([sums[..., above] / sums[..., below] for above, below in pairs])
    rates[3] *= 1e6
    return rates
