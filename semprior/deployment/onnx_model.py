"""Loads exported students (`onnx_export`), to evaluate them and to predict images.

A file from elsewhere is not trusted: it is read up to a size, may name no file beside itself, and may hold no loop, no
branch and no function, which no exported detector has. What onnxruntime cannot run is an error in one line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semprior.config.schema import preset_names, unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.deployment.load_model import CheckpointInfo, Student, load_student
from semprior.deployment.onnx_export import (
    INPUT,
    OUTPUT,
    REPORTED_LEAVES,
    RUN_KEY,
    RUN_LEAVES,
    SUFFIX,
    require_onnx,
    source_values,
)
from semprior.errors import UserError
from semprior.evaluation.inference import Probabilities, in_order, iter_probabilities
from semprior.evaluation.metrics import THRESHOLD
from semprior.evaluation.tiles import padded
from semprior.io.foreign_text import visible
from semprior.models.detector import detector_names
from semprior.reading.files import read_bytes
from semprior.reading.json_text import parse_json
from semprior.runtime.device import choose_device

_LARGEST_FILE = 1 << 29  # bytes; the largest detector has a tenth of it
_LARGEST_NOTE = 1 << 16  # characters of the metadata of the run
_LONGEST_FAULT = 200  # characters of a message of onnxruntime
_LARGEST_IMAGE = 1 << 22  # pixels, padded; the largest detectors need 5 GB for it
_CERTAIN = 1e-7  # nearer to 0 and 1, a float32 probability has no logit

Run = Callable[[np.ndarray], np.ndarray]
"""Computes the probabilities (1,1,H,W) float32 of source grey values (1,1,H,W) float32."""


@dataclass(frozen=True)
class OnnxStudent:
    """An exported student in onnxruntime, on the CPU; it takes and gives what `load_model.Student` does.

    A student in PyTorch processes a large image in tiles, which interpolate as the whole image would. An exported model
    interpolates within what it is given, so that it is given the whole image.

    Attributes:
        run: the model.
        info: what its metadata say of its run; `checkpoint` is the file.
    """

    run: Run
    info: CheckpointInfo

    def require_size(self, shape: tuple[int, ...], name: str) -> None:
        """Require an image of a size that can be processed as a whole.

        Args:
            shape: (H,W).
            name: of the image, for the message.

        Raises:
            UserError: it is too large.
        """
        height, width = shape
        if padded(height) * padded(width) > _LARGEST_IMAGE:
            raise UserError(
                f"{name}: has {height}x{width} pixels, and exported models take up to {_LARGEST_IMAGE:,} at once here;"
                " cut it, or use the run itself"
            )

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Probability of a target at every pixel of images (H,W) uint8 of any sizes: (H,W) float32 each."""
        return in_order(self.each(images))

    def each(self, images: Sequence[np.ndarray]) -> Probabilities:
        """As `probabilities`, with one batch at a time in memory: pairs of the index of an image and its values.

        Raises:
            UserError: an image is too large to be processed as a whole.
        """
        for index, image in enumerate(images):
            self.require_size(image.shape, f"{self.info.checkpoint}: image {index + 1} of {len(images)}")
        return iter_probabilities(self._logits, images, self.device, bf16=False, whole=_LARGEST_IMAGE)

    def _logits(self, _: Sequence[int] | None, grey: Tensor, sizes: Tensor) -> Tensor:
        """Logits of padded images; the model pads by itself, so that it is given the images without their padding."""
        logits = torch.zeros(grey.shape)
        for slot, (height, width) in enumerate(sizes.tolist()):
            image = source_values(grey[slot, 0, :height, :width].numpy(), self.info.intensity)
            probability = torch.from_numpy(self.run(image[None, None])[0, 0])
            logits[slot, 0, :height, :width] = torch.logit(probability, eps=_CERTAIN)
        return logits


def load_exported_or_trained(path: Path, device: str) -> Student | OnnxStudent:
    """The student of an exported model, a run or a checkpoint.

    Args:
        path: of one of these.
        device: ``auto``, ``cpu`` or ``cuda``; exported models run on the CPU.

    Raises:
        UserError: as `load_onnx` and `load_model.load_student`, or the device cannot be used.
    """
    if not is_onnx(path):
        return load_student(path, choose_device(device))
    if choose_device("cpu" if device == "auto" else device).type != "cpu":
        raise UserError(f"--device {device}: an exported model runs on the CPU here; use auto or cpu")
    return load_onnx(path)


def is_onnx(path: Path) -> bool:
    """Whether a path names an exported model rather than a run or a checkpoint."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def load_onnx(path: Path) -> OnnxStudent:
    """Load a student that `onnx_export.export` or `onnx_int8.export_int8` wrote; it uses as many threads as PyTorch.

    Args:
        path: of the file.

    Raises:
        UserError: the extra `export` is not installed; the file cannot be read, or is another model.
    """
    require_onnx(str(path))
    content = read_bytes(path, _LARGEST_FILE)
    info = _check_model(content, path)
    return OnnxStudent(_session(content, path, torch.get_num_threads()), info)


def _check_model(content: bytes, path: Path) -> CheckpointInfo:
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, whose exceptions have no common base
        raise UserError(f"{path}: is not an ONNX model, or is damaged") from error
    notes = {entry.key: entry.value for entry in model.metadata_props}
    if RUN_KEY not in notes:
        raise UserError(f"{path}: lacks {RUN_KEY} among its metadata; export it with this version of semprior")
    ports = [entry.name for entry in model.graph.input], [entry.name for entry in model.graph.output]
    if ports != ([INPUT], [OUTPUT]):
        raise UserError(f"{path}: is not an exported detector, which takes '{INPUT}' and gives '{OUTPUT}' alone")
    if model.functions or any(
        attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        for node in model.graph.node
        for attribute in node.attribute
    ):
        raise UserError(f"{path}: is not an exported detector, which has no loop, branch or function")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise UserError(f"{path}: its weights lie in another file; an exported detector has them all in itself")
    return _info(notes[RUN_KEY], path)


def _tensors(model: Any) -> Iterator[Any]:  # noqa: ANN401 - of an onnx.ModelProto
    """All tensors of a model without subgraphs."""
    yield from model.graph.initializer
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _info(note: str, path: Path) -> CheckpointInfo:
    place = f"{path}: {RUN_KEY}"
    if len(note) > _LARGEST_NOTE:
        raise UserError(f"{place}: has {len(note)} characters, where a run needs a few hundred")
    try:
        run = parse_json(note, dict[str, Any], place)
        settings = {key: run["settings"][key] for key in RUN_LEAVES}
        # Earlier versions wrote neither these, nor a VFM, nor a threshold.
        settings |= {key: run["settings"][key] for key in REPORTED_LEAVES if key in run["settings"]}
        mean, std, *intensity = (float(number) for number in [*run["normalisation"], *run["intensity"]])
        found, floating = IntensityRange.restored(intensity), intensity[2:]
        epoch, vfm, threshold = run["epoch"], run.get("vfm"), float(run.get("threshold", THRESHOLD))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{place}: does not describe a run ({type(error).__name__})") from error
    if (
        not all(map(math.isfinite, (mean, std, found.low, found.high)))
        or std <= 0
        or found.low >= found.high
        or floating not in ([], [1])
    ):
        raise UserError(f"{place}: its grey levels are not a mean, a positive deviation and a range")
    if not 0 <= threshold < 1:
        raise UserError(f"{place}: its threshold is not in 0..1")
    if type(epoch) is not int or epoch < 0 or not isinstance(vfm, str | None):
        raise UserError(f"{place}: its epoch is not a number of epochs, or its vision model is not named by a text")
    config = unflatten({**settings, "precision": "fp32"}, place)
    if config.preset not in preset_names():
        raise UserError(f"{place}: preset: must be {', '.join(preset_names())}, not '{visible(config.preset)}'")
    if config.detector not in detector_names():
        raise UserError(f"{place}: detector: must be one of {', '.join(detector_names())}")
    return CheckpointInfo(path, config, epoch, Normalisation(mean, std), found, vfm, threshold)


def _session(content: bytes, path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is an exception, and in one line
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base of their own
        raise UserError(f"{path}: onnxruntime cannot load it: {_first_line(error)}") from error

    def run(image: np.ndarray) -> np.ndarray:
        try:
            (probability,) = session.run([OUTPUT], {INPUT: image})
        except Exception as error:
            raise UserError(f"{path}: onnxruntime cannot run it: {_first_line(error)}") from error
        if not isinstance(probability, np.ndarray) or probability.shape != image.shape:
            raise UserError(f"{path}: does not give one probability for each pixel")
        if probability.dtype != np.float32 or not ((probability >= 0) & (probability <= 1)).all():
            raise UserError(f"{path}: gives values that are no float32 probabilities")
        return probability

    return run


def _first_line(error: Exception) -> str:
    return visible((str(error).strip().splitlines() or [type(error).__name__])[0][:_LONGEST_FAULT])
