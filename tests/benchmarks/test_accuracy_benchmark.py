"""The benchmark of accuracy, on a few small scenes."""

import json

import numpy as np
import pytest

from benchmarks import accuracy
from semprior.data.synthetic.scenes import write_scenes
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
    mean, half = accuracy.gain(
        runs(seed0=0.42, seed1=0.31, seed2=0.23), runs(seed2=0.2, seed1=0.3, seed0=0.4), "student"
    )
    assert mean == pytest.approx(0.02, abs=1e-6)
    assert half == pytest.approx(4.302653 * 0.01 / 3**0.5, rel=1e-3)  # Student's t with two degrees of freedom
    mean, half = accuracy.gain(runs(seed0=0.42), runs(seed0=0.4, seed1=0.1), "student")
    assert (mean, half) == (pytest.approx(0.02, abs=1e-6), pytest.approx(0, abs=1e-6))


def test_a_kept_run_is_not_repeated_and_not_taken_for_another(tmp_path, capsys):
    write_scenes(tmp_path / "scenes", 16, 1)
    arguments = ["--data", str(tmp_path / "scenes"), "--seeds", "0", "--out", str(tmp_path / "out"), *SETTINGS]
    assert accuracy.main([*arguments, "--variants", "method", "fp32", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["compared_with"] == "method"
    (of_bf16,), (of_fp32,) = figures["method"]["runs"], figures["fp32"]["runs"]
    gained = pytest.approx(of_fp32["student"]["iou"] - of_bf16["student"]["iou"])
    mean, half = figures["iou_gain"]["fp32"]["student"]
    assert mean == gained and half >= 0

    reports = tmp_path / "out" / "quick-method-0" / accuracy.REPORTS
    written = reports.stat().st_mtime_ns
    assert accuracy.main([*arguments, "--variants", "method", "--json"]) == 0
    assert reports.stat().st_mtime_ns == written
    assert json.loads(capsys.readouterr().out)["method"]["runs"] == [of_bf16]

    assert accuracy.main([*arguments, "--variants", "method", "--set", "data.augment=0"]) == 2
    told = capsys.readouterr().err
    assert told.endswith("quick-method-0: was made with another data.augment; give another --out, or remove it\n")
