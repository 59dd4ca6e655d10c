"""Windows around made-up targets, whose masks are known."""

import cv2
import numpy as np
import pytest

from semprior.data.synthetic.silhouettes import draw_silhouette
from semprior.data.synthetic.windows import LARGEST, SMALLEST, draw_background, draw_window

SIDE = 65


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    background = draw_background(rng, 128)
    return [draw_window(rng, background, SIDE) for _ in range(60)]


def test_the_point_in_the_middle_is_of_the_target_or_amid_it(drawn):
    for window in drawn:
        assert window.image.shape == window.mask.shape == (SIDE, SIDE)
        assert window.image.dtype == np.uint8
        near = window.mask[SIDE // 2 - 4 : SIDE // 2 + 5, SIDE // 2 - 4 : SIDE // 2 + 5]
        assert near.any()  # the centroid of a bent target may lie beside it


def test_masks_are_one_piece_of_a_size(drawn):
    for window in drawn:
        assert SMALLEST <= np.count_nonzero(window.mask) <= 2 * LARGEST
        assert cv2.connectedComponents(window.mask.view(np.uint8), connectivity=8)[0] == 2


def test_a_target_stands_out_from_what_is_around_it(drawn):
    inner = [window.image[window.mask].mean() for window in drawn]
    rims = [cv2.dilate(window.mask.view(np.uint8), np.ones((7, 7), np.uint8)) > 0 for window in drawn]
    outer = [window.image[rim & ~window.mask].mean() for window, rim in zip(drawn, rims, strict=True)]
    assert np.median(np.abs(np.subtract(inner, outer))) > 10
    assert np.mean(np.greater(inner, outer)) > 0.8  # most are bright


def test_equal_seeds_give_equal_windows():
    def draw():
        rng = np.random.default_rng(5)
        return draw_window(rng, draw_background(rng, 96), SIDE)

    one, other = draw(), draw()
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.mask, other.mask)


@pytest.mark.parametrize("area", [4, 30, 300])
def test_a_silhouette_has_its_area(area):
    rng = np.random.default_rng(0)
    covered = np.array([draw_silhouette(rng, area, 81).sum() for _ in range(60)])
    assert np.median(covered) == pytest.approx(area, rel=0.25)
