"""The pseudo-masks of a run are evolved and admitted image by image, in any order, in little memory."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from semprior.config.schema import unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.data.layout import Scene
from semprior.data.training_set import Seed, TrainingSet
from semprior.labels.crossfit_masks import crossfit_mask
from semprior.labels.evolve import evolve
from semprior.labels.pseudo_masks import PseudoMasks

SIDE = 256


def training_set(count, failed=()):
    """Images with one point; the seeds of the images `failed` consist of that point only."""
    image = np.zeros((SIDE, SIDE), np.uint8)
    scenes, seeds = [], []
    for number in range(count):
        mask = np.zeros((SIDE, SIDE), bool)
        row, column = 20 + number % 200, 30
        mask[row - 1 : row + 2, column : column + 2] = True
        scenes.append(Scene(f"image{number}", image, np.array([[row, column]])))
        seeds.append(Seed(mask, np.array([number not in failed])))
    clusters = np.zeros(count, np.int64)
    return TrainingSet(scenes, count - 2, 2, seeds, clusters, Normalisation(0.3, 0.1), IntensityRange(), [])


def teacher(data, index):
    probability = np.zeros((SIDE, SIDE), np.float32)
    row, column = data.scenes[index].points[0]
    probability[row - 2 : row + 2, column - 2 : column + 3] = 0.6 + 0.01 * (index % 10)
    return probability


CONFIG = unflatten(
    {
        "epochs": 10,
        "labels.refine": "evolve",
        "labels.pool": "reliable",
        "labels.evolve_after": 0.0,
        "labels.evolve_every": 1,
    }
)


def test_each_mask_evolves_and_a_hard_image_is_admitted_in_any_order():
    data = training_set(8, failed=(3,))
    found = []
    for order in (range(8), reversed(range(8))):
        masks = PseudoMasks.start(CONFIG, data)
        assert masks.members == [0, 1, 2, 4, 5]
        before = list(masks.soft)
        assert masks.predicted_by_teacher(1) == list(range(8))
        assert masks.update(1, ((index, teacher(data, index)) for index in order)) == 1
        assert masks.members == [0, 1, 2, 3, 4, 5]
        expected = [evolve(soft, teacher(data, index)) for index, soft in enumerate(before)]
        expected[3] = np.where(teacher(data, 3) > 0.5, 255, 0)
        assert all(np.array_equal(a, b) for a, b in zip(masks.soft, expected, strict=True))
        found.append(masks.stored())
    assert all(np.array_equal(array, found[1][name]) for name, array in found[0].items())


def test_without_evolution_hard_images_are_admitted_all_the_same():
    data = training_set(8, failed=(3,))
    masks = PseudoMasks.start(replace(CONFIG, labels=replace(CONFIG.labels, refine="none")), data)
    before = list(masks.soft)
    assert masks.predicted_by_teacher(0) == []
    assert masks.predicted_by_teacher(1) == masks.predicted_by_teacher(8) == [3]
    assert masks.predicted_by_teacher(9) == []  # too late to be admitted
    assert masks.update(1, [(3, teacher(data, 3))]) == 1
    assert masks.members == [0, 1, 2, 3, 4, 5]
    before[3] = np.where(teacher(data, 3) > 0.5, 255, 0)
    assert all(np.array_equal(a, b) for a, b in zip(masks.soft, before, strict=True))
    assert masks.predicted_by_teacher(2) == []  # the reserve is empty


def test_an_image_that_still_waits_at_the_end_is_not_predicted():
    masks = PseudoMasks.start(CONFIG, training_set(8, failed=(3,)))
    assert masks.predicted_by_teacher(8) == list(range(8))
    assert masks.predicted_by_teacher(9) == [0, 1, 2, 4, 5, 6, 7]


def test_memory_is_that_of_the_targets_and_not_of_the_images():
    data = training_set(300)
    tracemalloc.start()
    try:
        masks = PseudoMasks.start(CONFIG, data)
        for epoch in (1, 2):
            masks.update(epoch, ((index, teacher(data, index)) for index in range(300)))
        masks.restore(masks.stored())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300 * SIDE * SIDE / 6


def test_after_cross_fitting_masks_follow_the_image_and_the_teacher_and_hard_images_whose_points_it_found_train():
    data = training_set(8, failed=(3, 4))
    masks = PseudoMasks.start(replace(CONFIG, labels=replace(CONFIG.labels, refine="crossfit")), data)
    judged = [np.rint(255 * teacher(data, index)).astype(np.uint8) for index in range(8)]
    judged[4][:] = 0  # the teacher misses its point
    before = list(masks.soft)
    masks.start_from(judged)
    assert masks.members == [0, 1, 2, 3, 5]
    assert np.array_equal(masks.soft[3], np.where(judged[3] > 127, 255, 0))
    assert np.array_equal(masks.soft[4], before[4])
    for index in (0, 1, 2, 5, 6, 7):
        scene, probability = data.scenes[index], judged[index].astype(np.float32) / 255
        expected = crossfit_mask(scene.image, scene.points, before[index] > 127, probability)
        assert np.array_equal(masks.soft[index], np.where(expected, 255, 0))
    assert masks.predicted_by_teacher(1) == [4]  # masks do not evolve any more


def hard_config(refine):
    return replace(CONFIG, data=replace(CONFIG.data, hard_crops=0.5), labels=replace(CONFIG.labels, refine=refine))


@pytest.mark.parametrize("refine", ["none", "evolve", "crossfit"])
def test_false_alarms_add_up_and_are_kept_in_a_snapshot(refine):
    data = training_set(4)
    masks = PseudoMasks.start(hard_config(refine), data)
    assert not any(hard.any() for hard in masks.hard)
    if refine == "crossfit":
        judged = [np.rint(255 * teacher(data, index)).astype(np.uint8) for index in range(4)]
        judged[2][9, 250] = 255
        masks.start_from(judged)
        assert [np.argwhere(hard).tolist() for hard in masks.hard] == [[], [], [[9, 250]], []]
    assert masks.predicted_by_teacher(1) == [0, 1, 2, 3]
    for place in ((200, 200), (9, 9)):
        probabilities = [teacher(data, index) for index in range(4)]
        probabilities[1][place] = 0.9
        masks.update(1, enumerate(probabilities))
    expected = [[], [[9, 9], [200, 200]], [[9, 250]] if refine == "crossfit" else [], []]
    assert [np.argwhere(hard).tolist() for hard in masks.hard] == expected
    again = PseudoMasks.start(hard_config(refine), data)
    again.restore(masks.stored())
    assert all(np.array_equal(a, b) for a, b in zip(again.hard, masks.hard, strict=True))


def test_without_hard_crops_no_false_alarm_is_looked_for():
    masks = PseudoMasks.start(CONFIG, training_set(4))
    assert masks.hard is None and "hard.packed" not in masks.stored()
