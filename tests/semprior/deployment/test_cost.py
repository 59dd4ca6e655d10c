"""What a detector costs: counted by hand, measured once, printed."""

import json

import pytest
import torch
from torch import nn

import semprior.deployment.cost as cost
from semprior.cli.app import main
from semprior.config.schema import Config, unflatten
from semprior.deployment.trial_cost import COST_METRICS, cost_metrics
from semprior.errors import UserError
from semprior.models.detector import create_detector
from tests.tiny import optional, write_checkpoint


def plain_flop(network, image):
    """Two for each product and sum of every convolution that runs, counted output pixel by output pixel."""
    total = 0

    def count(conv, inputs, output):
        nonlocal total
        for _ in range(output.shape[0]):
            for _ in range(output.shape[2]):
                for _ in range(output.shape[3]):
                    for _ in range(conv.out_channels):
                        taps = conv.kernel_size[0] * conv.kernel_size[1]
                        total += 2 * taps * (conv.in_channels // conv.groups)

    hooks = [part.register_forward_hook(count) for part in network.modules() if isinstance(part, nn.Conv2d)]
    network(image)  # with gradients, so that no compiled layer replaces a convolution
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("name", ["mlclnet", "mshnet"])
def test_gflop_are_those_of_a_plain_count(name):
    network = cost.untrained(unflatten({"detector": name, "channels_last": False})).requires_grad_(True)
    expected = plain_flop(network, torch.zeros(1, 3, 32, 32, requires_grad=True))
    assert cost.gflop(network, 32) == pytest.approx(expected / 1e9, rel=1e-12)
    assert cost.gflop(network, 20) == cost.gflop(network, 32)  # padded
    assert next(network.parameters()).device.type == "cpu"  # counting changes nothing


@pytest.mark.parametrize(
    ("name", "parameters", "gflop"),
    [("repisdnet", 279_073, 12.9), ("mshnet", 4_065_513, 12.0), ("dnanet", 4_696_888, 27.9)],
)
def test_the_deployed_form_is_counted(name, parameters, gflop):
    network = cost.untrained(unflatten({"detector": name}))
    assert cost.parameters(network) == parameters  # RepISDNet is trained with twice as many
    assert cost.gflop(network, 256) == pytest.approx(gflop, abs=0.05)


def test_a_trial_measures_an_architecture_once_and_draws_no_random_number(tmp_path, monkeypatch):
    asked = []
    found = cost.Latency(12.5, 13.0, 14.0)
    monkeypatch.setattr("semprior.kernels.build.library", lambda: None)  # nothing runs, so that none is compiled
    monkeypatch.setattr(cost, "torch_latency", lambda *arguments: asked.append(arguments[1:]) or found)
    config = unflatten({"detector": "mlclnet"})
    network = create_detector("mlclnet")
    state = torch.random.get_rng_state()
    first = cost_metrics(config, network, tmp_path)
    assert tuple(first) == COST_METRICS
    assert first == {"cost/params": 657_249, "cost/gflop": pytest.approx(14.02, abs=0.01), "cost/latency_ms": 12.5}
    assert cost_metrics(unflatten({"detector": "mlclnet", "seed": 5, "scam.scale": 0.3}), network, tmp_path) == first
    assert asked == [(256, False, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    cost_metrics(unflatten({"detector": "repisdnet"}), create_detector("repisdnet"), tmp_path)
    monkeypatch.setattr("platform.node", lambda: "another machine")
    cost_metrics(config, network, tmp_path)
    assert len(asked) == 3
    cost_metrics(Config(detector="mlclnet", channels_last=not config.channels_last), network, None)
    assert len(asked) == 4


def test_latency_is_a_statistic_of_many_runs_and_threads_are_restored(monkeypatch):
    monkeypatch.setattr(cost, "_RUNS", (3, 3))
    before, ran = torch.get_num_threads(), []

    class Network(nn.Module):
        def forward(self, x, sizes):
            ran.append((torch.get_num_threads(), x.shape, sizes.tolist()))
            return x[:, :1]

    found = cost.torch_latency(Network(), 40, False, 2)
    assert ran == [(2, (1, 3, 64, 64), [[40, 40]])] * 5  # two to warm up
    assert 0 < found.fastest <= found.median <= found.p95
    assert torch.get_num_threads() == before


@pytest.mark.trains
def test_the_command_measures_a_checkpoint_in_every_form(tmp_path, capsys):
    optional("onnxruntime")
    optional("onnxscript")
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    assert main(["cost", str(checkpoint), "--size", "32", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["detector"], printed["size"], printed["threads"]) == ("mlclnet", 32, 1)
    assert printed["parameters"] == 657_249 and printed["instructions"]
    forms = {(form["runtime"], form["numbers"]): form for form in printed["forms"]}
    assert list(forms) == [("PyTorch", "fp32"), ("ONNX Runtime", "fp32"), ("ONNX Runtime", "int8")]
    for form in forms.values():
        assert 0 < form["median_ms"] <= form["p95_ms"]
        assert form["memory_mb"] is None or 0.5 < form["memory_mb"] < 1000
    plain, int8 = (forms["ONNX Runtime", numbers]["file_mb"] for numbers in ("fp32", "int8"))
    assert int8 < plain / 2 and forms["PyTorch", "fp32"]["file_mb"] == pytest.approx(2.65, abs=0.1)


def out_of_memory(*_):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes")


def test_a_memory_that_is_full_is_one_line(tmp_path):
    (tmp_path / "model").touch()
    with pytest.raises(
        UserError, match="--size 4096: the memory is full where PyTorch computes in fp32; choose a smaller"
    ):
        cost._measured("PyTorch", "fp32", tmp_path / "model", out_of_memory, "mlclnet", 4096, 1)


@pytest.mark.parametrize("target", ["alcnet", "nowhere/run", "README.md", "''"])
def test_what_is_neither_a_detector_nor_a_run_is_one_line(target, capsys):
    optional("onnxruntime")
    assert main(["cost", target.strip("'")]) == 2
    error = capsys.readouterr().err
    assert f"{target}: is neither a detector (alclnet," in error and error.count("\n") == 1


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr("semprior.deployment.onnx_export._NEEDED", ("a_package_that_is_not_there",))
    assert main(["cost", "mlclnet"]) == 2
    assert "cost needs onnx and onnxruntime: pip install 'semprior[export]'" in capsys.readouterr().err
