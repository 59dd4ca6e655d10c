"""The int8 model: quantised where it may be, calibrated on training images alone, and evaluated like any other."""

import json
from collections import Counter

import cv2
import numpy as np
import pytest

from semprior.cli.app import main
from semprior.data.images import IntensityRange
from semprior.deployment.onnx_int8 import calibration_images
from semprior.errors import UserError
from tests.tiny import optional, write_checkpoint, write_dataset

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("int8") / "data")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("int8") / "checkpoint")


def test_the_int8_model_is_written_evaluated_and_predicts(data, checkpoint, tmp_path, capsys):
    onnx, path = optional("onnx"), tmp_path / "new" / "int8.onnx"
    optional("onnxruntime")
    optional("onnxscript")
    assert main(["export", str(checkpoint), "--out", str(path), "--int8", "--calibration", str(data)]) == 0
    printed = capsys.readouterr()
    assert "int8, calibrated on 12 training images" in printed.out and not printed.err
    assert [file.name for file in path.parent.iterdir()] == ["int8.onnx"]

    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    inputs = [[makers.get(name) for name in node.input[:2]] for node in graph.node if node.op_type == "Conv"]
    kinds = Counter(tuple(maker.op_type if maker else "" for maker in pair) for pair in inputs)
    assert kinds.pop(("DequantizeLinear", "DequantizeLinear")) == len(inputs) - 1  # all but the last
    assert len(kinds) == 1
    users = Counter((name, node.op_type) for node in graph.node for name in node.input)
    eight_bit = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    restored = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    for name, quantised in eight_bit.items():  # sums, concatenations and pools are only where a convolution reads them
        computed_in_8_bits = makers[name].op_type in ("Conv", "Relu") if name in makers else False
        assert computed_in_8_bits or users[restored[quantised], "Conv"], name
    assert makers["probability"].op_type != "DequantizeLinear"  # probabilities have more than 256 values

    found = {}
    for model in (checkpoint, path):
        out = tmp_path / f"from {model.name}"
        assert main(["predict", str(model), str(data / "images" / "test00.png"), "--out", str(out)]) == 0
        found[model] = cv2.imread(str(out / "test00_probability.png"), cv2.IMREAD_UNCHANGED).astype(int)
    capsys.readouterr()
    gap = np.abs(found[path] - found[checkpoint])
    assert 0 < gap.mean() < 0.1 * np.ptp(found[checkpoint])
    assert np.corrcoef(found[path].ravel(), found[checkpoint].ravel())[0, 1] > 0.95
    assert main(["evaluate", str(path), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 4


def test_calibration_reads_training_images_alone(tmp_path):
    data = write_dataset(tmp_path / "data")
    for split in ("test", "val"):
        for image in (data / "images").glob(f"{split}*.png"):
            image.write_bytes(image.read_bytes()[:50])  # a damaged image, which whoever reads it finds
    images = calibration_images(data, IntensityRange())
    assert [image.shape for image in images] == [(80, 80)] * 12
    few = calibration_images(data, IntensityRange(), count=3)
    assert [np.array_equal(few[i], images[j]) for i, j in ((0, 0), (2, 11))] == [True, True]
    (data / "images" / "train00.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train00\.png"):
        calibration_images(data, IntensityRange())


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--int8"], "--int8: needs --calibration DIR"),
        (["--calibration", "x"], "--calibration: is for --int8 alone"),
        (["--int8", "--calibration", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_mistaken_arguments(checkpoint, tmp_path, capsys, arguments, fault):
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "int8.onnx"), *arguments]) == 2
    error = capsys.readouterr().err
    assert fault in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
