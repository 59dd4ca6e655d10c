"""Exports the student with int8 convolutions: static quantisation with calibration images, as QDQ.

The ranges of activations are the smallest and largest values on the calibration images (a percentile would cut off the
targets, which are the few brightest values), the weights have a scale for each channel. Quantised are convolutions and
their ReLUs. All else stays in float32: sums, concatenations, pools and interpolations, which cost accuracy in 8 bits,
and the intensity range, the normalisation, the last convolution and the sigmoid, so that probabilities are not rounded
to 256 steps. Weights have 7 bits: with 8, the products of two
neighbours exceed 16 bits in the instructions of AVX2, and a file would compute something else on such a processor.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semprior.data.images import IntensityRange, read_image
from semprior.data.layout import find_layout
from semprior.deployment.load_model import Student
from semprior.deployment.onnx_export import (
    INPUT,
    OUTPUT,
    describe,
    exported,
    largest_gap,
    require_onnx,
    source_values,
)
from semprior.errors import UserError
from semprior.evaluation.tiles import TILE
from semprior.io.atomic_files import atomic_file, naming

CALIBRATION_IMAGES = 64
_QUANTISED = ("Conv", "Relu")  # sums and concatenations need more than 8 bits: GGLNet lost 8 points of IoU by theirs


def calibration_images(data: Path, intensity: IntensityRange, count: int = CALIBRATION_IMAGES) -> list[np.ndarray]:
    """Images of the training split, spread evenly over it; other splits are not read.

    Args:
        data: root of a data set.
        intensity: of the run.
        count: of the images at most.

    Returns:
        (H,W) uint8 each, cut to a tile of inference.

    Raises:
        UserError: the data set or one of the images has a fault.
    """
    layout = find_layout(data)
    names = layout.splits.get("train", ())
    if not names:
        raise UserError(f"--calibration {data}: has no training images")
    chosen = sorted({round(place) for place in np.linspace(0, len(names) - 1, min(count, len(names)))})
    images = []
    for name in (names[index] for index in chosen):
        files = layout.images.get(name)
        if not files:
            raise UserError(f"{layout.root / 'images'}: no image {name}, which {layout.listed_in['train']} lists")
        image = read_image(files[0], intensity)
        assert image is not None  # without a list of faults, a fault is raised
        images.append(image[:TILE, :TILE])
    return images


def export_int8(student: Student, path: Path, images: Sequence[np.ndarray]) -> float:
    """Write the student as ONNX with int8 convolutions, after running it at two image sizes.

    Args:
        student: from `load_model.load_student`, on the CPU.
        path: of the file, which is replaced if it exists.
        images: (H,W) uint8 each, for calibration.

    Returns:
        The largest difference in probability from PyTorch in float32; what it costs in accuracy, `evaluate` measures.

    Raises:
        UserError: the extra `export` is not installed.
        RuntimeError: onnxruntime computes no probabilities.
    """
    require_onnx("export")
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    deployed, model = exported(student)
    with naming(path), atomic_file(path) as scratch:
        quantised = quantise(model, images, student.info.intensity)
        describe(quantised, student.info, f"int8 convolutions, calibrated on {len(images)} images")
        onnx.save(quantised, scratch)
        gap = largest_gap(deployed, scratch)
        if not np.isfinite(gap):
            raise RuntimeError("onnxruntime computes no probabilities with the int8 model")
        return gap


def quantise(model: Any, images: Sequence[np.ndarray], intensity: IntensityRange) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """An `onnx.ModelProto` of `onnx_export.exported` with int8 convolutions, as another one.

    Args:
        model: in float32.
        images: (H,W) uint8 each, for calibration.
        intensity: of the run.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantise_static

    class Reader(CalibrationDataReader):  # type: ignore[misc] # the package carries no types
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {INPUT: source_values(image, intensity)[None, None]}

    with tempfile.TemporaryDirectory(prefix="semprior-int8-") as folder:
        plain, result = Path(folder) / "plain.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, plain)
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises steps of preparation that the exporter has taken
        try:
            quantise_static(
                plain,
                result,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                nodes_to_exclude=_last_nodes(model.graph),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        finally:
            root.setLevel(level)
        return onnx.load(result)


def _last_nodes(graph: Any) -> list[str]:  # noqa: ANN401 - an onnx.GraphProto
    """Names of the nodes from the last convolutions to the probability."""
    makers = {name: node for node in graph.node for name in node.output}
    found, waiting = [], [OUTPUT]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in found:
            found.append(node.name)
            waiting += [] if node.op_type == "Conv" else node.input[:1]
    return found
