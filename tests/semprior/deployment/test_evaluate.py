"""A checkpoint against masks: the numbers, and where they are printed."""

import io
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from semprior.cli.app import main
from semprior.config.schema import unflatten
from semprior.data.layout import find_layout, intensity_range, read_scenes
from semprior.data.training_set import hold_out
from semprior.deployment.evaluate import HOLDOUT, evaluate
from semprior.deployment.load_model import load_student, load_teacher
from semprior.errors import UserError
from semprior.evaluation.metrics import count_image, summarise
from semprior.io.checkpoint import Snapshot, load_checkpoint, save_checkpoint
from semprior.models.build import build_teacher
from semprior.reporting.evaluation_tables import show_evaluation
from tests.tiny import LEVEL, bright_student, write_checkpoint, write_dataset

pytestmark = pytest.mark.trains

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("evaluate") / "data")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("evaluate") / "checkpoint")


@pytest.mark.parametrize(("split", "images"), [("test", 4), ("val", 4), ("train", 12)])
def test_a_perfect_detector_scores_one(data, split, images):
    assert evaluate(bright_student(), data, split).flat() == {
        **{"iou": 1.0, "niou": 1.0, "pd": 1.0, "fa": 0.0},
        **{"iou_se": 0.0, "niou_se": 0.0, "pd_se": 0.0, "fa_se": 0.0},
        **{"images": images, "targets": 2 * images},
        **{"split": split, "threshold": 0.5, "convention": "semprior"},
    }


def test_the_holdout_is_what_a_run_holds_out(data):
    layout = find_layout(data)
    student = bright_student(**{"data.holdout": 0.25})
    train = read_scenes(layout, "train", intensity_range(layout))
    expected = [train[index].name for index in hold_out(train, [], student.info.config.data, {}).held_out]
    found = evaluate(student, data, HOLDOUT)
    assert [image.name for image in found.images] == expected
    assert len(expected) == 3
    with pytest.raises(UserError, match="held out no image"):
        evaluate(bright_student(**{"data.holdout": 0.0}), data, HOLDOUT)


def test_a_fold_is_of_training_and_validation_images(data):
    splits = find_layout(data).splits
    found = [
        evaluate(bright_student(**{"data.folds": 4, "data.fold": fold}), data, HOLDOUT).images for fold in range(4)
    ]
    assert all(len(images) == 4 for images in found)
    assert sorted(image.name for images in found for image in images) == sorted([*splits["train"], *splits["val"]])


def test_the_holdout_needs_its_own_masks_only(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    student = bright_student(**{"data.holdout": 0.25})
    held = {image.name for image in evaluate(student, copy, HOLDOUT).images}
    for mask in (copy / "labels").iterdir():
        if mask.stem not in held:
            mask.unlink()
    assert evaluate(student, copy, HOLDOUT).metrics.iou == 1
    (copy / "labels" / f"{min(held)}.png").unlink()
    with pytest.raises(UserError, match=f"no mask for the image {min(held)}"):
        evaluate(student, copy, HOLDOUT)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, float("nan")])
def test_a_threshold_is_a_probability(data, threshold):
    with pytest.raises(UserError, match="--threshold"):
        evaluate(bright_student(), data, threshold=threshold)


def test_the_threshold_is_the_one_that_the_run_chose_unless_another_is_given(data):
    found = evaluate(bright_student(threshold=0.999), data)
    assert (found.threshold, found.threshold_chosen) == (0.999, True)
    given = evaluate(bright_student(), data, threshold=0.999)
    assert (given.threshold, given.threshold_chosen) == (0.999, False)
    assert found.metrics == given.metrics != evaluate(bright_student(), data).metrics
    assert evaluate(bright_student(threshold=0.999), data, threshold=0.5).metrics.iou == 1


def test_a_checkpoint_has_thresholds_of_student_and_teacher_and_an_earlier_one_has_none(checkpoint, tmp_path):
    assert load_student(checkpoint, CPU).info.threshold == 0.5
    folder = write_checkpoint(tmp_path / "chosen", thresholds={"student": 0.3, "teacher": 0.85})
    assert load_student(folder, CPU).info.threshold == 0.3
    assert load_teacher(folder, CPU).info.threshold == 0.85
    with pytest.raises(UserError, match=r"state\.json: is not the state of a run: .* threshold"):
        load_student(write_checkpoint(tmp_path / "beyond", thresholds={"student": 1.0}), CPU)
    with pytest.raises(UserError, match=r"state\.json: thresholds\.student: expected a finite number"):
        load_student(write_checkpoint(tmp_path / "text", thresholds={"student": "half"}), CPU)


def test_false_alarms_of_images_without_targets_are_reported_by_themselves(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    for name, alarm in (("empty", 0), ("bright", 20)):
        image = np.full((80, 80), 40, np.uint8)
        image[5, :alarm] = 255
        cv2.imwrite(str(copy / "images" / f"{name}.png"), image)
        cv2.imwrite(str(copy / "labels" / f"{name}.png"), np.zeros((80, 80), np.uint8))
    (copy / "mode" / "test.txt").write_text("test00\nempty\nbright\n")
    found = evaluate(bright_student(), copy)
    assert (found.without_targets.metrics.images, found.without_targets.metrics.fa) == (2, 20 / 12800 * 1e6)
    flat = found.flat()
    assert (flat["fa_without_targets"], flat["images_without_targets"]) == (20 / 12800 * 1e6, 2)
    assert flat["fa_without_targets_se"] > 0
    assert evaluate(bright_student(), data).without_targets is None
    table = io.StringIO()
    show_evaluation(found, "student", None, Console(file=table, width=80))
    assert "Fa (1e-6) of 2 images without targets" in table.getvalue()
    assert "split test, threshold 0.5, convention semprior" in table.getvalue()


def test_fewer_pixels_are_above_a_higher_threshold(data):
    found = evaluate(bright_student(), data, curve=True)
    above = evaluate(bright_student(), data, threshold=0.999)
    at = {point.threshold: point for point in found.curve}
    assert (at[0.5].metrics, at[0.5].errors) == (found.metrics, found.errors)
    assert at[0.999].metrics == above.metrics
    assert sorted(at) == list(at)


def test_sixteen_bit_data_are_read_as_in_training(tmp_path):
    data = write_dataset(tmp_path / "data", bits=16)
    intensity = intensity_range(find_layout(data))
    assert intensity.bits == 16
    scenes = read_scenes(find_layout(data), "test", intensity, masks="required")
    expected = summarise([count_image(scene.image > LEVEL, scene.mask) for scene in scenes])
    assert evaluate(bright_student(intensity), data).metrics == expected


def test_paper_counts_empty_images_as_nothing(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    for folder in ("images", "labels"):
        shutil.copy(copy / "labels" / "test00.png", copy / folder / "empty.png")
    for folder in ("images", "labels"):
        cv2.imwrite(str(copy / folder / "empty.png"), np.zeros((80, 80), np.uint8))
    (copy / "mode" / "test.txt").write_text("test00\nempty\n")
    assert evaluate(bright_student(), copy).metrics.niou == 1.0
    assert evaluate(bright_student(preset="paper", **{"select.by": "test/iou"}), copy).metrics.niou == 0.5


def test_points_are_not_needed(data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "data")
    (copy / "points.csv").unlink()
    assert evaluate(bright_student(), copy).metrics.iou == 1.0


def test_json_is_one_object_on_standard_output(data, checkpoint, capsys):
    assert main(["evaluate", str(checkpoint), "--data", str(data), "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    rates = ["iou", "niou", "pd", "fa"]
    assert list(found) == [
        *rates,
        *(f"{rate}_se" for rate in rates),
        *("images", "targets", "split", "threshold", "convention"),
    ]
    assert found == evaluate(load_student(checkpoint, CPU), data).flat()
    assert printed.err == ""


def test_the_table_names_every_metric(data, checkpoint, capsys):
    assert main(["evaluate", str(checkpoint), "--data", str(data), "--split", "val"]) == 0
    out = capsys.readouterr().out
    for word in ("IoU", "nIoU", "Pd", "Fa (1e-6)", "4 images, 8 targets, split val", "student of mlclnet"):
        assert word in out


def test_without_modulation_the_teacher_is_the_student(data, checkpoint, capsys):
    assert main(["evaluate", str(checkpoint), "--data", str(data), "--teacher", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == evaluate(load_student(checkpoint, CPU), data).flat()
    assert "its teacher is its student" in printed.err


@pytest.fixture(scope="module")
def modulated(tmp_path_factory):
    """A checkpoint with SCAM on a small foundation model of random weights."""
    from semprior.foundation.vfm import load_vfm

    name = "mobilenetv3_small_050"
    vfm = load_vfm(name, "random", CPU)
    leaves = {"vfm.name": name, "vfm.weights": "random", "vfm.width": 8, "scam.stages": [2]}
    folder = write_checkpoint(tmp_path_factory.mktemp("evaluate") / "modulated", vfm=vfm.key, **leaves)
    plain = load_checkpoint(folder)
    modulator = build_teacher(unflatten(plain.values["config"]), vfm).modulator_state()
    save_checkpoint(folder, Snapshot({**plain.tensors, "modulator": modulator}, {}, plain.values))
    return folder


def test_the_teacher_runs_its_foundation_model(data, modulated, capsys):
    scenes = read_scenes(find_layout(data), "test", intensity_range(find_layout(data)))
    images = [scene.image for scene in scenes]
    teacher, student = load_teacher(modulated, CPU), load_student(modulated, CPU)
    assert any(
        (a != b).any() for a, b in zip(teacher.probabilities(images), student.probabilities(images), strict=True)
    )
    assert main(["evaluate", str(modulated), "--data", str(data), "--teacher", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == evaluate(teacher, data).flat()
    assert "RANDOM weights" in printed.err


def test_a_teacher_with_another_foundation_model_is_refused(modulated, tmp_path):
    plain = load_checkpoint(modulated)
    save_checkpoint(tmp_path / "other", Snapshot(plain.tensors, {}, {**plain.values, "vfm": "0" * 64}))
    with pytest.raises(UserError, match="other weights of mobilenetv3_small_050"):
        load_teacher(tmp_path / "other", CPU)


def swapped(checkpoint, folder, **leaves):
    """A checkpoint whose state speaks of another detector than its weights are of."""
    plain = load_checkpoint(checkpoint)
    values = {**plain.values, "config": {**plain.values["config"], **leaves}}
    save_checkpoint(folder, Snapshot(plain.tensors, {}, values))
    return folder


@pytest.mark.parametrize(
    ("leaves", "fault"),
    [
        ({"detector": "alclnet"}, "do not fit the detector alclnet"),
        ({"detector": "alcnet"}, "unknown detector 'alcnet'; did you mean 'alclnet'"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"epochs": None}, "epochs must be a whole number"),
    ],
)
def test_a_checkpoint_of_something_else_is_one_line(data, checkpoint, tmp_path, capsys, leaves, fault):
    other = swapped(checkpoint, tmp_path / "other", **leaves)
    assert main(["evaluate", str(other), "--data", str(data)]) == 2
    error = capsys.readouterr().err
    assert fault in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("file", ["student.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_one_line(data, checkpoint, tmp_path, capsys, file):
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    content = bytearray((broken / file).read_bytes())
    content[len(content) // 2] ^= 255
    (broken / file).write_bytes(content)
    assert main(["evaluate", str(broken), "--data", str(data)]) == 2
    error = capsys.readouterr().err
    assert str(broken) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--split", "dev"], "no split 'dev'"),
        (["--device", "tpu"], "must be auto, cpu or cuda"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_mistaken_arguments(data, checkpoint, capsys, arguments, fault):
    assert main(["evaluate", str(checkpoint), "--data", str(data), *arguments]) == 2
    assert fault in capsys.readouterr().err


def test_masks_are_needed(tmp_path, checkpoint, capsys):
    data = write_dataset(tmp_path / "data", masks=False)
    assert main(["evaluate", str(checkpoint), "--data", str(data)]) == 2
    assert "no masks" in capsys.readouterr().err
