"""Predictions are written whole, under names that do not clash, or not at all."""

import csv
import os

import cv2
import numpy as np
import pytest
import torch

from semprior.cli.app import main
from semprior.data.images import IntensityRange
from semprior.deployment.load_model import load_student
from semprior.deployment.predict import Detection, detections, output_names, predict
from semprior.errors import UserError
from tests.tiny import bright_student, write_checkpoint, write_dataset

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("predict") / "data")


def rows(folder):
    with (folder / "detections.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_detections_are_the_eight_connected_components():
    probability = np.zeros((6, 9), np.float32)
    probability[0, 0], probability[1, 1] = 0.6, 0.9  # touch at a corner: one
    probability[4, 5:8] = 0.75
    probability[3, 0] = 0.5  # not above one half
    first, second = detections(probability, 0.5)
    assert first == Detection(0.5, 0.5, pytest.approx(0.9), 2)
    assert second == Detection(6.0, 4.0, 0.75, 3)
    assert detections(np.zeros((3, 3), np.float32), 0.5) == []


def test_every_target_is_found_where_its_point_is(data, tmp_path):
    images = sorted((data / "images").glob("test*.png"))
    count = predict(bright_student(), images, tmp_path / "out", overlay=True)
    found = {(row["image"], round(float(row["x"])), round(float(row["y"]))) for row in rows(tmp_path / "out")}
    with (data / "points.csv").open(newline="") as file:
        points = {(row["name"], int(row["x"]), int(row["y"])) for row in csv.DictReader(file)}
    assert found == {point for point in points if point[0].startswith("test")}
    assert count == len(found) == 8
    assert {row["area"] for row in rows(tmp_path / "out")} == {"9"}
    assert all(0.5 < float(row["score"]) <= 1 for row in rows(tmp_path / "out"))
    for image in images:
        mask, probability, overlay = (
            read(tmp_path / "out" / f"{image.stem}_{kind}.png") for kind in ("mask", "probability", "overlay")
        )
        assert mask.dtype == probability.dtype == np.uint8
        assert np.array_equal(mask, read(data / "labels" / image.name))
        assert np.array_equal(probability > 127, mask > 0)
        assert overlay.shape == (*mask.shape, 3)
        changed = (overlay != read(image)[..., None]).any(axis=2)
        assert changed.any()
        assert not (changed & (mask > 0)).any()  # the target itself stays to be seen


def test_the_threshold_is_the_one_that_the_run_chose_unless_another_is_given(data, tmp_path, refused):
    image = [data / "images" / "test00.png"]
    masks = []
    for name, student, given in (
        ("chosen", bright_student(threshold=0.0005), None),
        ("given", bright_student(), 0.0005),
        ("half", bright_student(threshold=0.0005), 0.5),
    ):
        predict(student, image, tmp_path / name, threshold=given)
        masks.append(read(tmp_path / name / "test00_mask.png"))
    assert np.array_equal(masks[0], masks[1]) and np.count_nonzero(masks[0]) > np.count_nonzero(masks[2])
    assert np.array_equal(masks[2], read(data / "labels" / "test00.png"))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", thresholds={"student": 0.3})
    arguments = ["predict", str(checkpoint), str(image[0]), "--out", str(tmp_path / "out")]
    assert "--threshold 2: must be at least 0 and less than 1" in refused(*arguments, "--threshold", "2")
    assert not (tmp_path / "out").exists()


def test_what_predict_says_of_the_threshold(data, tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", thresholds={"student": 0.3})
    arguments = ["predict", str(checkpoint), str(data / "images" / "test00.png"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert "threshold 0.3, chosen on held-out images; results in" in " ".join(capsys.readouterr().out.split())
    assert main([*arguments, "--threshold", "0.6"]) == 0
    assert "1 image, threshold 0.6; results in" in " ".join(capsys.readouterr().out.split())


def test_sixteen_bit_images_use_the_range_of_the_training_set(data, tmp_path):
    image = read(data / "images" / "test00.png")
    wide = tmp_path / "wide.png"
    cv2.imwrite(str(wide), image.astype(np.uint16) * 200 + 1000)
    student = bright_student(IntensityRange(1000.0, 1000.0 + 200 * 255))
    predict(student, [wide], tmp_path / "out")
    assert np.array_equal(read(tmp_path / "out" / "wide_mask.png"), read(data / "labels" / "test00.png"))
    with pytest.raises(UserError, match=r"test00\.png: 8-bit image, where the training images have 16 bit"):
        predict(student, [data / "images" / "test00.png"], tmp_path / "other")


@pytest.mark.parametrize("shape", [(1, 1), (33, 100), (64, 64), (31, 7)])
def test_any_size(tmp_path, shape):
    student = load_student(write_checkpoint(tmp_path / "checkpoint"), torch.device("cpu"))
    cv2.imwrite(str(tmp_path / "a.bmp"), np.full(shape, 90, np.uint8))
    predict(student, [tmp_path / "a.bmp"], tmp_path / "out")
    assert read(tmp_path / "out" / "a_mask.png").shape == shape


def test_names():
    from pathlib import Path as P

    assert output_names([P("a/x.png"), P("b/x.bmp"), P("c/y.v2.PNG")]) == ["x", "x-2", "y.v2"]
    assert output_names([P("x.png"), P("b/x.png"), P("x-2.png")]) == ["x", "x-3", "x-2"]
    assert len(set(output_names([P("x-2.png"), P("a/x.png"), P("x-2.bmp"), P("x.png")]))) == 4


def test_images_of_one_name_do_not_overwrite_each_other(data, tmp_path):
    (tmp_path / "other").mkdir()
    first, second = data / "images" / "test00.png", tmp_path / "other" / "test00.png"
    cv2.imwrite(str(second), np.zeros((40, 50), np.uint8))
    said = []
    predict(bright_student(), [first, second], tmp_path / "out", say=said.append)
    assert read(tmp_path / "out" / "test00_mask.png").shape == (80, 80)
    assert read(tmp_path / "out" / "test00-2_mask.png").shape == (40, 50)
    assert "test00-2" in said[0]


def test_more_images_than_fit_into_memory_at_once(data, tmp_path, monkeypatch):
    monkeypatch.setattr("semprior.deployment.predict._BATCH", 3)
    images = sorted((data / "images").glob("*.png"))
    assert predict(bright_student(), images, tmp_path) == 2 * len(images)
    assert len(list(tmp_path.glob("*_mask.png"))) == len(images)


@pytest.mark.parametrize("fault", ["missing", "truncated", "text", "folder", "empty"])
def test_one_image_that_cannot_be_read_and_nothing_is_written(data, tmp_path, fault, capsys):
    good, bad = data / "images" / "test00.png", tmp_path / "bad.png"
    if fault == "truncated":
        bad.write_bytes(good.read_bytes()[:-30])
    elif fault == "text":
        bad.write_text("not an image")
    elif fault == "folder":
        bad.mkdir()
    elif fault == "empty":
        bad.touch()
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    code = main(["predict", str(checkpoint), str(good), str(bad), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("semprior: ")
    assert error.count("\n") == 1
    assert str(bad) in error
    assert not (tmp_path / "out").exists()


def test_a_full_disk_names_the_file(data, tmp_path, full_disk):
    image = data / "images" / "test00.png"
    with full_disk(), pytest.raises(OSError, match="test00_mask") as caught:
        predict(bright_student(), [image], tmp_path / "out")
    assert caught.value.filename == str(tmp_path / "out" / "test00_mask.png")
    assert os.listdir(tmp_path / "out") == []


def test_an_image_is_never_overwritten(data, tmp_path):
    image = tmp_path / "a_mask.png"
    image.write_bytes((data / "images" / "test00.png").read_bytes())
    other = tmp_path / "a.png"
    other.write_bytes(image.read_bytes())
    with pytest.raises(UserError, match=r"a_mask\.png: would be overwritten"):
        predict(bright_student(), [other, image], tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "a_mask.png"]


def test_a_table_of_detections_holds_no_formula_and_nothing_that_a_terminal_obeys(data, tmp_path, capsys):
    content = (data / "images" / "test00.png").read_bytes()
    names = ["=HYPERLINK(1).png", "\x1b[2J[red]\udcff\n.png", "@x.png"]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(content)
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    images = [str(tmp_path / folder / name) for folder in ("a", "b") for name in names]
    assert main(["predict", str(checkpoint), *images, "--out", str(tmp_path / "out")]) == 0
    cells = {row["image"] for row in rows(tmp_path / "out")}
    assert {"'=HYPERLINK(1)", r"\x1b[2J[red]\udcff\n", "'@x", "'@x-2"} <= cells
    assert len(cells) == 6
    assert (tmp_path / "out" / "=HYPERLINK(1)_mask.png").is_file()
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and r"\x1b[2J[red]\udcff\n.png: another image has the same name" in shown


def test_the_command(data, tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    images = [str(path) for path in sorted((data / "images").glob("test*.png"))]
    assert main(["predict", str(checkpoint), *images, "--out", str(tmp_path / "out"), "--overlay"]) == 0
    assert len(os.listdir(tmp_path / "out")) == 3 * 4 + 1
    assert "4 images" in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert main(["predict", str(checkpoint), *images, "--out", str(tmp_path / "file")]) == 2
    assert "is not a folder" in capsys.readouterr().err
