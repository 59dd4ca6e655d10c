"""Choosing the best epoch: by what was asked for, later of equals, whatever is not defined."""

import numpy as np
import pytest

from benchmarks.plain.metrics import best_epoch
from semprior.config.schema import unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.data.layout import Scene
from semprior.data.training_set import TrainingSet
from semprior.evaluation.image_sums import METRICS, metric_of
from semprior.labels.seeds import contrast_seed
from semprior.training.epoch_selection import Selector
from tests.tiny import LEVEL


def scene(number, targets=1):
    image, mask = np.full((40, 48), 60, np.uint8), np.zeros((40, 48), bool)
    points = np.array([[12 + number, 20]] * targets, np.int64).reshape(-1, 2)
    for row, column in points:
        mask[row - 1 : row + 2, column - 1 : column + 2] = True
    image[mask] = LEVEL + 90
    return Scene(f"image{number}", image, points, mask)


def selector(by, targets=1, count=3, preset="standard"):
    held = [scene(number, targets) for number in range(count)]
    seeds = [contrast_seed(s.image, s.points) for s in held]
    clusters, normal = np.zeros(count, np.int64), Normalisation(0.3, 0.1)
    training_set = TrainingSet(held, 0, 0, seeds, clusters, normal, IntensityRange(), [])
    config = unflatten({"preset": preset, "select.by": by, "data.holdout": 0.15 if count else 0.0})
    return Selector(config, training_set), [s.mask for s in held]


@pytest.mark.parametrize("by", ["point_score", "holdout/iou"])
def test_the_best_so_far_is_told_and_of_equals_the_later(by):
    chosen, right = selector(by)
    nothing = [np.zeros_like(mask) for mask in right]
    partly = [right[0], *nothing[1:]]
    best = [chosen.score(epoch, masks, masks).best for epoch, masks in enumerate((nothing, right, partly))]
    assert best == [True, True, False]
    assert chosen.best_epoch == 1
    assert chosen.score(3, right, right).best  # as good by masks; by points better, for it agrees with the one before
    assert chosen.best_epoch == 3


def test_the_terms_of_the_images_give_the_metrics():
    chosen, right = selector("point_score")
    partly = [right[0], np.zeros_like(right[1]), np.roll(right[2], 1)]
    for epoch, masks in enumerate((right, partly)):
        scores = chosen.score(epoch, masks, right)
    images = scores.images
    assert images.names == ("image0", "image1", "image2")
    sums = images.table.astype(float).sum(0)
    for who in ("", "teacher/"):
        for metric in METRICS:
            expected = scores.flat[f"holdout/{who}{metric}"]
            assert metric_of(f"{who}{metric}", images.terms, sums) == pytest.approx(expected, rel=1e-6)
    assert scores.flat["holdout/iou"] != scores.flat["holdout/teacher/iou"]


def test_the_teacher_has_no_say():
    chosen, right = selector("holdout/iou")
    nothing = [np.zeros_like(mask) for mask in right]
    assert chosen.score(0, right, nothing).best
    assert not chosen.score(1, nothing, right).best


def test_an_iou_that_is_not_defined_does_not_stay_the_best():
    chosen, empty = selector("holdout/iou", targets=0)
    assert np.isnan(chosen.score(0, empty, empty).flat["holdout/iou"])
    assert chosen.score(1, empty, empty).best
    assert (chosen.best_value, chosen.best_epoch) == (0.0, 1)


@pytest.mark.parametrize("preset", ["standard", "paper"])
@pytest.mark.parametrize("by", ["point_score", "holdout/iou"])
def test_without_a_holdout_the_last_epoch_is_taken(preset, by):
    chosen, none = selector(by, count=0, preset=preset)
    assert [chosen.score(epoch, none, none).best for epoch in range(3)] == [True, True, True]
    assert chosen.best_epoch == 2


def test_the_published_protocol_keeps_an_epoch_of_each_the_earlier_and_none_of_value_0():
    chosen, right = selector("holdout/iou", preset="paper")
    nothing = [np.zeros_like(mask) for mask in right]
    partly = [right[0], *nothing[1:]]
    students, teachers = (nothing, partly, partly, right, right), (nothing, right, partly, right, nothing)
    scores = [chosen.score(epoch, *both) for epoch, both in enumerate(zip(students, teachers, strict=True))]
    for kept, name in (("best", "holdout/iou"), ("best_teacher", "holdout/teacher/iou")):
        last = [epoch for epoch, score in enumerate(scores) if getattr(score, kept)][-1]
        assert last == best_epoch([score.flat[name] for score in scores])
    assert [score.best for score in scores] == [False, True, False, True, False]
    assert [score.best_teacher for score in scores] == [False, True, False, False, False]
    ours, _ = selector("holdout/iou")
    assert not any(ours.score(epoch, masks, masks).best_teacher for epoch, masks in enumerate((partly, right)))
