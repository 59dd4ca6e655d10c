"""Every command, and every fault in what it is given: one line, exit code 2, nothing half-written."""

import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from semprior.cli.app import main
from tests.repository import ROOT
from tests.tiny import SETTINGS, write_dataset

pytestmark = pytest.mark.trains

FLAGS = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("cli") / "data")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (["epoch=3"], "unknown key 'epoch'; did you mean 'epochs'"),
        (["detector=mlcnet"], "did you mean 'mlclnet'"),
        (["scam.stages=[9]"], "scam.stages"),
        (["clusters.count=99"], "clusters.count"),
        (["data.batch=10"], "the training pool has 9 images"),
        (["vfm.name=no_such_model", "scam.stages=all"], "vfm.name"),
        (["vfm.weights=nowhere.pth", "scam.stages=all"], "nowhere.pth: no such file"),
    ],
)
def test_settings_that_do_not_fit(data, tmp_path, refused, settings, fault):
    flags = [*FLAGS, *(word for setting in settings for word in ("--set", setting))]
    assert fault in refused("train", "--data", data, "--out", tmp_path / "run", *flags)
    assert os.listdir(tmp_path) == []


def spoil_image(root):
    path = root / "images" / "train03.png"
    path.write_bytes(path.read_bytes()[:-40])


def spoil_mask(root, invert=False, shape=None, name="train03"):
    path = root / "labels" / f"{name}.png"
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if invert:
        mask = 255 - mask
    cv2.imwrite(str(path), mask if shape is None else np.zeros(shape, np.uint8))


def add_point(root, row):
    with (root / "points.csv").open("a") as file:
        file.write(row + "\n")


def drop_points(root):
    path = root / "points.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("train03,")))


FAULTS = {
    "no images": (lambda root: shutil.rmtree(root / "images"), "images: no such folder"),
    "no split": (lambda root: (root / "mode" / "train.txt").unlink(), "no split 'train'"),
    "empty split": (lambda root: (root / "mode" / "train.txt").write_text("\n"), "train.txt: empty split"),
    "no image": (lambda root: (root / "images" / "train03.png").unlink(), "no image train03"),
    "truncated": (spoil_image, "train03.png: truncated PNG"),
    "size of mask": (lambda root: spoil_mask(root, shape=(80, 81)), "train03.png: the mask is 81x80"),
    "values of mask": (lambda root: spoil_mask(root, invert=True), "train03.png: the mask covers"),
    "point outside": (lambda root: add_point(root, "train03,80,3"), "is outside the image train03"),
    "point off target": (lambda root: add_point(root, "train03,0,0"), "outside every target"),
    "no point": (drop_points, "train03 has targets in its mask and no point"),
    "no points": (lambda root: (root / "points.csv").unlink(), "no points; give masks_centroid/"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_data_set_is_one_line_and_nothing_is_written(data, tmp_path, refused, name):
    root = shutil.copytree(data, tmp_path / "data")
    spoil, fault = FAULTS[name]
    spoil(root)
    error = refused("train", "--data", root, "--out", tmp_path / "run", *FLAGS)
    assert fault in error
    assert str(root) in error
    assert os.listdir(tmp_path) == ["data"]


def test_data_check_lists_every_fault(data, tmp_path, capsys):
    assert main(["data", "check", str(data)]) == 0
    assert "12 train, 4 val, 4 test; with masks" in capsys.readouterr().out
    root = shutil.copytree(data, tmp_path / "data")
    (root / "images" / "test01.png").unlink()
    add_point(root, "train03,80,3")
    spoil_mask(root, invert=True)
    spoil_mask(root, shape=(80, 81), name="train04")
    add_point(root, "train04,90,3")
    cv2.imwrite(str(root / "images" / "train05.png"), np.zeros((80, 80), np.uint16))
    add_point(root, "train05,0,0")
    assert main(["data", "check", str(root)]) == 2
    out = capsys.readouterr().out
    for fault in (
        *("no image test01", "is outside the image train03", "train03.png: the mask covers"),
        *("train04.png: the mask is 81x80", "is outside the image train04"),
        *("train05.png: 16-bit image, where the training images have 8 bit", "y=0 of train05 is outside every target"),
    ):
        assert out.count(fault) == 1
    assert "8-bit image" not in out
    assert "faults" in out.splitlines()[-1]


def test_data_synth_makes_scenes_and_data_points_their_points(tmp_path, refused, capsys):
    root = tmp_path / "scenes"
    assert main(["data", "synth", str(root), "--count", "5", "--seed", "3"]) == 0
    assert main(["data", "check", str(root)]) == 0
    assert len(os.listdir(root / "images")) == 5
    assert "exists already" in refused("data", "synth", root, "--count", 5)
    assert "masks_centroid: exists already" in refused("data", "points", root)
    centred = pixels(root)
    shutil.rmtree(root / "masks_centroid")
    assert main(["data", "points", str(root)]) == 0
    assert pixels(root) == centred
    shutil.rmtree(root / "masks_centroid")
    assert main(["data", "points", str(root), "--coarse", "--seed", "1"]) == 0
    assert main(["data", "check", str(root)]) == 0
    assert {name: len(points) for name, points in pixels(root).items()} == {n: len(p) for n, p in centred.items()}
    capsys.readouterr()


def pixels(root):
    files = sorted((root / "masks_centroid").iterdir())
    return {file.name: np.argwhere(cv2.imread(str(file), cv2.IMREAD_UNCHANGED)).tolist() for file in files}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "Missing command"),
        (["trian"], "No such command 'trian'"),
        (["train"], "'--out'"),
        (["train", "--out"], "--out"),
        (["train", "--colour", "red"], "--colour"),
        (["evaluate", "run"], "'--data'"),
        (["predict", "run", "--out", "x"], "IMAGE"),
        (["data", "synth", "x", "--count", "many"], "--count"),
        (["data", "synth", "x", "--count", "0"], "--count"),
        (["evaluate", "nowhere", "--data", "nowhere"], "nowhere: is neither a run's folder nor a checkpoint"),
        (["export", "nowhere", "--out", "student.onnx"], "nowhere: is neither"),
    ],
)
def test_mistaken_commands(refused, tmp_path, monkeypatch, arguments, fault):
    monkeypatch.chdir(tmp_path)
    assert fault.lower() in refused(*arguments).lower()
    assert os.listdir(tmp_path) == []


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.count(".") == 2


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(_):
        raise ZeroDivisionError

    monkeypatch.setattr("semprior.data.layout.survey_dataset", broken)
    with pytest.raises(ZeroDivisionError):
        main(["data", "check", "x"])


def test_help_answers_without_loading_a_network_library():
    program = (
        "import sys; from semprior.cli.app import main; assert main(['--help']) == 0 == main(['train', '--help']);"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    )
    root = ROOT
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("train", "evaluate", "predict", "export", "data", "--resume", "SEMPRIOR_CACHE"):
        assert word in done.stdout
