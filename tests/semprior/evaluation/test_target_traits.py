"""Traits of targets: their definitions on made-up images, and the kinds of synthetic targets, which are known."""

import numpy as np
import pytest

from semprior.data.synthetic.scenes import synth_scene
from semprior.data.synthetic.targets import KINDS as DRAWN
from semprior.evaluation.target_traits import KINDS, TargetTraits, target_traits


def image_of(level, clutter, rise, box, shape=(60, 60)):
    """A checkerboard of `clutter` around `level`, and a box of pixels that differ by `rise`."""
    rows, columns = np.indices(shape)
    image = level + clutter * (1 - 2 * ((rows + columns) % 2))
    truth = np.zeros(shape, bool)
    truth[box] = True
    image[truth] = level + rise
    return image.astype(np.uint8), truth


@pytest.mark.parametrize("rise", [40, -40])
def test_contrast_is_the_signal_to_clutter_ratio(rise):
    (found,) = target_traits(*image_of(100, 8, rise, np.s_[30:33, 30:34]))
    assert found.size == 12
    assert found.clutter == pytest.approx(8, rel=1e-3)
    assert found.contrast == pytest.approx(5, rel=0.02)


def test_a_smooth_background_has_the_least_clutter():
    (found,) = target_traits(*image_of(100, 0, 7, np.s_[30:33, 30:33]))
    assert (found.contrast, found.clutter) == (7, 0)


def test_other_targets_and_spilt_light_are_not_surroundings():
    image, truth = image_of(100, 0, 50, np.s_[30:33, 30:33])
    image[28:35, 28:35][image[28:35, 28:35] == 100] = 120
    image[30:33, 38:41], truth[30:33, 38:41] = 250, True
    assert [target.contrast for target in target_traits(image, truth)] == [50, 150]


@pytest.mark.parametrize(
    ("shape", "elongation", "length"), [((1, 1), 1, 1), ((3, 3), 1, 3), ((2, 6), 3, 6), ((10, 2), 5, 10)]
)
def test_axes_of_rectangles(shape, elongation, length):
    box = np.s_[20 : 20 + shape[0], 20 : 20 + shape[1]]
    (found,) = target_traits(*image_of(100, 1, 50, box))
    assert found.elongation == pytest.approx(elongation)
    assert found.length == pytest.approx(length)


@pytest.mark.parametrize(
    ("truth", "size"), [(np.ones((5, 7), bool), 35), (np.eye(6, dtype=bool), 6), (np.eye(1, dtype=bool), 1)]
)
def test_targets_that_leave_no_surroundings(truth, size):
    (found,) = target_traits(np.full(truth.shape, 9, np.uint8), truth)
    assert (found.size, found.contrast) == (size, 0)


def test_an_empty_mask_has_no_targets():
    assert target_traits(np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)) == []


@pytest.mark.parametrize(
    ("traits", "kind"),
    [
        (TargetTraits(30, 90, 9, 10, 1.2, 6), "salient"),
        (TargetTraits(20, 90, 9, 10, 2, 6), "filamentary"),
        (TargetTraits(3, 90, 9, 10, 3, 3), "salient"),  # three pixels in a row are no filament
        (TargetTraits(20, 15, 4.9, 3.1, 1, 5), "faint"),
        (TargetTraits(20, 14.9, 14.9, 0.5, 1, 5), "faint"),  # ten times the noise, but hardly visible
        (TargetTraits(20, 19.6, 4.9, 4, 1, 5), "camouflaged"),
    ],
)
def test_kinds(traits, kind):
    assert traits.kind == kind


BELONGS = {"salient": "sky", "filamentary": "clouds", "faint": "sky", "camouflaged": "treetops"}


@pytest.mark.parametrize("kind", KINDS)
def test_synthetic_targets_are_of_the_kind_that_was_drawn(kind):
    assert set(DRAWN) == set(BELONGS) == set(KINDS)
    found = []
    for seed in range(20):
        scene = synth_scene(np.random.default_rng(seed), (96, 128), background=BELONGS[kind], kinds=[kind])
        found += [target.kind for target in target_traits(scene.image, scene.mask)]
    assert len(found) >= 15
    assert np.mean([one == kind for one in found]) >= 0.85, found
