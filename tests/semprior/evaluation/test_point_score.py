"""The point score is low for bad predictions, without any mask."""

import numpy as np
import pytest

from semprior.evaluation.point_score import point_score


def scene(seed, size=96, targets=2):
    rng = np.random.default_rng(seed)
    points = np.stack([rng.integers(10, 40, targets) + [0, 45][:targets], rng.integers(10, size - 10, targets)], 1)
    rows, columns = np.mgrid[:size, :size]
    truth = np.zeros((size, size), bool)
    for row, column in points:
        truth |= (rows - row) ** 2 + (columns - column) ** 2 <= 6
    return points, truth


SCENES = [scene(seed) for seed in range(6)]
POINTS = [points for points, _ in SCENES]
TRUTHS = [truth for _, truth in SCENES]
AREAS = [np.full(len(points), 21.0) for points in POINTS]


def trained():
    """Most targets found, some masks a little off, one false alarm."""
    masks = [truth.copy() for truth in TRUTHS]
    masks[0][POINTS[0][0, 0] - 4 : POINTS[0][0, 0] + 5, POINTS[0][0, 1] - 4 : POINTS[0][0, 1] + 5] = False
    masks[1] |= np.roll(masks[1], 1, axis=0)
    masks[2][0:3, 0:3] = True
    return masks


def scored(masks, previous=None):
    return point_score(masks, previous, POINTS, AREAS)


def test_perfect_and_steady_masks_score_one():
    score = scored(TRUTHS, TRUTHS)
    assert (score.score, score.pd, score.fa, score.size, score.agreement) == (1, 1, 0, 1, 1)


def _speckle(seed):
    rng = np.random.default_rng(seed)
    return [rng.random(truth.shape) > 0.98 for truth in TRUTHS]


def _whole():
    return [np.ones_like(truth) for truth in TRUTHS]


def _empty():
    return [np.zeros_like(truth) for truth in TRUTHS]


def _frozen():
    """The same blob on every image."""
    mask = np.zeros_like(TRUTHS[0])
    mask[30:50, 30:50] = True
    return [mask] * len(TRUTHS)


@pytest.mark.parametrize(
    ("masks", "before"),
    [
        (_empty(), _empty()),
        (_whole(), _whole()),
        (_frozen(), _frozen()),
        (_speckle(0), _speckle(1)),
        (_speckle(0),) * 2,
    ],
    ids=["empty", "whole image", "frozen", "speckle", "frozen speckle"],
)
def test_trivial_predictions_score_below_a_trained_detector(masks, before):
    first = scored(trained()).score  # even at its first evaluation, without an agreement
    assert scored(masks, before).score < first / 2
    assert scored(trained(), TRUTHS).score > first


def test_each_kind_of_error_lowers_the_score():
    best = scored(TRUTHS, TRUTHS).score
    missed = [TRUTHS[0] & False, *TRUTHS[1:]]
    alarm = [truth.copy() for truth in TRUTHS]
    alarm[3][:4, :4] = True
    grown = [truth | np.roll(truth, 1, 0) | np.roll(truth, -1, 0) | np.roll(truth, 1, 1) for truth in TRUTHS]
    shrunk = [truth & np.roll(truth, 1, 0) & np.roll(truth, -1, 0) for truth in TRUTHS]
    for masks in (missed, alarm, grown, shrunk):
        assert scored(masks, masks).score < best
    assert scored(TRUTHS, grown).score < best
    assert scored(alarm, alarm).fa == pytest.approx(1e6 * 16 / sum(truth.size for truth in TRUTHS))
    assert scored(missed, missed).pd == pytest.approx(10 / 12)


def test_a_point_beside_its_component_is_found_within_three_pixels():
    near, far = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    near[10:13, 10:13], far[10:13, 10:13] = True, True
    points = [np.array([[11, 13]]), np.array([[11, 15]])]
    areas = [np.array([9.0])] * 2
    scores = [point_score([m], None, [p], [a]) for m, p, a in zip((near, far), points, areas, strict=True)]
    assert [score.pd for score in scores] == [1, 0]
    assert scores[1].fa > 0 == scores[0].fa


def test_points_that_share_a_component_share_its_area():
    mask = np.zeros((40, 40), bool)
    mask[10:14, 10:20] = True
    points = [np.array([[11, 11], [12, 18]])]
    assert point_score([mask], [mask], points, [np.array([20.0, 20.0])]).score == 1


def test_the_standard_error_is_that_of_drawing_other_images():
    masks = trained()
    drawn = np.random.default_rng(1).integers(0, len(masks), (2000, len(masks)))
    scores = [
        point_score(*([items[i] for i in row] for items in (masks, TRUTHS, POINTS, AREAS))).score for row in drawn
    ]
    assert scored(masks, TRUTHS).score_se == pytest.approx(np.std(scores), rel=0.15)
    assert scored(masks, TRUTHS).score_se == scored(masks, TRUTHS).score_se
    assert scored(TRUTHS, TRUTHS).score_se == pytest.approx(0, abs=1e-12)
    assert np.isnan(point_score(masks[:1], None, POINTS[:1], AREAS[:1]).score_se)  # one image does not tell


def test_an_image_without_points_only_counts_its_false_alarms():
    mask = np.zeros((20, 20), bool)
    none = [np.zeros((0, 2), int)]
    assert point_score([mask], None, none, [np.zeros(0)]).fa == 0
    mask[3:5, 3:5] = True
    assert point_score([mask], None, none, [np.zeros(0)]).fa == pytest.approx(1e6 * 4 / 400)
