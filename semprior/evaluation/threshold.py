"""The threshold of the probability that suits the held-out images, chosen by points alone.

A target is where the probability exceeds a threshold: 0.5, as published, unless a run has chosen another one by the
point score of its held-out images. The agreement with earlier evaluations has no part in the choice: these were made at
0.5.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from semprior.evaluation.image_sums import POINT_TERMS, metric_of
from semprior.evaluation.metrics import THRESHOLD
from semprior.evaluation.point_score import point_table

CHOICES = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""The thresholds to choose from. Beyond them the rounding of bfloat16 and int8 decides on pixels."""


def threshold_terms(probability: np.ndarray, points: np.ndarray, plausible: np.ndarray) -> np.ndarray:
    """The terms of the point score of one image at each of `CHOICES`: (19, 9) float64, columns `POINT_TERMS`.

    Args:
        probability: (H,W) float32.
        points: (P,2) int, rows of (row, column).
        plausible: (P,) areas in pixels, as for `point_table`.
    """
    number = len(CHOICES)
    masks = [probability > threshold for threshold in CHOICES]
    return point_table(masks, None, [points] * number, [plausible] * number)


def threshold_in_words(threshold: float, *, chosen: bool) -> str:
    """How a threshold is stated: ``threshold 0.35, chosen on held-out images``.

    Args:
        threshold: of the probability.
        chosen: whether it comes from the run, and not from the command line.
    """
    return f"threshold {threshold:g}" + (", chosen on held-out images" if chosen and threshold != THRESHOLD else "")


def best_threshold(terms: Iterable[np.ndarray]) -> float:
    """The threshold with the highest point score over images; of equal ones the nearest to 0.5.

    Args:
        terms: of each image, as `threshold_terms` returns them; without images the threshold is 0.5.
    """
    sums = np.zeros((len(CHOICES), len(POINT_TERMS)))
    for table in terms:
        sums += table
    scores = metric_of("point_score", POINT_TERMS, sums)
    best = np.flatnonzero(scores == scores.max())
    return min((CHOICES[index] for index in best), key=lambda choice: (abs(choice - THRESHOLD), choice))
