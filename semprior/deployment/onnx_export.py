"""Exports the student as ONNX, from source grey values of any size to probabilities.

The file says in its metadata what it takes and gives, and under `RUN_KEY` what its evaluation needs besides
(`semprior.deployment.onnx_model` reads it). It holds nothing of the machine that wrote it: the exporter's notes on each
node, with the paths of source files, are removed.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.config.schema import flatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.deployment.load_model import CheckpointInfo, Student
from semprior.errors import UserError
from semprior.evaluation.tiles import MULTIPLE
from semprior.io.atomic_files import atomic_file, naming
from semprior.models.detector import Detector

INPUT, OUTPUT = "image", "probability"
SUFFIX = ".onnx"
RUN_KEY = "semprior.run"
"""Name of the metadata that are a JSON object of the run: settings, epoch, threshold, grey levels."""
RUN_LEAVES = ("detector", "preset", "data.holdout", "data.holdout_seed", "data.folds", "data.fold")
"""The settings that an exported model carries: those that its evaluation depends on."""
REPORTED_LEAVES = ("labels.seed", "labels.refine", "vfm.name", "vfm.weights")
"""Settings that reports of it name; the last two only where the weights are random, as they may be a path."""
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_CHECKED_SIZES = ((96, 64), (75, 133))  # a multiple of the detector's, and one that needs padding
_LARGEST_GAP = 5e-3  # of a probability, between PyTorch and onnxruntime


class Deployed(nn.Module):
    """The student with its pre- and post-processing: intensity range, padding, normalisation, sigmoid.

    Args:
        detector: in eval mode, float32.
        normalisation: of grey levels.
        intensity: of the source images.
    """

    def __init__(self, detector: Detector, normalisation: Normalisation, intensity: IntensityRange) -> None:
        super().__init__()
        self.detector = detector
        self.normalisation = normalisation
        self.intensity = intensity

    def forward(self, image: Tensor) -> Tensor:
        """Source grey values (B,1,H,W) float32, of the depth as in training, to probabilities (B,1,H,W) float32."""
        height, width = image.shape[-2:]
        if self.intensity.bits != 8:
            low, high = self.intensity.low, self.intensity.high
            image = torch.round((image - low) * (255 / (high - low))).clamp(0, 255)
        rows = (height + MULTIPLE - 1) // MULTIPLE * MULTIPLE
        columns = (width + MULTIPLE - 1) // MULTIPLE * MULTIPLE
        padded = F.pad(image, (0, columns - width, 0, rows - height))
        normal = (padded / 255 - self.normalisation.mean) / self.normalisation.std
        sizes = torch.stack([torch.full((1,), extent, dtype=torch.int64) for extent in (height, width)], dim=1)
        logits: Tensor = self.detector(normal.expand(-1, 3, -1, -1), sizes)
        return torch.sigmoid(logits)[..., :height, :width]


def export(student: Student, path: Path) -> float:
    """Write the student as ONNX, after comparing it with onnxruntime at two image sizes.

    Batch, height and width are dynamic. The network processes an image of any size as a whole, never in tiles.

    Args:
        student: from `load_model.load_student`, on the CPU.
        path: of the file, which is replaced if it exists.

    Returns:
        The largest difference in probability between PyTorch and onnxruntime.

    Raises:
        UserError: the extra `export` is not installed.
        RuntimeError: onnxruntime computes other probabilities.
    """
    require_onnx("export")
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    deployed, model = exported(student)
    with naming(path), atomic_file(path) as scratch:
        onnx.save(model, scratch)
        return _check(deployed, scratch)


def require_onnx(command: str) -> None:
    """Require the packages of the extra `export`.

    Args:
        command: what needs them, for the message.

    Raises:
        UserError: one of them is not installed.
    """
    if any(find_spec(name) is None for name in _NEEDED):
        raise UserError(f"{command} needs onnx and onnxruntime: pip install 'semprior[export]'")


def exported(student: Student) -> tuple[Deployed, Any]:
    """The student with its pre- and post-processing, in PyTorch and as an `onnx.ModelProto` with its metadata."""
    info = student.info
    detector = student.detector.float().to(memory_format=torch.contiguous_format)
    deployed = Deployed(detector, info.normalisation, info.intensity).eval()
    dynamic = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    example = torch.zeros(2, 1, 70, 90)
    with _errors_only(), torch.no_grad():
        program = torch.onnx.export(
            deployed,
            (example,),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
        assert program is not None  # with dynamo=True it never is
        model = program.model_proto
    _remove_notes(model.graph)
    describe(model, info, "float32")
    return deployed, model


def describe(model: Any, info: CheckpointInfo, numbers: str) -> None:  # noqa: ANN401 - an onnx.ModelProto
    """Set the metadata of an `onnx.ModelProto`.

    Args:
        model: to describe; metadata of the same names are replaced.
        info: of the run.
        numbers: what its convolutions compute in, in words.
    """
    import onnx

    low, high = info.intensity.low, info.intensity.high
    flat = flatten(info.config)
    reported = REPORTED_LEAVES if info.vfm and info.config.vfm.weights == "random" else REPORTED_LEAVES[:2]
    run = {
        "settings": {key: flat[key] for key in (*RUN_LEAVES, *reported)},
        "vfm": info.vfm,
        "epoch": info.epoch,
        "threshold": info.threshold,
        "normalisation": [info.normalisation.mean, info.normalisation.std],
        "intensity": info.intensity.stored(),
    }
    onnx.helper.set_model_props(
        model,
        {
            "semprior.detector": info.config.detector,
            "semprior.input": f"grey values of {info.intensity.bits}-bit images, float32 (batch, 1, height, width)",
            "semprior.output": "probability of a target, float32 (batch, 1, height, width); a target where >"
            f" {info.threshold:g}",
            "semprior.intensity": f"{low:.9g} {high:.9g}",
            "semprior.numbers": numbers,
            RUN_KEY: json.dumps(run),
        },
    )


def _remove_notes(graph: Any) -> None:  # noqa: ANN401 - an onnx.GraphProto
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def source_values(image: np.ndarray, intensity: IntensityRange) -> np.ndarray:
    """Grey values (H,W) float32, as of the source, that the exported model maps to an image (H,W) in 0..255."""
    if intensity.bits == 8:
        return image.astype(np.float32)
    scaled = intensity.low + image.astype(np.float64) / 255 * (intensity.high - intensity.low)
    return scaled.astype(np.float32)


def _check(deployed: Deployed, path: Path) -> float:
    largest = largest_gap(deployed, path)
    if not largest <= _LARGEST_GAP:
        raise RuntimeError(f"onnxruntime's probabilities differ from PyTorch's by {largest}")
    return largest


def largest_gap(deployed: Deployed, path: Path) -> float:
    """The largest difference in probability between PyTorch and a file in onnxruntime, at two image sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng, gaps = np.random.default_rng(0), []
    for size in _CHECKED_SIZES:
        image = source_values(example_image(rng, size, deployed.normalisation), deployed.intensity)[None, None]
        (found,) = session.run(None, {INPUT: image})
        with torch.no_grad():
            expected = deployed(torch.from_numpy(image)).numpy()
        gaps.append(np.abs(found - expected).max())
    return float(np.max(gaps))  # NaN if one is


def example_image(rng: np.random.Generator, size: tuple[int, int], normalisation: Normalisation) -> np.ndarray:
    """An image of clouds and targets, (H,W) float32 in 0..255; on plain noise a student may predict 0 everywhere."""
    clouds = cv2.GaussianBlur(rng.standard_normal(size), (0, 0), 6)
    image = normalisation.mean + normalisation.std * clouds / clouds.std()
    rows, columns = np.ogrid[: size[0], : size[1]]
    for height in (0.15, 0.3, 0.5, 0.8):
        row, column = (rng.uniform(5, side - 5) for side in size)
        image += height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 5)
    grey: np.ndarray = np.rint(255 * np.clip(image, 0, 1)).astype(np.float32)
    return grey


@contextmanager
def _errors_only() -> Iterator[None]:
    """Within the context, the exporter logs nothing but errors."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
