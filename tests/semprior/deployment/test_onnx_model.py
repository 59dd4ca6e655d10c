"""Exported models from outside: what is one is evaluated, and what is not is refused in one line."""

import json
import os

import cv2
import numpy as np
import pytest

from semprior.cli.app import main
from semprior.data.images import IntensityRange
from semprior.deployment.evaluate import evaluate
from semprior.deployment.onnx_export import RUN_KEY, describe
from semprior.deployment.onnx_model import load_onnx
from semprior.deployment.predict import predict
from semprior.errors import UserError
from tests.tiny import LEVEL, bright_student, optional, write_dataset

onnx = optional("onnx")
optional("onnxruntime")
optional("onnxscript")
helper = onnx.helper


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("onnx") / "data")


def bright_model(intensity=None, nodes=(), initializers=(), threshold=0.5):
    """The model of `bright_student`: a target is what is brighter than `LEVEL`; `nodes` replace the last one."""
    info = bright_student(intensity, threshold).info
    ports = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 1, "height", "width"])
        for name in ("image", "probability")
    ]
    low, high = info.intensity.low, info.intensity.high
    numbers = {"level": low + LEVEL / 255 * (high - low), "slope": (high - low) / 255 * 10}
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["image", "level"], ["above"]),
            helper.make_node("Div", ["above", "slope"], ["logit"]),
            *(nodes or [helper.make_node("Sigmoid", ["logit"], ["probability"])]),
        ],
        "bright",
        ports[:1],
        ports[1:],
        [
            *(helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value]) for name, value in numbers.items()),
            *initializers,
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    describe(model, info, "float32")
    return model


def written(path, model):
    onnx.save(model, path)
    return path


def test_it_scores_as_the_student_does(data, tmp_path, capsys):
    path = written(tmp_path / "bright.onnx", bright_model())
    assert main(["evaluate", str(path), "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == evaluate(bright_student(), data).flat()
    assert main(["evaluate", str(path), "--data", str(data), "--split", "holdout", "--by", "size"]) == 0
    assert main(["predict", str(path), str(data / "images/test00.png"), "--out", str(tmp_path / "out")]) == 0
    mask = cv2.imread(str(tmp_path / "out" / "test00_mask.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, cv2.imread(str(data / "labels" / "test00.png"), cv2.IMREAD_UNCHANGED))


def test_it_has_the_threshold_that_its_run_chose(tmp_path):
    model = bright_model(threshold=0.35)
    assert load_onnx(written(tmp_path / "chosen.onnx", model)).info.threshold == 0.35
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert notes["semprior.output"].endswith("a target where > 0.35")
    run = json.loads(notes[RUN_KEY])
    del run["threshold"]  # as earlier versions wrote it
    helper.set_model_props(model, {**notes, RUN_KEY: json.dumps(run)})
    assert load_onnx(written(tmp_path / "earlier.onnx", model)).info.threshold == 0.5


@pytest.mark.parametrize("intensity", [(1000.0, 52000.0), (-3.25, 0.5, True)])
def test_grey_levels_are_those_of_the_source(tmp_path, intensity):
    found = load_onnx(written(tmp_path / "wide.onnx", bright_model(IntensityRange(*intensity))))
    assert found.info.intensity == IntensityRange(*intensity)
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = bright_student().probabilities([image])[0]
    np.testing.assert_allclose(found.probabilities([image])[0], expected, atol=1e-5)


def test_a_large_image_is_processed_as_a_whole_up_to_a_size(tmp_path):
    """It interpolates within what it is given, so that tiles would give something else than the run does."""
    sizes = []
    found = load_onnx(written(tmp_path / "bright.onnx", bright_model()))
    run = found.run
    object.__setattr__(found, "run", lambda image: sizes.append(image.shape[2:]) or run(image))
    image = np.random.default_rng(0).integers(0, 255, (1111, 1500), np.uint8)
    small = np.random.default_rng(0).integers(0, 255, (33, 100), np.uint8)
    first, second = found.probabilities([image, small])
    assert (first.shape, second.shape) == (image.shape, small.shape)
    np.testing.assert_allclose(first, bright_student().probabilities([image])[0], atol=1e-4)
    assert sorted(sizes) == [small.shape, image.shape]
    large = np.zeros((2000, 2100), np.uint8)
    with pytest.raises(UserError, match=r"bright\.onnx: image 2 of 2: has 2000x2100 pixels.*or use the run itself"):
        found.probabilities([small, large])
    pictures = [tmp_path / "small.png", tmp_path / "large.png"]
    for path, picture in zip(pictures, (small, large), strict=True):
        cv2.imwrite(str(path), picture)
    with pytest.raises(UserError, match=r"large\.png: has 2000x2100 pixels"):
        predict(found, pictures, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_reports_of_it_say_what_those_of_its_run_say(data, tmp_path, capsys):
    """A file of an earlier version, which has no such settings, is read as before."""
    path = written(tmp_path / "masks.onnx", noted(**settings(**{"labels.seed": "masks", "labels.refine": "none"})))
    assert main(["evaluate", str(path), "--data", str(data), "--json"]) == 0
    assert "TRUE MASKS" in capsys.readouterr().err
    assert main(["predict", str(path), str(data / "images/test00.png"), "--out", str(tmp_path / "out")]) == 0
    assert "TRUE MASKS" in capsys.readouterr().out
    changed = settings(**{"vfm.name": "test_efficientnet", "vfm.weights": "random"})
    path = written(tmp_path / "random.onnx", noted(vfm="a key", **changed))
    assert main(["evaluate", str(path), "--data", str(data), "--json"]) == 0
    assert "test_efficientnet with RANDOM weights" in capsys.readouterr().err
    run = settings()
    del run["settings"]["labels.seed"]
    earlier = load_onnx(written(tmp_path / "earlier.onnx", noted(**run)))
    assert earlier.info.config.labels.seed == "generator"


def noted(**changes):
    """The model, with the description of its run changed."""
    model = bright_model()
    notes = {entry.key: entry.value for entry in model.metadata_props}
    run = json.loads(notes[RUN_KEY]) | changes
    helper.set_model_props(model, {**notes, RUN_KEY: json.dumps(run)})
    return model


def without_notes():
    model = bright_model()
    del model.metadata_props[:]
    return model


def settings(**changes):
    run = json.loads(next(e.value for e in bright_model().metadata_props if e.key == RUN_KEY))
    return {"settings": {**run["settings"], **changes}}


def outside():
    """A model one of whose weights is the content of a file of this machine."""
    weight = onnx.TensorProto(name="secret", data_type=onnx.TensorProto.FLOAT, dims=[1])
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/hostname")
    nodes = [helper.make_node("Mul", ["logit", "secret"], ["p"]), helper.make_node("Sigmoid", ["p"], ["probability"])]
    return bright_model(nodes=nodes, initializers=[weight])


def constant_outside():
    model = outside()
    weight = model.graph.initializer.pop()
    model.graph.node.insert(0, helper.make_node("Constant", [], ["secret"], value=weight))
    return model


def endless():
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, [])],
    )
    true = helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("Loop", ["", "true"], [], body=body),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    return bright_model(nodes=nodes, initializers=[true])


def last(*operators):
    """The model with other operators in the place of the sigmoid."""
    names = ["logit", *(f"step{number}" for number in range(1, len(operators))), "probability"]
    return bright_model(
        nodes=[helper.make_node(name, names[i : i + 1], names[i + 1 : i + 2]) for i, name in enumerate(operators)]
    )


REFUSED = [
    (without_notes, "lacks semprior.run among its metadata; export it"),
    (outside, "its weights lie in another file"),
    (constant_outside, "its weights lie in another file"),
    (endless, "has no loop, branch or function"),
    (lambda: last("Relu"), "gives values that are no float32 probabilities"),
    (lambda: last("Log", "Sigmoid"), "gives values that are no float32 probabilities"),
    (lambda: last("GlobalAveragePool", "Sigmoid"), "does not give one probability for each pixel"),
    (lambda: last("Fourier"), "onnxruntime cannot load it"),
    (lambda: noted(settings={}), "semprior.run: does not describe a run"),
    (lambda: noted(epoch="many"), "semprior.run: its epoch is not a number of epochs"),
    (lambda: noted(epoch=-5), "semprior.run: its epoch is not a number of epochs"),
    (lambda: noted(epoch=1.5), "semprior.run: its epoch is not a number of epochs"),
    (lambda: noted(vfm=7), "or its vision model is not named by a text"),
    (lambda: noted(**settings(detector="nosuch")), "semprior.run: detector: must be one of alclnet"),
    (lambda: noted(intensity=[0, 255, 7]), "semprior.run: its grey levels"),
    (lambda: noted(threshold=1.5), "semprior.run: its threshold is not in 0..1"),
    (lambda: noted(intensity=[5, 5]), "semprior.run: its grey levels"),
    (
        lambda: noted(normalisation=[0.5, float("nan")]),
        "semprior.run: is damaged: not valid JSON (NaN is not a number)",
    ),
    (lambda: noted(intensity=[10**400, 1]), "semprior.run: does not describe a run"),
    (lambda: noted(more="x" * (1 << 17)), "where a run needs a few hundred"),
    (lambda: noted(**settings(**{"data.holdout": "all"})), "semprior.run: data.holdout must be a number"),
    (lambda: noted(**settings(preset="\x1b[2J")), "preset: must be paper, quick, standard"),
]


@pytest.mark.parametrize(("make", "fault"), REFUSED, ids=[fault[:40] for _, fault in REFUSED])
def test_another_model_is_one_line(data, tmp_path, capsys, make, fault):
    path = written(tmp_path / "other.onnx", make())
    assert main(["evaluate", str(path), "--data", str(data)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"semprior: {path}: ") and fault in error
    assert error.count("\n") == 1 and "\x1b" not in error


def test_what_is_no_model_is_one_line(data, tmp_path, capsys, monkeypatch):
    whole = bright_model().SerializeToString()
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("not a model" * 99)
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "large.onnx").write_bytes(whole)
    for name, fault in {
        "pipe": "cannot be read: is not a regular file",
        "cut": "is not an ONNX model, or is damaged",
        "text": "is not an ONNX model, or is damaged",
        "empty": "lacks semprior.run",
        "gone": "cannot be read: No such file",
    }.items():
        assert main(["predict", str(tmp_path / f"{name}.onnx"), "x.png", "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert f"{name}.onnx: {fault}" in error and error.count("\n") == 1, name
    monkeypatch.setattr("semprior.deployment.onnx_model._LARGEST_FILE", 100)
    with pytest.raises(UserError, match=r"large\.onnx: holds .* MB; at most"):
        load_onnx(tmp_path / "large.onnx")


def test_mistaken_arguments(data, tmp_path, capsys, monkeypatch):
    path = written(tmp_path / "bright.onnx", bright_model())
    assert main(["evaluate", str(path), "--data", str(data), "--teacher"]) == 2
    assert "holds the student alone" in capsys.readouterr().err
    monkeypatch.setattr("semprior.deployment.onnx_export._NEEDED", ("a_package_that_is_not_there",))
    assert main(["evaluate", str(path), "--data", str(data)]) == 2
    assert "pip install 'semprior[export]'" in capsys.readouterr().err
