"""Compiled convolutions in float32 compute what torch's do, nearly as exactly, and take over what they can compute."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semprior.kernels import build
from semprior.kernels.convolution import conv_relu
from semprior.kernels.winograd import convolve, suits
from semprior.models.detector import create_detector

needs_compiler = pytest.mark.skipif(build.library() is None, reason="there is no C++ compiler")
BOUND = 3e-6  # of a result's norm, from float64; torch's own are within 7e-7


def conv_of(inputs, outputs, taps, dilation=1, bias=True):
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, taps, padding=dilation * (taps // 2), dilation=dilation, bias=bias)


def laid_out(*shape):
    return torch.randn(shape).to(memory_format=torch.channels_last)


def run(function, conv, x, g):
    conv, x = copy.deepcopy(conv).to(x.dtype), x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = function(conv, x)
    (out * g).sum().backward()
    return [t.detach() for t in (out, x.grad, *(p.grad for p in conv.parameters()))]


@needs_compiler
@pytest.mark.parametrize("size", [(7, 22), (1, 3)])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (3, 1), (3, 3), (3, 5), (5, 1)])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 32), (48, 80)])
def test_values_and_gradients_are_near_those_in_float64(size, taps, dilation, inputs, outputs):
    conv = conv_of(inputs, outputs, taps, dilation)
    x, g = laid_out(2, inputs, *size), laid_out(2, outputs, *size)
    assert suits(conv, x)
    exact = run(lambda c, v: c(v), conv, x.double(), g.double())
    for mine, true in zip(run(convolve, conv, x, g), exact, strict=True):
        assert (mine - true).norm() <= BOUND * true.norm()


@needs_compiler
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_with_a_relu_and_without_a_bias(taps):
    conv = conv_of(32, 16, taps, bias=False)
    x, g = laid_out(2, 32, 12, 12), laid_out(2, 16, 12, 12)
    exact = run(lambda c, v: F.conv2d(v, c.weight, padding=c.padding), conv, x.double(), g.double())
    for mine, true in zip(run(convolve, conv, x, g), exact, strict=True):
        assert (mine - true).norm() <= BOUND * true.norm()
    conv = conv_of(32, 16, taps)
    exact = run(lambda c, v: F.relu(c(v)), conv, x.double(), g.double())
    for mine, true in zip(run(conv_relu, conv, x, g), exact, strict=True):
        assert (mine - true).norm() <= BOUND * true.norm()


@needs_compiler
def test_the_number_of_threads_changes_nothing():
    conv, before, results = conv_of(32, 32, 3), torch.get_num_threads(), []
    x, g = laid_out(1, 32, 40, 44), laid_out(1, 32, 40, 44)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(convolve, conv, x, g))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@needs_compiler
def test_what_is_not_a_number_stays_visible():
    x = laid_out(1, 16, 12, 12)
    x[0, 3, 5, 5] = float("nan")
    for taps in (1, 3, 5):
        assert conv_relu(conv_of(16, 16, taps), x)[0, :, 5, 5].isnan().all()


def test_what_does_not_suit_is_torchs():
    x = laid_out(1, 16, 8, 8)
    for conv in (
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.Conv2d(16, 16, 3),
        nn.Conv2d(16, 12, 1),
        nn.Conv2d(16, 16, 3, padding=1, groups=2),
        nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(16, 16, (3, 1), padding=(1, 0)),
        nn.Conv2d(16, 16, 7, padding=3),
    ):
        assert not suits(conv, x)
        assert torch.equal(convolve(conv, x), conv(x))
    conv = conv_of(16, 16, 3)
    assert not suits(conv, x.contiguous())
    assert not suits(copy.deepcopy(conv).double(), x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not suits(conv, x)
    with build.torch_layers():
        assert not suits(conv, x)


@needs_compiler
@pytest.mark.parametrize("name", ["alclnet", "mlclnet"])
def test_a_detector_is_nearly_as_exact_as_with_torchs(name):
    torch.manual_seed(0)
    detector, x = create_detector(name), torch.randn(1, 3, 32, 64)
    exact = copy.deepcopy(detector).double()(x.double())
    detector, x = detector.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    mine = detector(x)
    with build.torch_layers():
        torchs = detector(x)
    assert not torch.equal(mine, torchs)
    assert (mine - exact).norm() <= 10 * (torchs - exact).norm() + 1e-6 * exact.norm()
    assert (mine - exact).norm() <= 1e-4 * exact.norm()
