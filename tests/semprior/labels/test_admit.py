"""Admission against a slow reference implementation of the method, and its limits one by one."""

import numpy as np
import pytest
from scipy import ndimage

from semprior.labels.admit import admission_threshold, admit, fill_holes

EIGHT = np.ones((3, 3), bool)


def plain_admit(probability, points, epoch):
    """The reference, for 300 epochs. Holes are background from which no 4-connected path leads out of the image."""
    components, count = ndimage.label(probability > 0.5, EIGHT)
    filled = [ndimage.binary_fill_holes(components == number) for number in range(1, count + 1)]
    outer = [
        region
        for i, region in enumerate(filled)
        if not any((region <= other).all() for j, other in enumerate(filled) if j != i)
    ]
    holders = [[region for region in outer if region[tuple(point)]] for point in points]
    covered = sum(map(bool, holders))
    if (len(points) - covered) / len(points) > 0.2 + 0.8 * (epoch - 59) / (0.8 * 300 - 60):
        return None
    if (len(outer) - covered) / len(points) > 5:
        return None
    mask = np.zeros(probability.shape, np.uint8)
    for point, regions in zip(points, holders, strict=True):
        mask[tuple(point)] = 255
        for region in regions:
            mask[region] = 255
    return mask


def test_equals_the_reference():
    admitted = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(5, 60, 2))
        field = ndimage.gaussian_filter(rng.random(shape), rng.choice([0.5, 1, 2]))
        probability = ((field - field.min()) / (np.ptp(field) + 1e-9)).astype(np.float32) ** rng.choice([0.7, 1.5])
        points = rng.integers(0, shape, (rng.integers(1, 4), 2))
        epoch = int(rng.integers(13, 49)) * 5
        ours = admit(probability, points, admission_threshold(epoch, 60, 240.0))
        theirs = plain_admit(probability, points, epoch)
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            np.testing.assert_array_equal(ours, theirs)
            admitted += 1
    assert 30 < admitted < 140


def blocks(corners, shape=(60, 60), side=3):
    probability = np.zeros(shape, np.float32)
    for row, column in corners:
        probability[row : row + side, column : column + side] = 0.9
    return probability


def test_holes_are_filled_with_the_components_in_them():
    probability = blocks([(10, 10)], side=9)
    probability[12:17, 12:17] = 0.1
    probability[14, 14] = 0.9  # an island in the hole, not a component
    mask = admit(probability, np.array([[12, 12]]), 0.0)
    assert mask[10:19, 10:19].all()
    assert np.count_nonzero(mask) == 81


def test_a_ring_of_diagonal_steps_is_closed():
    ring = np.zeros((7, 7), bool)
    ring[[2, 3, 3, 4], [3, 2, 4, 3]] = True
    assert fill_holes(ring)[3, 3]
    ring[2, 3] = False
    assert not fill_holes(ring)[3, 3]


def test_a_bay_at_the_border_is_not_a_hole():
    mask = np.zeros((6, 6), bool)
    mask[0:4, [0, 3]] = mask[3, 0:4] = True
    np.testing.assert_array_equal(fill_holes(mask), mask)


@pytest.mark.parametrize("allowed, enters", [(0.5, True), (0.49, False)])
def test_the_share_of_missed_points(allowed, enters):
    points = np.array([[11, 11], [40, 40]])
    mask = admit(blocks([(10, 10), (25, 25)]), points, allowed)
    assert (mask is not None) == enters
    if enters:
        assert np.count_nonzero(mask) == 10  # the covered block and the missed point; the false one is left out
        assert mask[40, 40] == 255


@pytest.mark.parametrize("false, enters", [(10, True), (11, False)])
def test_at_most_five_false_components_per_point(false, enters):
    corners = [(2 + 5 * (i % 10), 30 + 5 * (i // 10)) for i in range(false)]
    probability = blocks([(10, 10), (20, 10), *corners])
    assert (admit(probability, np.array([[11, 11], [21, 11]]), 0.0) is not None) == enters


def test_covered_points_are_counted_not_components():
    probability = blocks([(10, 10)], side=8)
    points = np.array([[11, 11], [16, 16]])
    assert np.count_nonzero(admit(probability, points, 0.0)) == 64


def test_one_half_is_not_above_one_half():
    assert admit(np.full((8, 8), 0.5, np.float32), np.array([[4, 4]]), 0.9) is None


def test_an_image_without_points_enters_empty():
    mask = admit(np.ones((8, 8), np.float32), np.zeros((0, 2), np.int64), 0.2)
    assert mask is not None
    assert not mask.any()


def test_the_published_threshold():
    for epoch in range(65, 245, 5):
        assert admission_threshold(epoch, 60, 240.0) == pytest.approx(0.2 + 0.8 * (epoch - 59) / 180)


@pytest.mark.parametrize("epochs", [1, 2, 5, 10, 30, 300])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.8, 1.0])
def test_the_threshold_rises_in_every_schedule(epochs, share):
    start, end = round(share * epochs), 0.8 * epochs
    values = [admission_threshold(epoch, start, end) for epoch in range(start, epochs + 1)]
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()
    assert values[0] >= 0.2
