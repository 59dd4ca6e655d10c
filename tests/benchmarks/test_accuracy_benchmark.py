"""The benchmark of accuracy, on a few small scenes."""

import json

import numpy as np
import pytest

from benchmarks import accuracy
from semprior.data.synthetic.scenes import write_scenes
from semprior.training.run_folder import RunFolder
from tests.tune.images import scored_images

pytestmark = pytest.mark.trains

TINY = (
    "epochs=2",
    "data.crop=32",
    "data.batch=4",
    "vfm.name=test_efficientnet",
    "vfm.weights=random",
    "select.every=1",
)
SETTINGS = [word for setting in TINY for word in ("--set", setting)]


def runs(**ious):
    """By seed the IoU, which all images of a run have alike."""
    return [
        {"seed": int(seed.removeprefix("seed")), accuracy.IMAGES: {"student": scored_images(np.full(20, 2 * iou))}}
        for seed, iou in ious.items()
    ]


def test_runs_are_compared_by_pairs_of_a_seed():
    """Where no image differs from another, the interval is that of the seeds alone."""
    found = accuracy.gain(runs(seed0=0.42, seed1=0.31, seed2=0.23), runs(seed2=0.2, seed1=0.3, seed0=0.4), "student")
    assert found.iou == pytest.approx(0.02, abs=1e-6)
    assert found.half == pytest.approx(4.302653 * 0.01 / 3**0.5, rel=1e-3)  # Student's t with two degrees of freedom
    assert str(found).endswith("over images and 3 seeds")
    found = accuracy.gain(runs(seed0=0.42), runs(seed0=0.4, seed1=0.1), "student")
    assert (found.iou, found.half) == (pytest.approx(0.02, abs=1e-6), pytest.approx(0, abs=1e-6))
    assert str(found).endswith("over the images, with a single seed")


def test_a_run_that_was_cut_off_goes_on_and_one_that_is_done_is_not_repeated(tmp_path, capsys, monkeypatch):
    write_scenes(tmp_path / "scenes", 16, 1)
    arguments = ["--data", str(tmp_path / "scenes"), "--seeds", "0", "--out", str(tmp_path / "out"), *SETTINGS]
    append = RunFolder.append

    def interrupt(run, line):
        if line["epoch"] == 1:
            raise KeyboardInterrupt
        append(run, line)

    monkeypatch.setattr(RunFolder, "append", interrupt)
    with pytest.raises(KeyboardInterrupt):
        accuracy.main([*arguments, "--variants", "method"])
    monkeypatch.undo()
    capsys.readouterr()
    assert accuracy.main([*arguments, "--variants", "method", "plain", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["compared_with"] == "method"
    (method,), (plain,) = figures["method"]["runs"], figures["plain"]["runs"]
    gained = figures["iou_gain"]["plain"]["student"]
    assert gained["iou"] == pytest.approx(plain["student"]["iou"] - method["student"]["iou"])
    assert gained["half"] >= 0 and gained["seeds"] == 1
    log = (tmp_path / "out" / "quick-method-0" / "log.txt").read_text()
    assert "resumed after 1 of 2 epochs" in log

    assert accuracy.main([*arguments, "--variants", "method", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"]["runs"] == [method]
    assert (tmp_path / "out" / "quick-method-0" / "log.txt").read_text() == log
    assert accuracy.main([*arguments, "--variants", "method", "--set", "clusters.count=1"]) == 2
    assert "was made with another clusters.count" in capsys.readouterr().err
    assert accuracy.main([*arguments, "--variants", "method", "--set", "data.augment=0"]) == 2
    told = capsys.readouterr().err
    assert told.endswith("quick-method-0: was made with another data.augment; give another --out, or remove it\n")


def test_a_run_on_other_data_is_not_taken_for_one_on_these(tmp_path, capsys):
    for number in (1, 2):
        write_scenes(tmp_path / f"scenes-{number}", 16, number)
    arguments = ["--seeds", "0", "--out", str(tmp_path / "out"), *SETTINGS, "--variants", "method"]
    first, second = (["--data", str(tmp_path / f"scenes-{number}")] for number in (1, 2))
    assert accuracy.main([*first, *arguments]) == 0
    assert accuracy.main([*second, *arguments]) == 2
    told = capsys.readouterr().err
    assert f"quick-method-0: was trained on other data than {tmp_path / 'scenes-2'}" in told
