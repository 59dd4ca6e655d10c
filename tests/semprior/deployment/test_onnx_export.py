"""The exported student computes what `predict` does, at sizes it was not exported at."""

import json
import os

import cv2
import numpy as np
import pytest
import torch

import semprior.deployment.onnx_export as exporting
from semprior.cli.app import main
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.deployment.load_model import load_student
from tests.repository import ROOT
from tests.tiny import optional, write_checkpoint, write_dataset

pytestmark = pytest.mark.trains

RANGE = (1000.0, 9000.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("export") / "checkpoint", intensity=RANGE, **{"data.holdout": 0.25})


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """The file, and a session that runs it. Made once, as an export takes seconds."""
    optional("onnxscript")
    runtime = optional("onnxruntime")
    path = tmp_path_factory.mktemp("export") / "new" / "student.onnx"
    assert main(["export", str(checkpoint), "--out", str(path)]) == 0
    return path, runtime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 1, 1), (2, 33, 100), (1, 127, 160)])
def test_source_grey_values_of_any_size_give_the_probabilities_of_predict(checkpoint, exported, shape):
    _, session = exported
    images = np.random.default_rng(1).integers(500, 10_000, shape).astype(np.uint16)
    student = load_student(checkpoint, torch.device("cpu"))
    expected = student.probabilities([IntensityRange(*RANGE).apply(image) for image in images])
    (found,) = session.run(["probability"], {"image": images[:, None].astype(np.float32)})
    assert found.shape == (shape[0], 1, *shape[1:])
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-3)
    assert found.max() > found.min() or found.size == 1


def test_the_file_says_what_it_takes(exported):
    path, session = exported
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, given.name) == ("image", "probability")
    assert [isinstance(side, str) for side in taken.shape] == [True, False, True, True]
    about = session.get_modelmeta().custom_metadata_map
    assert about["semprior.detector"] == "mlclnet"
    assert "16-bit" in about["semprior.input"]
    assert about["semprior.intensity"] == "1000 9000"
    assert os.listdir(path.parent) == ["student.onnx"]
    assert str(ROOT).encode() not in path.read_bytes()  # nor anything else of the machine that wrote it


def test_the_file_is_evaluated_and_predicts_as_the_checkpoint_does(checkpoint, exported, tmp_path, capsys):
    path, _ = exported
    data = write_dataset(tmp_path / "data", bits=16)
    found = {}
    for model in (checkpoint, path):
        assert main(["evaluate", str(model), "--data", str(data), "--split", "holdout", "--json"]) == 0
        found[model] = json.loads(capsys.readouterr().out)
        out = tmp_path / f"from {model.name}"
        assert main(["predict", str(model), str(data / "images" / "test00.png"), "--out", str(out)]) == 0
        capsys.readouterr()
    assert found[path] == pytest.approx(found[checkpoint], abs=0.01)
    assert found[path]["images"] == 3  # a quarter of the training images, as the run held out
    trained, read = (
        cv2.imread(str(tmp_path / f"from {model.name}" / "test00_probability.png"), cv2.IMREAD_UNCHANGED)
        for model in (checkpoint, path)
    )
    assert np.abs(trained.astype(int) - read).max() <= 1


def test_padding_is_black_before_normalisation():
    """The network must see what inference shows it: grey level 0 beyond the image."""

    class Spy(torch.nn.Module):
        def forward(self, x, sizes):
            self.seen = x
            assert sizes.tolist() == [[30, 40]]
            return x[:, :1]

    spy = Spy()
    deployed = exporting.Deployed(spy, Normalisation(0.4, 0.1), IntensityRange())
    out = deployed(torch.full((1, 1, 30, 40), 255.0))
    assert out.shape == (1, 1, 30, 40)
    assert spy.seen.shape == (1, 3, 32, 64)
    assert torch.allclose(spy.seen[0, :, 31, :], torch.tensor(-4.0))
    assert torch.allclose(spy.seen[0, :, :30, :40], torch.tensor(6.0))


def test_a_file_that_computes_something_else_does_not_appear(checkpoint, tmp_path, monkeypatch):
    optional("onnx")
    optional("onnxruntime")

    class Program:
        model_proto = None

    def refuse(*_):
        raise RuntimeError("onnxruntime's probabilities differ")

    import onnx

    graph = onnx.helper.make_graph([], "empty", [], [])
    Program.model_proto = onnx.helper.make_model(graph)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program)
    monkeypatch.setattr(exporting, "_check", refuse)
    student = load_student(checkpoint, torch.device("cpu"))
    with pytest.raises(RuntimeError, match="differ"):
        exporting.export(student, tmp_path / "student.onnx")
    assert os.listdir(tmp_path) == []


def test_the_check_shows_the_student_what_it_knows():
    for size in ((96, 64), (75, 133)):
        picture = exporting.example_image(np.random.default_rng(0), size, Normalisation(0.4, 0.1))
        assert picture.shape == size and picture.dtype == np.float32
        assert abs(np.median(picture) / 255 - 0.4) < 0.1  # the grey levels of the data,
        assert picture.max() > 255 * 0.8  # and what may be a target


def test_without_the_extra_it_says_how_to_get_it(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "_NEEDED", ("a_package_that_is_not_there",))
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "student.onnx")]) == 2
    error = capsys.readouterr().err
    assert "pip install 'semprior[export]'" in error
    assert error.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_another_suffix_is_refused_as_nothing_would_read_it(checkpoint, tmp_path, capsys):
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "model.bin")]) == 2
    assert "model.bin: its name must end in .onnx" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
