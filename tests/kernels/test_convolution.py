"""A convolution with its ReLU computes what torch's two do."""

import copy

import pytest
import torch
import torch.nn.functional as F
from other_processor import needs_bf16
from torch import nn

from semprior.kernels import build
from semprior.kernels.convolution import conv_relu
from semprior.models.detector import create_detector

pytestmark = pytest.mark.avx2
needs_compiler = pytest.mark.skipif(build.library() is None, reason="there is no C++ compiler")


def run(function, conv, x, autocast=False):
    """Result and gradients, where the ReLU's result becomes one part of a wider map, as in a multi-scale block."""
    conv, x = copy.deepcopy(conv), x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = function(conv, x)
        wide = torch.cat([out, out * 2], dim=1)
    wide.square().sum().backward()
    return [t.detach() for t in (out, x.grad, conv.weight.grad, conv.bias.grad)]


@needs_compiler
@pytest.mark.parametrize("settings", [{}, {"padding": 3, "dilation": 3}, {"stride": 2, "padding": 1}])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients(settings, dtype):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, 3, **settings).to(dtype)
    x = torch.randn(2, 16, 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
    reference = run(lambda c, v: F.relu(c(v)), conv, x)
    for mine, theirs in zip(run(conv_relu, conv, x), reference, strict=True):
        atol = 1e-4 if dtype == torch.float64 else 5e-6 * float(theirs.abs().max())
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=atol)


@needs_compiler
@pytest.mark.parametrize("channels", [16, 64])
def test_under_autocast(channels):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    x = torch.randn(2, channels, 16, 16).to(memory_format=torch.channels_last)
    found, reference = run(conv_relu, conv, x, True), run(lambda c, v: F.relu(c(v)), conv, x, True)
    exact = run(lambda c, v: F.relu(c(v)), conv.double(), x.double())
    for mine, theirs, true in zip(found, reference, exact, strict=True):
        assert mine.dtype == theirs.dtype
        assert (mine - true).norm() <= 1.1 * (theirs - true).norm() + 1e-3 * true.norm()


@needs_bf16
@pytest.mark.parametrize("name", ["alclnet", "mlclnet"])
def test_evaluation_in_16_bit_is_as_near_to_exact_with_norms_folded(name, monkeypatch):
    torch.manual_seed(0)
    detector = create_detector(name)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for _ in range(3):
            detector.train()(x * 2 + 1)  # running statistics that are not those of the input
        exact = detector.eval().double()(x.double())
        detector = detector.float().to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mine = detector(x)
            monkeypatch.setattr("semprior.models.encoder.folds", lambda *_: False)
            monkeypatch.setattr("semprior.models.detectors.alclnet.folds", lambda *_: False)
            torchs = detector(x)
    assert not torch.equal(mine, torchs)
    assert (mine - exact).norm() <= 1.3 * (torchs - exact).norm() + 1e-3 * exact.norm()


@needs_compiler
@pytest.mark.parametrize("name", ["alclnet", "mlclnet"])
def test_evaluation_in_32_bit_is_as_near_to_exact_with_norms_folded(name, monkeypatch):
    torch.manual_seed(0)
    detector = create_detector(name)
    x = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        for _ in range(3):
            detector.train()(x * 2 + 1)  # running statistics that are not those of the input
        exact = detector.eval().double()(x.double())
        plain = detector.float()(x)
        mine = detector.to(memory_format=torch.channels_last)(x)
        monkeypatch.setattr("semprior.models.encoder.folds", lambda *_: False)
        monkeypatch.setattr("semprior.models.detectors.alclnet.folds", lambda *_: False)
        torchs = detector(x)
    assert not torch.equal(mine, torchs)
    assert (mine - exact).norm() <= 5 * (torchs - exact).norm() + 1e-6 * exact.norm()
    assert (plain - exact).norm() <= 1e-5 * exact.norm()  # and in the other layout as torch does
