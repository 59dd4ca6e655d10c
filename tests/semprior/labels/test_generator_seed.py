"""The generator of masks: how well it draws what it has not seen, and its limits."""

import cv2
import numpy as np
import pytest

from semprior.data.layout import Scene, find_layout, intensity_range, read_scenes
from semprior.data.points import coarse_points
from semprior.data.synthetic.windows import draw_background, draw_window
from semprior.evaluation.metrics import count_image, summarise
from semprior.labels import generator_seed as module
from semprior.labels.generator_seed import generator_regions
from semprior.labels.seeds import contrast_seed, generator_seeds


def generator_seed(image, points):
    return next(generator_seeds([Scene("", image, points)], {}))


def overlap(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def ellipse(shape, centre, axes, angle=0.0):
    canvas = np.zeros(shape, np.uint8)
    cv2.ellipse(canvas, centre[::-1], axes, angle, 0, 360, 1, -1)
    return canvas > 0


def test_made_up_targets_are_drawn_better_than_by_contrast():
    rng = np.random.default_rng(77)  # not of the windows that it learnt from
    background = draw_background(rng, 160)
    windows = [draw_window(rng, background, 97) for _ in range(40)]
    point = np.array([[48, 48]])
    drawn = np.mean([overlap(generator_seed(w.image, point).mask, w.mask) for w in windows])
    contrast = np.mean([overlap(contrast_seed(w.image, point).mask, w.mask) for w in windows])
    assert drawn > 0.6
    assert drawn > contrast


@pytest.mark.parametrize("axes", [(3, 2), (9, 5), (18, 11)])
def test_targets_of_several_sizes(axes):
    mask = ellipse((160, 180), (80, 90), axes, 25)
    image = cv2.GaussianBlur(np.where(mask, 170.0, 70.0), (0, 0), 0.8)
    image = np.clip(image + np.random.default_rng(0).normal(0, 2, mask.shape), 0, 255).astype(np.uint8)
    assert overlap(generator_seed(image, np.array([[80, 90]])).mask, mask) > 0.75


def test_touching_targets_have_separate_regions():
    rows, columns = np.mgrid[:64, :80]
    spots = [np.exp(-((rows - 30) ** 2 + (columns - column) ** 2) / 6.5) for column in (36, 43)]
    image = (60 + 100 * spots[0] + 60 * spots[1]).astype(np.uint8)
    first, second = generator_regions(image, np.array([[30, 36], [30, 43]]))
    masks = np.zeros((2, 64, 80), bool)
    for mask, (place, region) in zip(masks, (first, second), strict=True):
        mask[place] = region
    assert masks[0][30, 36] and masks[1][30, 43]
    assert not (masks[0] & masks[1]).any()


@pytest.mark.parametrize(("coarse", "least"), [(False, 0.77), (True, 0.76)])
def test_real_targets(sirst, coarse, least):
    layout = find_layout(sirst)
    intensity = intensity_range(layout)
    scenes = [s for split in ("train", "val") for s in read_scenes(layout, split, intensity, masks="optional")]
    counts = []
    for index, scene in enumerate(scenes[::3]):
        points = coarse_points(scene.mask, index) if coarse else scene.points
        counts.append(count_image(generator_seed(scene.image, points).mask, scene.mask))
    assert summarise(counts).niou > least  # image by image, so that one large target does not decide


def test_the_contrast_decides_where_the_generator_is_in_doubt(monkeypatch):
    image, point = np.full((100, 120), 60, np.uint8), np.array([[50, 20]])
    image[48:53, 18:23] = 160
    drawn = np.zeros((1, 65, 65), np.float32)
    drawn[0, 28:37, 28:37] = 0.55  # around the target
    drawn[0, 30:35, 30:35] = 0.45
    drawn[0, 31:34, 31:34] = 0.9
    drawn[0, 20:45, 40] = 0.95  # where the generator is sure, it needs nobody's word; but this touches no target
    monkeypatch.setattr(module, "draw_probabilities", lambda network, windows: drawn.copy())
    (found,) = generator_regions(image, point)
    mask = np.zeros(image.shape, bool)
    mask[found[0]] = found[1]
    assert np.array_equal(mask, image > 100)
    monkeypatch.setattr(module, "contrast_region", lambda *arguments: None)
    (found,) = generator_regions(image, point)
    alone = np.zeros(image.shape, bool)
    alone[found[0]] = found[1]
    assert np.count_nonzero(alone) == 9 and not (alone & ~mask).any()
