"""Ours against the plain path, and the benchmark that times both."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import step, step_check, step_paths
from benchmarks.plain import losses
from benchmarks.plain.detectors import DETECTORS
from semprior.kernels import build, layers

pytestmark = pytest.mark.trains


@pytest.mark.parametrize("name", ["mlclnet", "alclnet"])
def test_ours_has_the_same_losses_gradients_and_statistics(name, monkeypatch):
    compiled = []
    call = layers.call
    monkeypatch.setattr(layers, "call", lambda what, x, *rest: (compiled.append(x.dtype), call(what, x, *rest)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing is large enough here for two
    try:
        check = step_check.check_gradients(name, batch=1)
    finally:
        torch.set_num_threads(threads)
    assert check.passed, check
    if build.library() is not None:
        assert set(compiled) == {torch.float32, torch.float64}


@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in ("mlclnet", "alclnet")])
def test_so_have_the_other_detectors(name):
    check = step_check.check_gradients(name, batch=2, size=32, seeds=[0])  # too few to compare rounding errors
    assert max(check.loss, check.gradient64, check.running64) <= 1e-5
    assert check.gradient <= max(check.noise, 1e-5)


@pytest.mark.parametrize("figure", ["loss", "gradient", "gradient64", "running64", "channels_last"])
def test_each_figure_of_the_check_can_fail(figure):
    equal = step_check.Check(loss=0, gradient=0, channels_last=1e-3, noise=5e-4, gradient64=0, running64=0)
    assert equal.passed
    assert not replace(equal, **{figure: 5e-3}).passed


def test_the_check_sees_a_wrong_gradient(monkeypatch):
    monkeypatch.setattr(losses, "ALIGN_WEIGHT", 0.2)
    check = step_check.check_gradients("mlclnet", batch=2, size=32, seeds=[0])
    assert min(check.gradient, check.gradient64) > 1e-5
    assert not check.passed


def test_step_prints_one_object(monkeypatch, capsys):
    monkeypatch.setattr(step_paths, "IMAGES", 3)
    monkeypatch.setattr(step, "apart", lambda function, setting: function(setting))
    monkeypatch.setattr(step, "check_gradients", lambda name: step_check.Check(0, 0, 0, 0, 0, 0))
    options = ["--json", "--repeats", "1", "--batch", "2", "--size", "32", "--detectors", "mlclnet"]
    assert step.main(options) == 0
    (line,) = capsys.readouterr().out.splitlines()
    figures = json.loads(line)["mlclnet"]
    assert figures["ratio"] == pytest.approx(figures["plain_s"] / figures["ours_s"])
    assert figures["outer_ratio"] == pytest.approx(figures["outer_plain_s"] / figures["outer_ours_s"])
    monkeypatch.setattr(step, "check_gradients", lambda name: step_check.Check(0, 1e-3, 0, 0, 0, 0))
    assert step.main(options) == 1
