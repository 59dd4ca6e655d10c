"""This machine's GPUs, as sweeps on it count them; without a GPU, and without a Ray."""

import os

import pytest
import torch
from made_up import made_up_sweep

from tune.cli import main
from tune.local import usable_gpus

IDLE = "resources: gpus is 0, and the GPUs of this machine will idle; `resources: {cpus: 4, gpus: 1}` uses them"


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes torch see a number of GPUs, of a driver that it can use or not."""

    def see(count, usable=True):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: usable and count > 0)

    return see


def test_gpus_count_that_torch_can_use(gpus):
    gpus(2)
    assert usable_gpus() == 2
    gpus(2, usable=False)  # their driver is too old
    assert usable_gpus() == 0


def test_the_tests_themselves_see_no_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert usable_gpus() == 0


@pytest.mark.parametrize(("count", "taken", "told"), [(1, "0", True), (1, "0.5", False), (0, "0", False)])
def test_gpus_of_this_machine_that_would_idle_are_told(tmp_path, monkeypatch, capsys, gpus, count, taken, told):
    monkeypatch.delenv("SEMPRIOR_STORAGE", raising=False)
    monkeypatch.setattr("tune.commands.submit.run_here", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    made_up_sweep(tmp_path, ("gpus: 0", f"gpus: {taken}"))
    gpus(count)
    for words in (["submit", "sweep.yaml", "--id", "other"], ["resume", "small"]):
        assert main(words) == 0
        assert (IDLE in " ".join(capsys.readouterr().out.split())) is told
