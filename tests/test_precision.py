"""A run on processors with bfloat16 and without: the setting is a wish, its checkpoints go from one to the other."""

import json
import shutil

import pytest
import torch
from other_processor import require_both_kinds, semprior_there
from tiny import SETTINGS, optional, write_dataset

from semprior.checkpoint import load_checkpoint
from semprior.cli import main
from semprior.devices import used_precision
from semprior.run_folder import RunFolder

pytestmark = pytest.mark.avx2

VISION = ("scam.stages=[2]", "vfm.name=mobilenetv3_small_050", "vfm.weights=random", "vfm.width=8", "epochs=2")
FLAGS = [word for setting in (*SETTINGS, *VISION) for word in ("--set", setting)]
HERE = used_precision("bf16", torch.device("cpu"))
THERE = {"bf16": "fp32", "fp32": "bf16"}[HERE]
SAID = {"bf16": "on cpu, in bf16\n", "fp32": "on cpu, in fp32, since this processor has no bfloat16\n"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("precision") / "data")


@pytest.fixture(scope="module")
def from_there(data, tmp_path_factory):
    """A run of two epochs that was made on the other kind of processor."""
    require_both_kinds()
    out = tmp_path_factory.mktemp("precision") / "run"
    assert SAID[THERE] in semprior_there("train", "--data", data, "--out", out, *FLAGS)
    return out


@pytest.fixture
def lacking(monkeypatch):
    """This processor has no bfloat16."""
    for module in ("semprior.devices", "semprior.kernels.convolution"):
        monkeypatch.setattr(f"{module}.processor_has_bf16", lambda: False)


def lines(run):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in RunFolder(run).lines()]


def test_without_bfloat16_a_run_says_so_at_once_and_is_one_in_fp32(lacking, data, tmp_path, capsys):
    found = []
    for wish in ("bf16", "fp32"):
        out = tmp_path / wish
        arguments = ["train", "--data", str(data), "--out", str(out), *FLAGS, "--set", f"precision={wish}"]
        assert main(arguments) == 0
        found.append(lines(out))
        assert SAID["fp32"].partition(", since")[0] in capsys.readouterr().out.splitlines()[0]
        assert RunFolder(out).config().precision == wish
        last = load_checkpoint(RunFolder(out).checkpoints.path("last"), files=())
        assert (last.values["config"]["precision"], last.values["precision"]) == (wish, "fp32")
    assert "since this processor has no bfloat16" in (tmp_path / "bf16" / "log.txt").read_text().splitlines()[0]
    assert found[0] == found[1]


def test_checkpoints_of_another_processor_are_evaluated_applied_and_exported(from_there, data, tmp_path, capsys):
    optional("onnxruntime")
    why = "computes in fp32, since this processor has no bfloat16"
    for who in ([], ["--teacher"]):
        assert main(["evaluate", str(from_there), "--data", str(data), "--json", *who]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["images"] == 4
        assert (why in printed.err) is (HERE == "fp32")
    images = [str(path) for path in sorted((data / "images").glob("test*"))]
    assert main(["predict", str(from_there), *images, "--out", str(tmp_path / "predicted")]) == 0
    assert (why in capsys.readouterr().out) is (HERE == "fp32")
    assert (tmp_path / "predicted" / "detections.csv").is_file()
    assert main(["export", str(from_there), "--out", str(tmp_path / "student.onnx")]) == 0
    assert "agrees with PyTorch" in capsys.readouterr().out


def test_a_run_goes_on_on_another_processor_and_back(from_there, tmp_path, capsys):
    out = shutil.copytree(from_there, tmp_path / "run")
    assert main(["train", "--out", str(out), "--resume", "--set", "epochs=3"]) == 0
    said = capsys.readouterr().out
    assert SAID[HERE] in said
    assert f"resumed after 2 of 3 epochs; those ran in {THERE}, what follows runs in {HERE}\n" in said
    assert RunFolder(out).config().precision == "bf16"
    said = semprior_there("train", "--out", out, "--resume", "--set", "epochs=4")
    assert SAID[THERE] in said
    assert f"resumed after 3 of 4 epochs; those ran in {HERE}, what follows runs in {THERE}\n" in said
    assert [line["epoch"] for line in lines(out)] == [0, 1, 2, 3]
    assert lines(out)[:2] == lines(from_there)


def test_a_run_goes_on_in_another_precision_if_it_is_told_to(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--data", str(data), "--out", str(out), *FLAGS]) == 0
    capsys.readouterr()
    again = ["train", "--out", str(out), "--resume", "--set", "epochs=3"]
    assert main([*again, "--set", "precision=fp32"]) == 0
    said = capsys.readouterr().out
    assert "on cpu, in fp32\n" in said
    assert ("; those ran in bf16, what follows runs in fp32\n" in said) is (HERE == "bf16")
    assert RunFolder(out).config().precision == "fp32"
    assert main(["train", "--out", str(out), "--resume", "--set", "epochs=4"]) == 0
    assert "resumed after 3 of 4 epochs\n" in capsys.readouterr().out
