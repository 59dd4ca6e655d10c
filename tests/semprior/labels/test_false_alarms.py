"""False alarms: where a teacher fires, and never near a point or a pseudo-mask."""

import numpy as np
import pytest

from semprior.labels.false_alarms import AWAY, FIRES, false_alarms


@pytest.mark.parametrize("seed", range(5))
def test_they_are_the_pixels_far_from_every_point_and_mask(seed):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 60, (seed, 2))
    mask = rng.random((60, 70)) < 0.0005 * seed
    probability = np.where(rng.random((60, 70)) < 0.3, rng.random((60, 70)), 0).astype(np.float32)
    found = false_alarms(probability, points, mask)
    apart = [*points.tolist(), *np.argwhere(mask).tolist()]
    rows, columns = np.mgrid[:60, :70]
    far = np.array([np.hypot(rows - row, columns - column) >= AWAY for row, column in apart]).all(axis=0)
    assert np.array_equal(found, (probability > FIRES) & far)
    assert found.any()


def test_a_teacher_that_is_right_makes_none():
    probability = np.zeros((40, 40), np.float32)
    probability[10:14, 10:14] = 1
    assert not false_alarms(probability, np.array([[11, 11]]), probability > 0.5).any()
    assert false_alarms(probability, np.zeros((0, 2), int), np.zeros((40, 40), bool)).sum() == 16
