"""The threshold that points choose."""

import numpy as np
import pytest

from semprior.evaluation.point_score import point_score
from semprior.evaluation.threshold import CHOICES, best_threshold, threshold_in_words, threshold_terms
from tests.semprior.evaluation.test_point_score import AREAS, POINTS, TRUTHS


def probabilities(inside, outside):
    """Of targets and of false alarms, the same in every image."""
    maps = [np.where(truth, np.float32(inside), np.float32(0)) for truth in TRUTHS]
    for probability in maps:
        probability[:4, :4] = outside
    return maps


def chosen(maps):
    return best_threshold(map(threshold_terms, maps, POINTS, AREAS))


@pytest.mark.parametrize(
    ("inside", "outside", "best"),
    [
        (0.9, 0.1, 0.5),  # all from .1 to .85 are equal
        (0.9, 0.62, 0.65),
        (0.42, 0.0, 0.4),
        (0.37, 0.33, 0.35),
        (0.0, 0.0, 0.5),  # nothing is ever found
    ],
)
def test_it_is_the_one_with_the_best_point_score_nearest_to_one_half(inside, outside, best):
    maps = probabilities(inside, outside)
    assert chosen(maps) == best
    scores = {t: point_score([m > t for m in maps], None, POINTS, AREAS).score for t in CHOICES}
    assert scores[best] == max(scores.values())


def test_without_images_it_is_one_half():
    assert best_threshold([]) == 0.5


def test_it_is_stated():
    assert threshold_in_words(0.35, chosen=True) == "threshold 0.35, chosen on held-out images"
    assert threshold_in_words(0.35, chosen=False) == "threshold 0.35"
    assert threshold_in_words(0.5, chosen=True) == "threshold 0.5"
