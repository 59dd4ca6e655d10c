"""Point score: the quality of predictions by points alone, which selects the best epoch when there are no masks.

A point gives the position of a target and, together with the image, a plausible area: that of the contrast seed around
the point. The score is an IoU of areas. Over all targets of all images::

                     sum of min(a, b) over the found targets
    area_iou = ---------------------------------------------------------
               sum of max(a, b) over all targets + area away from points

with ``b`` the plausible area of a target in pixels and ``a`` the area predicted for it, 0 if it is missed. Missed
targets, false alarms, masks that are too large or too small all lower it as they lower the IoU. The score is ::

    point_score = area_iou * (1 + agreement) / 2

where ``agreement`` is the IoU, over all images, of the predicted masks with those of the previous evaluation (0 at the
first): a detector whose masks still change much has not converged. The standard error is a bootstrap over images, like
that of the metrics (`bootstrap_errors`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from semprior.evaluation.image_sums import POINT_TERMS, metric_of

MATCH_DISTANCE = 3.0  # pixels between a component's centroid and a point, as in the metrics
ROUNDS, SEED = 200, 0  # of the bootstrap


@dataclass(frozen=True)
class PointScore:
    """The quality of a set of predictions by points.

    Attributes:
        score: in 0..1, higher is better.
        pd: share of the points that were detected.
        fa: area away from any point, in 1e-6 of all pixels.
        size: the mean over found targets of ``min(a, b) / max(a, b)``.
        agreement: IoU with the masks of the previous evaluation, over all images.
        score_se: standard error of the score; NaN for fewer than two images.
    """

    score: float
    pd: float
    fa: float
    size: float
    agreement: float
    score_se: float


def point_score(
    predicted: Sequence[np.ndarray],
    previous: Sequence[np.ndarray] | None,
    points: Sequence[np.ndarray],
    plausible: Sequence[np.ndarray],
) -> PointScore:
    """Compute the point score, see the docstring of this module; the arguments are those of `point_table`."""
    return point_score_of(point_table(predicted, previous, points, plausible))


def point_table(
    predicted: Sequence[np.ndarray],
    previous: Sequence[np.ndarray] | None,
    points: Sequence[np.ndarray],
    plausible: Sequence[np.ndarray],
) -> np.ndarray:
    """The terms of the metrics by points, image by image: (images, 9) float64, columns `POINT_TERMS`.

    Args:
        predicted: (H,W) bool for each image.
        previous: the masks of the previous evaluation; None at the first.
        points: (P,2) int for each image, rows of (row, column).
        plausible: (P,) for each image, the areas in pixels of the seeds around its points.
    """
    table = np.zeros((len(predicted), len(POINT_TERMS)))
    for row, mask, own, areas in zip(table, predicted, points, plausible, strict=True):
        found, stray = _assign(mask, own)
        smaller, bigger = np.minimum(found, areas), np.maximum(found, areas)
        row[:2] = smaller.sum(), bigger.sum() + stray
        ratios = (smaller / np.maximum(bigger, 1))[found > 0]
        row[4:] = len(own), len(ratios), ratios.sum(), stray, mask.size
    for row, now, before in zip(table, predicted, previous or [], strict=bool(previous)):
        row[2:4] = np.count_nonzero(now & before), np.count_nonzero(now | before)
    return table


def point_score_of(table: np.ndarray) -> PointScore:
    """The point score of a `point_table`."""
    sums = table.sum(axis=0)
    names = {"score": "point_score"} | {name: f"point_{name}" for name in ("pd", "fa", "size", "agreement")}
    values = {name: float(metric_of(metric, POINT_TERMS, sums)) for name, metric in names.items()}
    return PointScore(**values, score_se=_standard_error(table))


@dataclass(frozen=True)
class PointMatches:
    """The 8-connected components of a predicted mask, and which of them the points of the image belong to.

    Attributes:
        labels: (H,W) int32, the number of the component of each pixel, from 1; 0 where nothing is predicted.
        areas: (C,) int64, in pixels, of the components 1..C.
        centroids: (C,2) float64, rows of (row, column).
        owners: (P,) int64, the number of each point's component; 0 for a point that is missed.
    """

    labels: np.ndarray
    areas: np.ndarray
    centroids: np.ndarray
    owners: np.ndarray


def match_points(mask: np.ndarray, points: np.ndarray) -> PointMatches:
    """Match the components of a predicted mask with points.

    A point belongs to the component that it lies in. A component without a point belongs to the nearest point without a
    component, if its centroid is closer than `MATCH_DISTANCE`; components take their turn in the order of OpenCV.

    Args:
        mask: (H,W) bool.
        points: (P,2) int, rows of (row, column).
    """
    _, labels, stats, means = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas, centroids = stats[1:, cv2.CC_STAT_AREA].astype(np.int64), means[1:, ::-1]
    owners = labels[points[:, 0], points[:, 1]].astype(np.int64)
    for component in np.setdiff1d(np.arange(1, len(areas) + 1), owners):
        free = np.flatnonzero(owners == 0)
        if not free.size:
            break
        gaps = np.hypot(*(points[free] - centroids[component - 1]).T)
        if gaps.min() < MATCH_DISTANCE:
            owners[free[gaps.argmin()]] = component
    return PointMatches(labels, areas, centroids, owners)


def _assign(mask: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """The area predicted for each point, (P,), and the area of components that belong to no point.

    Points of one component have equal shares of its area.
    """
    matches = match_points(mask, points)
    sharing = np.bincount(matches.owners, minlength=len(matches.areas) + 1)
    shares = np.concatenate([[0.0], matches.areas / np.maximum(sharing[1:], 1)])
    return shares[matches.owners], float(matches.areas[sharing[1:] == 0].sum())


def _standard_error(table: np.ndarray) -> float:
    """Bootstrap standard error of the score, of the images' rows (N,9); NaN for fewer than two images."""
    number = len(table)
    if number < 2:
        return math.nan
    drawn = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / number), size=ROUNDS)
    return float(metric_of("point_score", POINT_TERMS, drawn @ table).std(ddof=1))
