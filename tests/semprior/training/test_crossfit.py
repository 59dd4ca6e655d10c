"""Cross-fitting: every image is judged by a teacher that has not seen it, and goes on to the last bit."""

import dataclasses

import numpy as np
import pytest
import torch

from semprior.errors import UserError
from semprior.foundation.feature_source import Features
from semprior.io.checkpoint import Snapshot, load_checkpoint, save_checkpoint
from semprior.labels.crossfit_masks import crossfit_mask
from semprior.training.crossfit import CrossFit, short_config
from semprior.training.trainer import DivergedError, Trainer
from tests.semprior.training.test_trainer import (
    CPU,
    PooledVision,
    config,
    fingerprint,
    trainer,
    training_set,
    without_time,
)

pytestmark = pytest.mark.trains

LEAVES = {
    "labels__refine": "crossfit",
    "labels__crossfit_epochs": 1.0,
    "epochs": 2,
    "data__batch": 3,
    "outer__steps": 1,
    "data__hard_crops": 0.2,
}


def run_of(masks=False, **leaves):
    return trainer(masks, **{**LEAVES, **leaves})


def with_checkpoints(folder):
    """A whole run, with a checkpoint after every epoch of its short runs."""
    run = run_of(masks=True)
    crossfit, epochs = CrossFit(run), []
    for short in crossfit.run():
        epochs.append(dataclasses.replace(short, seconds=0))
        save_checkpoint(folder / str(len(epochs)), crossfit.snapshot())
    judged = list(crossfit.judged)
    return epochs, judged, list(run.pseudo_masks.soft), without_time(run.run()), fingerprint(run)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return tmp_path_factory.mktemp("short")


@pytest.fixture(scope="module")
def whole(checkpoints):
    return with_checkpoints(checkpoints)


def test_the_short_runs_come_first_and_the_run_begins_from_their_masks(whole):
    epochs, judged, soft, reports, _ = whole
    assert [(short.run, short.epoch) for short in epochs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {(short.runs, short.epochs) for short in epochs} == {(2, 2)}
    assert [bool(short.scores) for short in epochs] == [False, True, False, True]
    assert "holdout/teacher/point_score" in epochs[-1].scores
    data = training_set(masks=True)
    assert len(judged) == data.train + data.validation and all(values.any() for values in judged)
    held_out = data.holdout_indices
    assert all(np.array_equal(soft[index], 255 * data.seeds[index].mask.astype(np.uint8)) for index in held_out)
    for index, values in enumerate(judged):
        scene, first = data.scenes[index], data.seeds[index].mask
        expected = crossfit_mask(scene.image, scene.points, first, values.astype(np.float32) / 255)
        assert np.array_equal(soft[index] > 127, expected)
    assert [report.epoch for report in reports] == [0, 1]
    assert not any(report.evolved for report in reports)
    assert {"labels/iou", "labels/first_iou"} <= reports[0].labels.keys() and not reports[1].labels


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_stopped_in_any_epoch_of_a_short_run_it_goes_on_to_the_last_bit(stop, whole, checkpoints):
    epochs, judged, _, reports, expected = whole
    run = run_of(masks=True)
    crossfit = CrossFit(run)
    crossfit.restore(load_checkpoint(checkpoints / str(stop)))
    assert (crossfit.done, crossfit.epochs_left) == (stop, 4 - stop)
    assert [dataclasses.replace(short, seconds=0) for short in crossfit.run()] == epochs[stop:]
    assert all(np.array_equal(a, b) for a, b in zip(crossfit.judged, judged, strict=True))
    assert without_time(run.run()) == reports
    assert fingerprint(run) == expected


def test_no_teacher_has_seen_the_images_that_it_judges_and_no_short_run_those_held_out():
    run = run_of()
    crossfit, data = CrossFit(run), run.training_set
    assert sorted(index for fold in crossfit.folds for index in fold) == list(range(data.train + data.validation))
    held_out = {data.scenes[index].name for index in data.holdout_indices}
    for number, fold in enumerate(crossfit.folds):
        crossfit.run_number = number
        short = crossfit._new_run()
        own = short.training_set
        judged = [own.scenes[index].name for index in own.holdout_indices]
        assert judged == [data.scenes[index].name for index in fold]
        trained = {own.scenes[index].name for index in (*own.train_indices, *own.validation_indices)}
        assert not trained & {*judged, *held_out}
        assert len(trained) + len(judged) == data.train + data.validation
        for index, scene in enumerate(own.scenes):
            original = next(i for i, other in enumerate(data.scenes) if other.name == scene.name)
            assert np.array_equal(own.seeds[index].mask, data.seeds[original].mask)
            assert own.clusters[index] == data.clusters[original]


def test_features_of_a_short_run_are_those_of_its_images():
    class Bank:
        def crop(self, indices, rows, columns, size):
            return [torch.tensor(index) for index in indices]

    features = Features(PooledVision(), Bank()).of([5, 3, 8]).of([2, 0])
    grey, corner = torch.zeros(2, 1, 32, 32), np.zeros(2, np.int64)
    assert [maps.item() for maps in features.from_bank([0, 1], grey)] == [8, 5]
    assert [maps.item() for maps in features.crops(np.array([1, 0]), corner, corner, 32, grey)] == [5, 8]


def test_groups_stay_together():
    data = training_set()
    names = [scene.name for scene in data.scenes]
    groups = {name: f"group {place % 5}" for place, name in enumerate(names[: data.train])}
    run = Trainer(
        config(**LEAVES),
        dataclasses.replace(data, groups=groups),
        Features(PooledVision(), None),
        CPU,
    )
    folds = [{groups.get(names[index]) for index in fold} - {None} for fold in CrossFit(run).folds]
    assert not folds[0] & folds[1] and folds[0] | folds[1] == set(groups.values())


def test_short_runs_have_the_settings_of_the_run_but_for_length_refinement_and_evaluation():
    settings = config(**{**LEAVES, "epochs": 30, "labels__crossfit_epochs": 0.3})
    short = short_config(settings)
    assert (short.epochs, short.labels.refine, short.select.after) == (9, "none", 1.0)
    assert short_config(config(**{**LEAVES, "epochs": 1, "labels__crossfit_epochs": 0.0})).epochs == 1


def test_a_run_does_not_begin_without_its_short_runs():
    with pytest.raises(RuntimeError, match="the short runs of semprior"):
        next(run_of().run())


def test_too_few_images_are_one_line():
    with pytest.raises(UserError, match=r"data\.batch: a short run of labels\.refine=crossfit has \d images"):
        CrossFit(run_of(data__batch=8))
    with pytest.raises(UserError, match=r"labels\.crossfit_folds: 18 images are too few for 19 folds"):
        CrossFit(run_of(labels__crossfit_folds=19))


def test_a_short_run_that_diverges_says_which():
    run = run_of(optim__rate=1000, optim__weight_decay=100, optim__schedule="constant", optim__clip=None, epochs=4)
    with pytest.raises(DivergedError, match=r"^short run 1 of 2: training stopped: "):
        list(CrossFit(run).run())


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"data": "other"}, "the data set differs"),
        ({"run": 3}, "not one of the short runs"),
        ({"run": None}, "state.json: run: expected a whole number"),
    ],
)
def test_a_snapshot_of_something_else_is_refused(values, fault):
    run = run_of()
    snapshot = CrossFit(run).snapshot()
    with pytest.raises(UserError, match=fault):
        CrossFit(run).restore(Snapshot({}, snapshot.arrays, snapshot.values | values))
    with pytest.raises(UserError, match="not one of the short runs"):
        CrossFit(run).restore(Snapshot({}, {}, snapshot.values))


def test_with_fewer_epochs_than_a_short_run_has_trained_it_is_judged_as_it_is(checkpoints, whole):
    run = run_of(epochs=1)
    crossfit = CrossFit(run)
    crossfit.restore(load_checkpoint(checkpoints / "1"))
    assert [(short.run, short.epoch) for short in crossfit.run()] == [(1, 0)]
    assert all(values.any() for values in crossfit.judged)
    assert next(run.run()).epoch == 0
