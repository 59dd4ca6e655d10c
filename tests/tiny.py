"""Small data sets and checkpoints for the tests of the commands."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from semprior.config.schema import Config, flatten, unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.deployment.load_model import CheckpointInfo, Student
from semprior.io.checkpoint import Snapshot, save_checkpoint
from semprior.models.detector import create_detector, detector_spec
from semprior.models.scam import SCAM

SPLITS = {"train": 12, "val": 4, "test": 4}
LEVEL = 128  # of grey in 8 bit; targets are brighter, the background is darker
SETTINGS = (
    *("epochs=4", "data.crop=64", "data.batch=4", "data.holdout=0.25", "clusters.count=3", "scam.stages=none"),
    *("detector=mlclnet", "select.after=0", "outer.steps=1", "outer.every=2", "labels.evolve_every=2"),
    "labels.refine=evolve",
    *("seed=1", "optim.rate=5e-3", "optim.schedule=constant", "optim.average=0.5", "loss.output_bias=-2"),
    *("data.target_crops=0.8", "data.augment=0.5", "loss.background_weight=1"),
)
"""A run of seconds that finds targets in the end; `holdout=0.25` leaves 9 images to train on."""


def optional(name):
    """Import a package that need not be there; where everything is required its lack fails."""
    try:
        return __import__(name)
    except ModuleNotFoundError:
        if os.environ.get("SEMPRIOR_REQUIRE_ALL") == "1":
            raise
        return pytest.skip(f"{name} is not installed", allow_module_level=True)


def write_dataset(root: Path, *, masks: bool = True, bits: int = 8, side: int = 80) -> Path:
    """A data set of bright squares on a dark, smooth background; points in a table, the splits of `SPLITS`."""
    rng = np.random.default_rng(0)
    factor = 1 if bits == 8 else 64
    (root / "images").mkdir(parents=True)
    (root / "mode").mkdir()
    if masks:
        (root / "labels").mkdir()
    rows = [("name", "x", "y")]
    for split, count in SPLITS.items():
        names = [f"{split}{number:02d}" for number in range(count)]
        (root / "mode" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            image, mask, points = _scene(rng, side)
            cv2.imwrite(str(root / "images" / f"{name}.png"), (image * factor).astype(f"uint{bits}"))
            if masks:
                cv2.imwrite(str(root / "labels" / f"{name}.png"), mask * np.uint8(255))
            rows += [(name, column, row) for row, column in points]
    with (root / "points.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def _scene(rng, side):
    image = cv2.GaussianBlur(rng.normal(60, 40, (side, side)).astype(np.float32), (0, 0), 3).clip(10, 110)
    mask = np.zeros((side, side), np.uint8)
    points = []
    for row, column in ((rng.integers(8, 32), rng.integers(8, 70)), (rng.integers(48, 70), rng.integers(8, 70))):
        mask[row - 1 : row + 2, column - 1 : column + 2] = 1
        points.append((row, column))
    image[mask > 0] = rng.integers(180, 240)
    return image.astype(np.uint8), mask, points


class Bright(nn.Module):
    """A detector that is right on these images: a target is what is brighter than `LEVEL`."""

    def forward(self, x, sizes=None):
        return (x[:, :1] * 255 - LEVEL) / 10


def bright_student(intensity: IntensityRange | None = None, threshold: float = 0.5, **leaves) -> Student:
    """A student that finds every target of `write_dataset`; `threshold` is the one that its run chose."""
    config = unflatten({"precision": "fp32", **leaves})
    info = CheckpointInfo(
        Path("checkpoint"), config, 1, Normalisation(0.0, 1.0), intensity or IntensityRange(), None, threshold
    )
    return Student(Bright(), info, torch.device("cpu"))


def write_checkpoint(
    folder: Path, intensity=(0.0, 255.0), vfm: str | None = None, thresholds: dict | None = None, **leaves
) -> Path:
    """A checkpoint of an untrained run; without `thresholds`, as earlier versions wrote it."""
    flat = {"detector": "mlclnet", "precision": "fp32", "scam.stages": "none", "channels_last": False, **leaves}
    config: Config = unflatten(flat)
    torch.manual_seed(0)
    detector = create_detector(config.detector, output_bias=0.0).eval()
    with torch.no_grad():  # logits of both signs, neither saturated
        logits = detector(torch.randn(1, 3, 64, 64))
        layer, *_ = detector.output_layers()
        layer.weight.mul_(2 / logits.std())
        layer.bias.fill_(-2 * logits.mean() / logits.std())
    scam = SCAM((1,), detector_spec(config.detector).stages, (), 1.0)
    values = {
        "config": flatten(config),
        "epoch": 3,
        "normalisation": [0.3, 0.15],
        "intensity": list(intensity),
        "vfm": vfm,
    } | ({} if thresholds is None else {"thresholds": thresholds})
    tensors = {"student": detector.state_dict(), "modulator": scam.state_dict()}
    save_checkpoint(folder, Snapshot(tensors, {}, values))
    return folder
