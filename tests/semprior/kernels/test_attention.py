"""Pools and the weighted end of a residual block compute what torch's own operations do: values and gradients."""

import copy

import pytest
import torch
from torch import nn

from semprior.kernels import build
from semprior.kernels.attention import mean_pixels, pool_channels, pool_pixels, weighted_residual_relu

pytestmark = [
    pytest.mark.avx2,
    pytest.mark.skipif(build.library() is None, reason="there is no C++ compiler"),
]
SHAPES = ((2, 16, 8, 12), (3, 32, 6, 4), (2, 64, 40, 30), (1, 128, 6, 6), (2, 256, 2, 4))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 3e-5, torch.bfloat16: 2e-2}


class Block(nn.Module):
    """A norm, weights that a product gives from each pool, and a residual."""

    def __init__(self, channels, normalised):
        super().__init__()
        torch.manual_seed(channels)
        self.norm = None if normalised else nn.BatchNorm2d(channels)
        if self.norm is not None:
            self.norm.weight.data.normal_()  # of both signs
            self.norm.bias.data.normal_()
        self.of_channels, self.of_pixels = nn.Conv2d(channels, channels, 1), nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, y, residual):
        def channel(largest, mean):
            return torch.sigmoid(self.of_channels(largest) + self.of_channels(mean).square())

        def pixel(largest, mean):
            return torch.sigmoid(self.of_pixels(torch.cat([largest, mean], dim=1)))

        return weighted_residual_relu(self.norm, y, channel, pixel, residual)


def pooled(pool):
    """The map and its pools in one number a value, so that each gives the map a gradient of its own."""

    def combine(x):
        x, *pools = pool(x)
        total = x.square()
        for count, values in enumerate(pools, 2):
            total = total + count * x * values.square().to(x.dtype)
        return total

    return combine


def maps(shape, dtype, count=1):
    torch.manual_seed(1)
    drawn = [torch.randn(shape, dtype=torch.float64).to(dtype) for _ in range(count)]
    return [x.to(memory_format=torch.channels_last).requires_grad_() for x in drawn]


def run(function, tensors, module=None):
    """Result, gradients of maps and parameters, and buffers, all in float64."""
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
    out = function(*leaves)
    torch.manual_seed(2)
    (out * torch.randn(out.shape, dtype=torch.float64).to(out.dtype)).sum().backward()
    found = [out, *(leaf.grad for leaf in leaves)]
    if module is not None:
        found += [*(p.grad for p in module.parameters()), *module.buffers()]
    return [t.detach().double() for t in found]


def both(make, tensors):
    """The results of the compiled layers and of torch's own."""
    first, second = make(), make()
    mine = run(first, tensors, first if isinstance(first, nn.Module) else None)
    with build.torch_layers():
        return mine, run(second, tensors, second if isinstance(second, nn.Module) else None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalised", [False, True])
def test_the_end_of_a_residual_block_is_torchs(normalised, shape, dtype):
    block = Block(shape[1], normalised).to(dtype).train()
    for a, b in zip(*both(lambda: copy.deepcopy(block), maps(shape, dtype, 2)), strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pool", [mean_pixels, pool_pixels, pool_channels])
def test_pools_are_torchs(pool, shape, dtype):
    for a, b in zip(*both(lambda: pooled(pool), maps(shape, dtype)), strict=True):
        torch.testing.assert_close(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("pool", [pool_pixels, pool_channels])
def test_of_equal_values_the_first_gets_the_gradient(pool):
    torch.manual_seed(0)
    x = torch.randint(3, (2, 32, 8, 8)).double().to(memory_format=torch.channels_last)
    for a, b in zip(*both(lambda: pooled(pool), [x]), strict=True):
        torch.testing.assert_close(a, b)


def test_in_16_bit_it_is_as_near_to_exact_as_torch():
    block = Block(32, normalised=False).train()
    tensors = maps((4, 32, 24, 16), torch.bfloat16, 2)

    def in_16_bit():
        copied = copy.deepcopy(block)
        forward = copied.forward
        copied.forward = lambda *leaves: torch.autocast("cpu", torch.bfloat16)(forward)(*leaves).float()
        return copied

    mine, torchs = both(in_16_bit, tensors)
    with build.torch_layers():
        exact_block = copy.deepcopy(block).double()
        exact = run(exact_block, [t.double() for t in tensors], exact_block)
    for a, b, c in zip(mine, torchs, exact, strict=True):
        assert (a - c).norm() <= 1.2 * (b - c).norm() + 1e-2 * c.norm()


def test_the_number_of_threads_changes_nothing():
    before, results = torch.get_num_threads(), []
    block = Block(16, normalised=False).train()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            copied = copy.deepcopy(block)
            results.append(run(copied, maps((3, 16, 64, 56), torch.float32, 2), copied)[1:3])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(
                a, b, rtol=1e-5, atol=1e-6
            )  # torch's convolution of the weights is free to differ


def test_in_evaluation_it_is_torchs():
    block = Block(32, normalised=True).eval()
    y, residual = maps((2, 32, 8, 8), torch.float32, 2)
    with torch.inference_mode():
        mine = block(y, residual)
        with build.torch_layers():
            torch.testing.assert_close(mine, block(y, residual))
