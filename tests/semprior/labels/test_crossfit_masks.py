"""Pseudo-masks after cross-fitting: a teacher that has not seen the image proposes, the image decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semprior.labels.crossfit_masks import crossfit_mask

SIDE = 64
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
POINT = np.array([[30, 33]])


def disc(radius, row=30, column=33):
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= radius**2


def image(target, level=200.0):
    noise = np.random.default_rng(0).normal(60, 3, (SIDE, SIDE))
    return np.where(target, level, noise).astype(np.uint8)


def smooth(radius, row=30, column=33, peak=0.9):
    """A teacher whose probability falls off from the centre and is half of its peak at `radius`."""
    distance = np.hypot(ROWS - row, COLUMNS - column)
    return (peak / (1 + np.exp(distance - radius))).astype(np.float32)


@pytest.mark.parametrize("first", [disc(2), disc(7)])
def test_a_first_mask_that_is_too_small_or_too_large_gives_way(first):
    target = disc(5)
    found = crossfit_mask(image(target), POINT, first, smooth(5))
    assert np.count_nonzero(found ^ target) < 0.2 * np.count_nonzero(first ^ target)


def test_a_first_mask_that_fits_the_image_stays_whatever_the_teacher_says():
    target = disc(5)
    for radius in (2, 8):
        assert np.array_equal(crossfit_mask(image(target), POINT, target, smooth(radius)), target)


def test_a_dark_target_is_like_a_bright_one():
    target = disc(5)
    found = crossfit_mask(image(target, 5.0), POINT, disc(2), smooth(5))
    assert np.count_nonzero(found ^ target) <= 8


@pytest.mark.parametrize("probability", [np.zeros((SIDE, SIDE), np.float32), smooth(4, 10, 10)])
def test_a_target_that_the_teacher_does_not_find_keeps_its_mask(probability):
    assert np.array_equal(crossfit_mask(image(disc(5)), POINT, disc(3), probability), disc(3))


def test_no_point_no_mask():
    assert not crossfit_mask(image(disc(5)), np.zeros((0, 2), int), np.zeros((SIDE, SIDE), bool), smooth(5)).any()


def test_a_box_is_never_left():
    boxes = np.array([[28, 30, 33, 37]])
    found = crossfit_mask(image(disc(6)), POINT, disc(1), smooth(6), boxes)
    assert found[28:33, 30:37].all() and np.count_nonzero(found) == 5 * 7


def test_neighbours_do_not_take_each_others_pixels():
    points = np.array([[30, 28], [30, 38]])
    target = disc(4, 30, 28) | disc(4, 30, 38)
    first = disc(4, 30, 28) | disc(1, 30, 38)
    found = crossfit_mask(image(target), points, first, np.maximum(smooth(4, 30, 28), smooth(4, 30, 38)))
    assert np.count_nonzero(found ^ target) <= 8


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_every_point_is_in_the_mask_and_nothing_is_far_from_all(seed, count):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, SIDE, (count, 2))
    first = rng.random((SIDE, SIDE)) < 0.1
    first[points[:, 0], points[:, 1]] = True
    found = crossfit_mask(
        rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8),
        points,
        first,
        rng.random((SIDE, SIDE)).astype(np.float32),
    )
    assert found[points[:, 0], points[:, 1]].all()
    rows, columns = np.nonzero(found)
    gaps = np.maximum(abs(rows[:, None] - points[:, 0]), abs(columns[:, None] - points[:, 1]))
    assert not gaps.size or gaps.min(axis=1).max() <= 16
