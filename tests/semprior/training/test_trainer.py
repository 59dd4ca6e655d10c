"""A run: learns from points alone, resumes to the last bit, stops clearly, counts right."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.plain import bilevel
from semprior.config.schema import unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.data.layout import Scene
from semprior.data.training_set import TrainingSet
from semprior.errors import UserError
from semprior.evaluation.inference import NonFiniteOutputError
from semprior.foundation.feature_source import Features
from semprior.io.checkpoint import Snapshot, load_checkpoint, save_checkpoint
from semprior.labels.seeds import contrast_seed
from semprior.training import trainer as training
from semprior.training.trainer import DivergedError, Trainer

pytestmark = pytest.mark.trains

CPU = torch.device("cpu")


class PooledVision:
    """Stands in for a vision model: two maps of averages, so that a test needs no weights."""

    map_channels = (3, 6)
    width_needed = True
    random = False
    key = "pooled"

    def __call__(self, grey):
        pooled = F.avg_pool2d(grey.expand(-1, 3, -1, -1), 16)
        return [pooled, torch.cat([pooled, pooled.square()], 1)]


def scenes(count, seed, masks):
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        height, width = (int(v) for v in rng.integers(64, 90, 2))
        image = rng.normal(90, 4, (height, width))
        row, column = (int(rng.integers(8, extent - 8)) for extent in (height, width))
        rows, columns = np.mgrid[:height, :width]
        image += 110 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 5)
        mask = (rows - row) ** 2 + (columns - column) ** 2 <= 6
        made.append(
            Scene(
                f"scene_{seed}_{index}",
                image.clip(0, 255).astype(np.uint8),
                np.array([[row, column]]),
                mask if masks else None,
            )
        )
    return made


def training_set(masks=False):
    every = [*scenes(13, 1, masks), *scenes(5, 2, False), *scenes(4, 3, masks)]
    return TrainingSet(
        scenes=every,
        train=13,
        validation=5,
        seeds=[contrast_seed(scene.image, scene.points) for scene in every],
        clusters=np.arange(len(every)) % 3,
        normalisation=Normalisation(0.36, 0.07),
        intensity=IntensityRange(0, 255),
        test=[],
    )


def config(**leaves):
    flat = {
        "detector": "mlclnet",
        "epochs": 4,
        "data.crop": 64,
        "data.batch": 4,
        "labels.refine": "evolve",
        "labels.evolve_after": 0.25,
        "labels.evolve_every": 1,
        "outer.every": 2,
        "outer.steps": 2,
        "select.after": 0.0,
        "select.every": 1,
        "vfm.width": 8,
    }
    return unflatten(flat | {key.replace("__", "."): value for key, value in leaves.items()})


def trainer(masks=False, **leaves):
    settings = config(**leaves)
    vision = None if settings.scam.stages == "none" else PooledVision()
    return Trainer(settings, training_set(masks), Features(vision, None), CPU)


def fingerprint(run):
    snapshot = run.snapshot()
    digest = hashlib.sha256()
    for held in (*snapshot.tensors.values(), snapshot.arrays):
        for name in sorted(held):
            digest.update(name.encode() + np.ascontiguousarray(held[name]).tobytes())
    return digest.hexdigest(), snapshot.values


def without_time(reports):
    return [dataclasses.replace(report, seconds=0) for report in reports]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint after every epoch of `whole_run`, by its number."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def whole_run(checkpoints):
    run, reports = trainer(), []
    for report in run.run():
        reports.append(report)
        save_checkpoint(checkpoints / str(len(reports)), run.snapshot())
    return without_time(reports), fingerprint(run)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_stopped_at_any_epoch_goes_on_to_the_last_bit(stop, whole_run, checkpoints):
    run = trainer()
    run.restore(load_checkpoint(checkpoints / str(stop)))
    reports = list(run.run())
    expected_reports, (expected_state, expected_values) = whole_run
    assert without_time(reports) == expected_reports[stop:]
    state, values = fingerprint(run)
    assert values == expected_values
    assert state == expected_state


def test_a_run_repeats_itself_and_another_seed_does_not(whole_run):
    again = trainer()
    assert without_time(again.run()) == whole_run[0]
    other = trainer(seed=1, epochs=1)
    assert next(other.run()).inner_loss != whole_run[0][0].inner_loss


def test_points_alone_train_evolve_and_select(whole_run):
    reports, _ = whole_run
    assert [report.evolved for report in reports] == [False, False, True, True]
    assert [report.outer_loss is not None for report in reports] == [True, False, True, False]
    assert all("holdout/point_score" in report.scores for report in reports)
    assert not any("iou" in name for report in reports for name in report.scores)
    best = [report for report in reports if report.best][-1]
    assert best.scores["holdout/point_score"] == max(r.scores["holdout/point_score"] for r in reports)


def test_masks_of_the_holdout_are_reported_with_standard_errors_and_change_nothing(whole_run):
    run = trainer(masks=True)
    reports = list(run.run())
    assert [report.inner_loss for report in reports] == [report.inner_loss for report in whole_run[0]]
    assert {"holdout/iou", "holdout/iou_se", "holdout/teacher/iou"} <= reports[-1].scores.keys()
    points = [report.scores["holdout/point_score"] for report in reports]
    assert points == [report.scores["holdout/point_score"] for report in whole_run[0]]


def test_hard_images_are_admitted_where_masks_do_not_evolve():
    labels = {"labels.refine": "none", "labels.pool": "reliable", "labels.evolve_after": 0.0, "labels.admit_until": 0.5}
    data = training_set()
    data.seeds[3] = dataclasses.replace(data.seeds[3], succeeded=np.array([False]))
    settings = config(epochs=2, scam__stages="none", outer__every=0, **labels)
    reports = list(Trainer(settings, data, Features(None, None), CPU).run())
    assert [(report.pool, report.admitted, report.evolved) for report in reports] == [(12, 0, False), (13, 1, False)]


@pytest.mark.slow
def test_training_learns_to_find_the_targets():
    run = trainer(masks=True, epochs=16, optim__average=0.8, optim__rate=2e-3)
    last = list(run.run())[-1]
    assert last.scores["holdout/pd"] == 1
    assert last.scores["holdout/iou"] > 0.5
    assert last.scores["holdout/point_score"] > 0.3


def test_without_modulation_outer_steps_clusters_and_average_it_still_trains():
    run = trainer(epochs=1, scam__stages="none", outer__every=0, optim__average=0.0, labels__refine="none")
    before = {name: value.clone() for name, value in run.teacher.detector.state_dict().items()}
    report = next(run.run())
    assert report.outer_loss is None and not report.evolved
    assert 0 < report.inner_loss < 100
    assert 0 <= report.scores["holdout/point_score"] <= 1
    weights = {name for name, _ in run.teacher.detector.named_parameters()}
    assert all(not torch.equal(run.teacher.detector.state_dict()[name], before[name]) for name in weights)


@pytest.mark.parametrize(("shared", "images"), [(True, 18), (False, 13)])
def test_validation_images_train_in_inner_steps_only_where_they_are_shared(shared, images, monkeypatch):
    run, drawn = trainer(outer__shared=shared, data__batch=1, scam__stages="none"), []
    monkeypatch.setattr(run, "_batch", lambda indices, drop=0.0: drawn.extend(indices))
    monkeypatch.setattr(training, "inner_step", lambda *_: 0.0)
    run._inner_pass()
    assert sorted(drawn) == list(range(images))  # and none that is held out


def test_the_vision_model_is_in_no_checkpoint():
    names = {name for held in trainer(epochs=1).snapshot().tensors.values() for name in held}
    assert names and not any("vfm" in name or "vision" in name for name in names)


DIVERGING = {  # each step multiplies the weights by 1e5
    "optim__rate": 1000,
    "optim__weight_decay": 100,
    "optim__schedule": "constant",
    "optim__clip": None,
    "outer__every": 0,
    "data__batch": 2,
}


def test_a_loss_that_is_not_finite_names_epoch_batch_and_images():
    run = trainer(**DIVERGING)
    with pytest.raises(DivergedError, match=r"epoch \d+, inner batch \d+, images scene_1_"):
        list(run.run())


def test_weights_that_the_last_step_made_infinite_are_neither_evaluated_nor_saved(monkeypatch):
    run = trainer(epochs=1, outer__every=0)

    def step(teacher, *_):
        with torch.no_grad():
            next(teacher.detector.parameters()).fill_(float("inf"))
        return 0.5

    monkeypatch.setattr(training, "inner_step", step)
    with pytest.raises(DivergedError, match=r"the weights detector.* are not finite after epoch 0"):
        next(run.run())
    assert run.epoch == 0


def test_outputs_that_are_not_numbers_end_the_run(monkeypatch):
    run = trainer(epochs=1)

    def overflow(*_):
        raise NonFiniteOutputError("the output of the network is not a number")
        yield

    monkeypatch.setattr(training, "iter_student_probabilities", overflow)
    with pytest.raises(DivergedError, match="not a number after epoch 0"):
        next(run.run())


@pytest.mark.parametrize(
    ("values", "arrays", "fault"),
    [
        ({"rng": None}, {}, "state.json: rng: expected keys and values, not None"),
        ({"rng": {"bit_generator": "PCG64"}}, {}, "not one of this run"),
        ({"epoch": "3"}, {}, "state.json: epoch: expected a whole number, not '3'"),
        ({}, {"members": np.array(["x"])}, "not one of this run"),
    ],
)
def test_a_snapshot_that_is_no_state_is_refused(values, arrays, fault):
    snapshot = trainer(epochs=1).snapshot()
    with pytest.raises(UserError, match=fault):
        trainer(epochs=1).restore(Snapshot(snapshot.tensors, snapshot.arrays | arrays, snapshot.values | values))


def test_a_pool_smaller_than_a_batch_names_the_count():
    with pytest.raises(UserError, match="13 images, fewer than a batch of 14"):
        trainer(data__batch=14)


def test_a_snapshot_of_other_data_is_refused():
    snapshot = trainer(epochs=1).snapshot()
    other = training_set()
    other.scenes[0].image[0, 0] ^= 1
    run = Trainer(config(), other, Features(PooledVision(), None), CPU)
    with pytest.raises(UserError, match="data set differs"):
        run.restore(snapshot)


def test_bf16_channels_last_and_fp32_agree_at_first():
    plain = next(trainer(epochs=1, precision="fp32", channels_last=False).run())
    fast = next(trainer(epochs=1).run())
    assert fast.inner_loss == pytest.approx(plain.inner_loss, rel=0.05)


@pytest.mark.parametrize(("preset", "anew"), [("paper", True), ("standard", False)])
def test_validation_images_that_run_out_are_shuffled_anew_as_published(preset, anew, monkeypatch):
    run, drawn = trainer(preset=preset, scam__stages="none", data__batch=2, outer__steps=7), []
    monkeypatch.setattr(run, "_batch", lambda indices, drop=0.0: drawn.append(indices))
    monkeypatch.setattr("semprior.training.trainer.outer_step", lambda *_: 0.0)
    validation, pool = run.training_set.validation_indices, list(run.pseudo_masks.members)
    run.rng = np.random.default_rng(4)
    run._outer_pass()
    found = list(zip(drawn[::2], drawn[1::2], strict=True))
    expected = bilevel.outer_pass_indices(list(validation), pool, 2, 7, np.random.default_rng(4))
    assert (found == expected) == anew
    assert found[:2] == expected[:2]


@pytest.mark.parametrize(("preset", "published"), [("paper", True), ("standard", False)])
def test_paper_normalises_the_teacher_first_and_cuts_grey_levels_off(preset, published, monkeypatch):
    run, drawn = trainer(preset=preset, scam__stages="none", data__batch=2), []
    assert run.teacher.teacher_first == published
    draw = training.draw_batch
    monkeypatch.setattr(
        training,
        "draw_batch",
        lambda *arguments, truncate: drawn.append(truncate) or draw(*arguments, truncate=truncate),
    )
    run._batch([0, 1])
    assert drawn == [published]
