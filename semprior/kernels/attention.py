"""What weights over channels and over pixels are made of, and a residual block's end that uses both.

Weights over channels come from the largest and the mean value of each, those over pixels from the largest and the mean
channel. On a CPU, for channels-last maps, compiled layers (see attention.cpp) take one pass over the map for each of
them, forwards and backwards; torch takes three to ten. What is small, numbers an image and channel, is left to torch
and its automatic gradients. A pool gives the map on, for what follows to use: backwards, it then adds its own gradient
to the one that comes through there.

Of equal largest values the first alone gets the gradient, as in the published detectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from semprior.kernels.autograd import Context
from semprior.kernels.layers import LAYOUT, call, has_kernel, move_running_statistics

Weights = Callable[[Tensor, Tensor], Tensor]
"""From the largest and the mean values, of one shape, to weights."""

_STEP = 16  # as in attention.cpp


def mean_pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """The map (B, C, H, W), to be used further, and the mean value of each channel, (B, C, 1, 1)."""
    if _takes(x):
        passed, mean = _Means.apply(x)
        return passed, mean
    return x, x.mean((2, 3), keepdim=True)


def pool_pixels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The map (B, C, H, W), to be used further, and the largest and the mean value of each channel, (B, C, 1, 1)."""
    if _takes(x):
        passed, mean, _, largest, _ = _Pools.apply(x)
        return passed, *(values.to(_small(x))[:, :, None, None] for values in (largest, mean))
    return x, F.adaptive_max_pool2d(x, 1), x.mean((2, 3), keepdim=True)


def pool_channels(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The map (B, C, H, W), to be used further, and the largest and the mean channel of each pixel, (B, 1, H, W)."""
    if _takes(x):
        one = torch.ones(x.shape[:2], dtype=torch.float64)
        passed, across = _Across.apply(x, one, torch.zeros_like(one))
        return passed, across[:, :1], across[:, 1:]
    return x, x.max(1, keepdim=True).values, x.mean(1, keepdim=True)


def weighted_residual_relu(
    norm: nn.BatchNorm2d | None, y: Tensor, channel: Weights, pixel: Weights, residual: Tensor
) -> Tensor:
    """``relu(t * s * norm(y) + residual)``, maps (B, C, H, W).

    Args:
        norm: of `y`; None if it has been normalised.
        y: result of a convolution.
        channel: gives the weights s (B, C, 1, 1) from the largest and the mean value of each channel of the map.
        pixel: gives the weights t (B, 1, H, W) from the largest and the mean channel of s times the map.
        residual: of the shape of `y`.
    """
    if _compiled(norm, y, residual):
        return _weighted_by_kernels(norm, y, channel, pixel, residual)
    y = y if norm is None else norm(y)
    y = y * channel(F.adaptive_max_pool2d(y, 1), y.mean((2, 3), keepdim=True))
    y = y * pixel(y.max(1, keepdim=True).values, y.mean(1, keepdim=True))
    return F.relu_(y + residual)


def _compiled(norm: nn.BatchNorm2d | None, y: Tensor, residual: Tensor) -> bool:
    usual = norm is None or (norm.training and norm.affine and norm.track_running_stats and norm.momentum is not None)
    same = residual.shape == y.shape and residual.dtype == y.dtype and has_kernel(residual)
    return usual and same and _takes(y)


def _takes(x: Tensor) -> bool:
    return has_kernel(x) and x.shape[1] % _STEP == 0


def _small(x: Tensor) -> torch.dtype:
    """Of numbers an image and channel."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _weighted_by_kernels(
    norm: nn.BatchNorm2d | None, y: Tensor, channel: Weights, pixel: Weights, residual: Tensor
) -> Tensor:
    # Each pass gives y on to the next, so that backwards each adds to the gradient of the one after it.
    passed, mean, variance, most, least = _Pools.apply(y)
    if norm is None:
        factor, offset = torch.ones_like(mean), torch.zeros_like(mean)
    else:
        factor, offset = (term.expand_as(mean) for term in _normalisation(norm, y, mean, variance))
    largest = torch.where(factor >= 0, factor * most, factor * least) + offset
    weights = channel(*(values.to(_small(y))[:, :, None, None] for values in (largest, factor * mean + offset)))
    weights = weights.flatten(1).double()
    factor, offset = factor * weights, offset * weights
    passed, across = _Across.apply(passed, factor, offset)
    weights = pixel(across[:, :1], across[:, 1:]).to(y.dtype).contiguous()
    out: Tensor = _Weigh.apply(passed, residual, weights, factor, offset)
    return out


def _normalisation(norm: nn.BatchNorm2d, y: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Factor and offset (C,) of a batch, from means and variances (B, C) of its images; running statistics move."""
    mean = means.mean(0)
    variance = (variances + (means - mean).square()).mean(0)
    move_running_statistics(norm, mean.detach(), variance.detach(), y.numel() // y.shape[1])
    factor = norm.weight.double() * (variance + norm.eps).rsqrt()
    return factor, norm.bias.double() - mean * factor


def _sizes(y: Tensor) -> tuple[int, int, int, int]:
    """Number of images, of pixels in each, of channels, and of threads."""
    return len(y), y.shape[2] * y.shape[3], y.shape[1], torch.get_num_threads()


class _Means(torch.autograd.Function):
    """y itself; and of each image and channel its mean, (B, C, 1, 1) in float32 or float64."""

    @staticmethod
    def forward(ctx: Context, y: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y)
        return y.view_as(y), y.mean((2, 3), keepdim=True, dtype=_small(y))

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, g: Tensor | None, of_mean: Tensor | None) -> Tensor | None:
        (y,) = ctx.saved_tensors
        if of_mean is None:
            return g
        constant = of_mean.flatten(1).double() / _sizes(y)[1]
        gy = torch.empty_like(y)
        call("pools_backward", y, _like(g, y), y, *_sizes(y), constant, torch.zeros_like(constant), gy)
        return gy


class _Pools(torch.autograd.Function):
    """y itself; mean, variance, largest and smallest value of each image and channel, (B, C) float64."""

    @staticmethod
    def forward(ctx: Context, y: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        images, pixels, channels, _ = _sizes(y)
        shift = torch.empty(channels, dtype=torch.float64)
        totals = torch.empty((images, 4, channels), dtype=torch.float64)
        places = torch.empty((images, 2, channels), dtype=torch.int64)
        call("pools", y, y, *_sizes(y), shift, totals, places)
        first, second, most, least = totals.unbind(1)
        moved = first / pixels
        mean = shift + moved
        variance = (second / pixels - moved * moved).clamp_(min=0)
        ctx.save_for_backward(y, mean, places)
        return y.view_as(y), mean, variance, most.contiguous(), least.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, g: Tensor | None, *small: Tensor | None) -> Tensor:
        y, mean, places = ctx.saved_tensors
        images, pixels, channels, _ = _sizes(y)
        of_mean, of_variance, of_most, of_least = (torch.zeros_like(mean) if part is None else part for part in small)
        pull = of_variance * (2 / pixels)
        constant = of_mean / pixels - pull * mean
        gy = torch.empty_like(y)
        call("pools_backward", y, _like(g, y), y, *_sizes(y), constant.contiguous(), pull.contiguous(), gy)
        flat = gy.permute(0, 2, 3, 1).view(images, pixels, channels)
        extremes = torch.stack((of_most, of_least), 1).to(y.dtype)
        flat.scatter_add_(1, places, extremes)
        return gy


class _Across(torch.autograd.Function):
    """y itself, and largest and mean channel (B, 2, H, W) of ``factor * y + offset``, both (B, C) float64."""

    @staticmethod
    def forward(ctx: Context, y: Tensor, factor: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        images, _, height, width = y.shape
        factor, offset = factor.contiguous(), offset.contiguous()
        out = torch.empty((images, 2, height, width), dtype=y.dtype, memory_format=LAYOUT)
        places = torch.empty((images, height, width), dtype=torch.int16)
        call("across", y, y, *_sizes(y), factor, offset, out, places)
        ctx.save_for_backward(y, factor, places)
        return y.view_as(y), out

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, rest: Tensor | None, g: Tensor | None) -> tuple[Tensor | None, ...]:
        y, factor, places = ctx.saved_tensors
        g = torch.zeros((len(y), 2, *y.shape[2:]), dtype=y.dtype) if g is None else g
        g = g.to(y.dtype).contiguous(memory_format=LAYOUT)
        gy, totals = torch.empty_like(y), torch.empty((len(y), 2, y.shape[1]), dtype=torch.float64)
        call("across_backward", y, g, _like(rest, y), y, places, *_sizes(y), factor, gy, totals)
        return gy, *totals.unbind(1)


class _Weigh(torch.autograd.Function):
    """``relu(weights * (factor * y + offset) + residual)``: weights (B, 1, H, W), factor and offset (B, C) float64."""

    @staticmethod
    def forward(ctx: Context, y: Tensor, residual: Tensor, weights: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
        factor, offset = factor.contiguous(), offset.contiguous()
        out = torch.empty_like(y)
        call("weigh", y, y, residual, weights, *_sizes(y), factor, offset, out)
        ctx.save_for_backward(y, out, weights, factor, offset)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, g: Tensor) -> tuple[Tensor, ...]:
        y, out, weights, factor, offset = ctx.saved_tensors
        gy, cut, of_weights = torch.empty_like(y), torch.empty_like(y), torch.empty_like(weights)
        totals = torch.empty((len(y), 2, y.shape[1]), dtype=torch.float64)
        sizes = _sizes(y)
        call("weigh_backward", y, _like(g, y), out, y, weights, *sizes, factor, offset, gy, cut, of_weights, totals)
        return gy, cut, of_weights, *totals.unbind(1)


def _like(g: Tensor | None, y: Tensor) -> Tensor | None:
    return None if g is None else g.to(y.dtype).contiguous(memory_format=LAYOUT)
