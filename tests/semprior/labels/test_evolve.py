"""Evolution against a slow reference implementation on whole images, and its properties one by one."""

import sys

import numpy as np
import pytest
from scipy import ndimage

from semprior.config.epochs import evolution_due
from semprior.labels.evolve import evolve
from tests.repository import ROOT

EIGHT = np.ones((3, 3), bool)


def plain_evolve(soft, probability):
    height, width = soft.shape
    q, p = soft / 255, probability.astype(np.float64)
    grown = np.zeros(soft.shape, bool)
    regions, count = ndimage.label(q > 0.5, EIGHT)
    rows, columns = np.indices(soft.shape)
    for number in range(1, count + 1):
        region = regions == number
        row, column = int(rows[region].mean()), int(columns[region].mean())
        inside = (abs(rows - row) <= 16) & (abs(columns - column) <= 16)
        highest = p[inside].max()
        threshold = 0.5 * highest + 0.5 * (highest - 0.5 * highest) * region.sum() / (0.0015 * height * width)
        parts, _ = ndimage.label(inside & (p > threshold), EIGHT)
        touched = set(parts[(abs(rows - row) <= 1) & (abs(columns - column) <= 1)]) - {0}
        grown |= np.isin(parts, list(touched))
    evolved = np.rint(255 * np.where(grown, (q + p) / 2, 0.97 * q)).astype(np.uint8)
    evolved[soft == 255] = 255
    return evolved


def random_pair(seed):
    """A soft mask with permanent, target and fading pixels, some at the border, and a smooth probability."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(6, 110, 2))

    def smooth(sigma):
        field = ndimage.gaussian_filter(rng.random(shape), sigma)
        return (field - field.min()) / (np.ptp(field) + 1e-9)

    field = smooth(rng.choice([0.6, 1.5, 3]))
    soft = np.where(field > rng.choice([0.5, 0.8, 0.95]), 255 * field, 120 * rng.random(shape) ** 3)
    soft[rng.random(shape) < 0.002] = 255
    return soft.astype(np.uint8), (smooth(rng.choice([0.8, 2])) ** rng.choice([0.5, 2, 6])).astype(np.float32)


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_reference(seed):
    soft, probability = random_pair(seed)
    before = soft.copy()
    np.testing.assert_array_equal(evolve(soft, probability), plain_evolve(soft, probability))
    np.testing.assert_array_equal(soft, before)


def test_equals_the_plain_path_of_the_benchmarks():
    sys.path.insert(0, str(ROOT))
    from benchmarks.plain import labels

    for seed in range(60, 80):
        soft, probability = random_pair(seed)
        np.testing.assert_array_equal(evolve(soft, probability), labels.evolve(soft, probability))


def spot(shape, row, column, value=1.0, radius=2):
    field = np.zeros(shape, np.float32)
    field[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1] = value
    return field


def test_grows_where_the_teacher_sees_the_target_and_fades_elsewhere():
    soft = np.zeros((200, 200), np.uint8)
    soft[100, 100], soft[30, 30] = 255, 60
    evolved = evolve(soft, spot(soft.shape, 100, 100, 0.9) + spot(soft.shape, 30, 30, 1.0))
    assert evolved[100, 100] == 255
    assert evolved[98, 102] == np.rint(255 * 0.9 / 2)
    assert evolved[30, 30] == np.rint(60 * 0.97)  # what is below one half draws nothing in
    assert np.count_nonzero(evolved) == 26


@pytest.mark.parametrize("distance, reached", [(15, True), (17, False)])
def test_the_peak_is_that_of_the_square(distance, reached):
    soft = np.zeros((200, 200), np.uint8)
    soft[100, 100] = 255
    probability = spot(soft.shape, 100, 100, 0.4)
    probability[100, 100 + distance] = 1.0  # raises the threshold above 0.4 if it is in the square
    assert (evolve(soft, probability)[98, 98] == 0) == reached


def test_components_are_formed_inside_the_square():
    soft = np.zeros((200, 200), np.uint8)
    soft[100, 100] = 255
    probability = spot(soft.shape, 100, 100, 0.9)
    probability[100, 110:150] = probability[90:101, 149] = 0.9  # apart from the spot
    probability[100, 103:111] = 0.9  # a bridge to it
    evolved = evolve(soft, probability)
    assert evolved[100, 116] > 0
    assert evolved[100, 117] == evolved[95, 149] == 0


def test_a_component_must_touch_the_nine_pixels_at_the_centroid():
    soft = np.zeros((200, 200), np.uint8)
    soft[100, 100] = 255
    near, far = spot(soft.shape, 102, 102, 0.9, 1), spot(soft.shape, 103, 103, 0.9, 1)
    assert evolve(soft, near)[103, 103] > 0
    assert evolve(soft, far)[103, 103] == 0


@pytest.mark.parametrize("height, grown", [(1, 35), (3, 35), (4, 1), (5, 0)])
def test_the_larger_the_region_the_higher_the_threshold(height, grown):
    soft = np.zeros((100, 100), np.uint8)
    soft[50 : 50 + height, 50:57] = 200
    row, column = 50 + (height - 1) // 2, 53
    probability = spot(soft.shape, row, column, 0.8, 2)
    probability[row - 2 : row + 3, column - 3] = probability[row - 2 : row + 3, column + 3] = 0.8
    probability[row, column] = 0.9
    # Thresholds: 0.5 + 0.25 area / 15 of the peak; 0.8 is 0.89 of it, 21 pixels make 0.85, 28 make 0.97, 35 make 1.08.
    faded = np.rint(0.97 * soft.astype(float))
    assert np.count_nonzero(evolve(soft, probability) != faded) == grown


def test_permanent_pixels_never_change():
    soft, probability = random_pair(3)
    permanent = soft == 255
    assert permanent.any()
    for _ in range(50):
        soft = evolve(soft, np.zeros_like(probability))
    assert np.array_equal(soft > 127, permanent)


def test_ties_round_to_even():
    soft = np.full((4, 4), 50, np.uint8)  # 48.5
    assert (evolve(soft, np.zeros((4, 4), np.float32)) == 48).all()


def test_nothing_grows_from_an_empty_mask():
    assert not evolve(np.zeros((9, 12), np.uint8), np.ones((9, 12), np.float32)).any()


def test_published_epochs():
    due = [epoch for epoch in range(300) if evolution_due(epoch, start=60, every=5)]
    assert due == list(range(65, 300, 5))
