"""Agreement of predicted masks with true ones, by pixel (IoU, nIoU) and by target (Pd, Fa) (method, section 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from semprior.data.connected_components import Regions, find_regions
from semprior.evaluation.conventions import EmptyUnion, FalseArea
from semprior.evaluation.image_sums import MASK_TERMS, metric_of

THRESHOLD = 0.5  # a pixel of a strictly higher probability is predicted
MATCH_DISTANCE = 3.0  # pixels between centroids; a match is strictly closer
ROUNDING = 1e-9  # of a squared distance, so that centroids exactly `MATCH_DISTANCE` apart never match


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


def count_image(predicted: np.ndarray, truth: np.ndarray, false_area: FalseArea = "component") -> ImageCounts:
    """Compare one predicted mask with the true one.

    Args:
        predicted: (H,W) bool.
        truth: (H,W) bool.
        false_area: which components are false, see `FalseArea`.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted mask of {predicted.shape}, true mask of {truth.shape}")
    intersection = int(np.count_nonzero(predicted & truth))
    union = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth)) - intersection
    found, targets = find_regions(predicted), find_regions(truth)
    matches = match_regions(found, targets)
    matched = matches[matches >= 0]
    false = false_pixels(found, matched, false_area)
    return ImageCounts(intersection, union, len(targets), len(matched), false, predicted.size)


def match_regions(found: Regions, targets: Regions) -> np.ndarray:
    """The predicted component that each true one is matched with, (targets,) int64; -1 for none.

    Components are ordered by their first pixels in row-major order. Each true component is matched with the first
    predicted component that is not matched yet and whose centroid is closer than `MATCH_DISTANCE`.
    """
    gaps = targets.centroids[:, None] - found.centroids
    close = (gaps * gaps).sum(axis=2) < MATCH_DISTANCE**2 - ROUNDING
    free = np.ones(len(found), bool)
    matches = np.full(len(targets), -1)
    for target in np.flatnonzero(close.any(axis=1)):
        candidates = close[target] & free
        if candidates.any():
            matches[target] = candidates.argmax()
            free[matches[target]] = False
    return matches


def false_pixels(found: Regions, matched: np.ndarray, false_area: FalseArea) -> int:
    """The pixels of the predicted components that are false alarms.

    Args:
        found: the predicted components.
        matched: (M,) int, the indices of those with a match.
        false_area: see `FalseArea`.
    """
    free = np.ones(len(found), bool)
    free[matched] = False
    if false_area == "area":
        free = ~np.isin(found.areas, found.areas[matched])
    return int(found.areas[free].sum())


def summarise(counts: Sequence[ImageCounts], *, empty_union: EmptyUnion = "skip") -> Metrics:
    """Metrics over the images of a split.

    Args:
        counts: of each image; at least one.
        empty_union: see `EmptyUnion`.

    Raises:
        ValueError: there are no images.
    """
    table = metric_table(counts, empty_union)
    iou, niou, pd, fa = _rates(table.sum(axis=0)).tolist()
    return Metrics(iou, niou, pd, fa, images=len(counts), targets=int(table[:, _TARGETS].sum()))


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
    table, number = metric_table(counts, empty_union), len(counts)
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=rounds)
    rates = _rates(drawn @ table)
    errors = {}
    for name, values in zip(("iou", "niou", "pd", "fa"), rates, strict=True):
        defined = values[np.isfinite(values)]
        errors[name] = float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
    return errors


_INTERSECTION, _UNION, _TARGETS = (MASK_TERMS.index(term) for term in ("intersection", "union", "targets"))


def metric_table(counts: Sequence[ImageCounts], empty_union: EmptyUnion) -> np.ndarray:
    """The terms of the metrics, image by image: (images, 8) float64, columns `MASK_TERMS`.

    Args:
        counts: of each image; at least one.
        empty_union: see `EmptyUnion`.

    Raises:
        ValueError: there are no images.
    """
    if not counts:
        raise ValueError("metrics of no image")
    table = np.array([astuple(count) for count in counts], np.float64)
    union = table[:, _UNION]
    image_iou = table[:, _INTERSECTION] / np.maximum(union, 1)
    weight = np.ones(len(counts)) if empty_union == "zero" else union > 0
    return np.column_stack([table, image_iou, weight])


def _rates(sums: np.ndarray) -> np.ndarray:
    """IoU, nIoU, Pd and Fa, (4, ...), of column sums of the table, (..., 8)."""
    return np.stack([metric_of(name, MASK_TERMS, sums) for name in ("iou", "niou", "pd", "fa")])
