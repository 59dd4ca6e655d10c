"""Each trial tells the precision that it ran in and the processor's instruction set; a mixture of them is marked."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from made_up import made_up_sweep

from semprior.config import parse_settings, unflatten
from semprior.devices import instruction_set, used_precision
from semprior.storage import open_storage
from tests.tiny import SETTINGS, write_dataset
from tune.attempt import alike
from tune.catalogue import open_sweep
from tune.cli import main
from tune.estimate import recorded_cost
from tune.results import ResultsStore

HERE = used_precision("bf16", torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.avx2
def test_a_sweep_of_two_trials_on_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMPRIOR_STORAGE", raising=False)
    write_dataset(tmp_path / "data")
    content = {
        "name": "two",
        "data": "data",
        "base": parse_settings([*SETTINGS, "epochs=2"]),
        "search": {"optim.rate": {"float": [1e-3, 1e-2], "log": True}},
        "objective": {"holdout/point_score": "max"},
        "scheduler": {"name": "none"},
        "budget": {"trials": 2},
        "concurrent": 1,
    }
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(content))
    assert main(["submit", "two.yaml"]) == 0, capsys.readouterr().err
    sweep = open_sweep(str(tmp_path / "runs" / "two"))
    trials = ResultsStore(sweep.storage).trials()
    assert [trial.state for trial in trials] == ["completed", "completed"]
    for trial in trials:
        assert trial.config["precision"] == "bf16"
        assert (trial.last.precision, trial.last.instructions) == (HERE, instruction_set())
    why = ", since this processor has no bfloat16" if HERE == "fp32" else ""
    assert f"mlclnet on {trials[0].last.device}, in {HERE}{why}\n" in sweep.storage.read("logs/0000.log").decode()
    capsys.readouterr()
    assert main(["top", "two"]) == 0
    assert "0001*" not in capsys.readouterr().out
    assert main(["show", "two", "0001"]) == 0
    shown = capsys.readouterr().out
    assert f", {HERE}, {instruction_set()})" in shown
    assert ("--set precision=fp32" in shown) is (HERE == "fp32")
    assert main(["pull", "two:best", "--out", "best"]) == 0
    told = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert (told["precision"], told["instructions"]) == (HERE, instruction_set())


@pytest.mark.parametrize("other", [True, False])
@pytest.mark.parametrize("mine", [True, False])
def test_workers_of_one_trial_train_in_one_precision(monkeypatch, mine, other):
    monkeypatch.setattr("semprior.devices.processor_has_bf16", lambda: mine)
    monkeypatch.setattr("tune.attempt._agreed", lambda found: found and other)
    config, cpu = unflatten({}), torch.device("cpu")
    assert used_precision(alike(config, cpu).precision, cpu) == ("bf16" if mine and other else "fp32")
    assert alike(unflatten({"precision": "fp32"}), cpu).precision == "fp32"


def in_precisions(folder, precisions):
    """The made-up sweep, whose trials ran in ``precisions[trial][0]`` at first and then in the last of these."""
    made = made_up_sweep(folder)
    records = [record for history in ResultsStore(made.storage).histories().values() for record in history]
    there = open_storage(str(folder / "mixed")).child("small")
    there.put("sweep.json", made.storage.read("sweep.json"))
    ResultsStore(there).append(
        [replace(r, precision=precisions[r.trial][0 if r.epoch == 0 else -1], instructions="AVX2") for r in records]
    )
    return there


def test_trials_of_one_sweep_in_different_precisions_are_marked(tmp_path, capsys):
    in_precisions(tmp_path, {"0000": ["bf16"], "0001": ["fp32"], "0002": ["bf16", "fp32"]})
    place = ["--storage", str(tmp_path / "mixed")]
    assert main(["top", "small", *place]) == 0
    shown = capsys.readouterr().out
    assert "0001* " in shown and "0002**" in shown and "0000 " in shown
    assert "* ran in fp32; ** ran partly in bf16, partly in fp32; the others in bf16" in shown
    assert main(["top", "small", "--format", "json", *place]) == 0
    entries = json.loads(capsys.readouterr().out)
    told = {entry["trial"]: entry["precision"] for entry in entries}
    assert told == {"0000": "bf16", "0001": "fp32", "0002": "bf16, fp32"}
    assert main(["show", "small", "0001", *place]) == 0
    shown = capsys.readouterr().out
    assert "from epoch 1, on elsewhere (cpu, fp32, AVX2)" in shown
    assert "--set precision=fp32" in shown


@pytest.mark.parametrize("precision", ["fp32", "", "bf16"])
def test_trials_in_one_precision_are_not_marked(tmp_path, capsys, precision):
    in_precisions(tmp_path, {f"000{number}": [precision] for number in range(3)})
    assert main(["top", "small", "--storage", str(tmp_path / "mixed")]) == 0
    assert "*" not in capsys.readouterr().out


def test_what_trials_in_another_precision_took_tells_nothing_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "elsewhere")
    monkeypatch.setattr("semprior.devices.instruction_set", lambda: "AVX2")
    in_precisions(tmp_path, {"0000": ["fp32"], "0001": ["fp32"], "0002": ["fp32"]})
    storage = open_storage(str(tmp_path / "mixed"))
    spec = open_sweep(storage.child("small").uri).spec
    spec = spec.model_copy(update={"base": {**spec.base, "scam.stages": [2]}})  # as trial 0001 has it
    for has_bf16 in (True, False):
        monkeypatch.setattr("semprior.devices.processor_has_bf16", lambda has=has_bf16: has)
        assert (recorded_cost(storage, ["small"], spec, here=True) is None) is has_bf16
    assert recorded_cost(storage, ["small"], spec, here=False) is not None
    monkeypatch.setattr("semprior.devices.instruction_set", lambda: "AVX512")
    assert recorded_cost(storage, ["small"], spec, here=True) is None
