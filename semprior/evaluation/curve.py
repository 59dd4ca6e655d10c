"""Pd against Fa over thresholds of the probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semprior.evaluation.breakdown import part_of
from semprior.evaluation.conventions import Convention
from semprior.evaluation.metrics import ImageCounts, Metrics, count_image

_TAIL = (0.001, 0.002, 0.005, 0.01, 0.02)
THRESHOLDS = (*_TAIL, *(round(0.05 * step, 2) for step in range(1, 20)), *(1 - low for low in reversed(_TAIL)))
"""Denser towards 0 and 1, where the probabilities of a trained network lie."""


@dataclass(frozen=True)
class CurvePoint:
    """The metrics at one threshold.

    Attributes:
        threshold: pixels of a strictly higher probability are predicted.
        metrics: over all images.
        errors: bootstrap standard errors of ``iou``, ``niou``, ``pd`` and ``fa``.
    """

    threshold: float
    metrics: Metrics
    errors: dict[str, float]


def count_thresholds(probability: np.ndarray, truth: np.ndarray, convention: Convention) -> list[ImageCounts]:
    """The counts of one image at each of `THRESHOLDS`.

    Args:
        probability: (H,W) float32.
        truth: (H,W) bool.
        convention: of the metrics.
    """
    return [count_image(probability > threshold, truth, convention.false_area) for threshold in THRESHOLDS]


def curve_of(counts: Sequence[Sequence[ImageCounts]], convention: Convention) -> list[CurvePoint]:
    """The curve over all images, of the counts of each by `count_thresholds`."""
    points = []
    for threshold, at in zip(THRESHOLDS, zip(*counts, strict=True), strict=True):
        part = part_of("", at, convention)
        points.append(CurvePoint(threshold, part.metrics, part.errors))
    return points
