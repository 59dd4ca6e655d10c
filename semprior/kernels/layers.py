"""Batch normalisation in train mode together with what follows it: a ReLU, a residual, a maximum, a gate.

Each function takes the results of convolutions and their norms, and computes what its plain form (in torch, in the same
function) does: values, gradients and running statistics. On a CPU, for channels-last maps, the compiled layers take it
over (see layers.cpp). torch alone goes over memory three to six times as often.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from semprior.kernels.build import library

_LANES, _POOLED = 64, 32  # as in layers.cpp
_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "float", torch.float64: "double"}
LAYOUT = torch.channels_last


def norm_relu(norm: nn.BatchNorm2d, y: Tensor, residual: Tensor | None = None) -> Tensor:
    """``relu(norm(y) + residual)``, all (B, C, H, W)."""
    if _compiled(norm, y, residual):
        return _NormReLU.apply(y, norm.weight, norm.bias, residual, norm)
    normal = norm(y)
    return F.relu_(normal if residual is None else normal.add_(residual))


def norm_pool_relu(norm: nn.BatchNorm2d, y: Tensor) -> Tensor:
    """``relu(max_pool2d(norm(y), 2))``, (B, C, H, W) to (B, C, H/2, W/2)."""
    if _compiled(norm, y) and y.shape[1] % _POOLED == 0 and y.shape[2] % 2 == 0 and y.shape[3] % 2 == 0:
        return _NormPoolReLU.apply(y, norm.weight, norm.bias, norm)
    return F.relu_(F.max_pool2d(norm(y), 2))


def join_relu(norm: nn.BatchNorm2d, y: Tensor, other_norm: nn.BatchNorm2d, other: Tensor) -> Tensor:
    """``relu(norm(y) + relu(other_norm(other)))``, all (B, C, H, W)."""
    if _compiled(norm, y, other) and other_norm.training:
        return _Join.apply(y, norm.weight, norm.bias, other, other_norm.weight, other_norm.bias, norm, other_norm)
    return F.relu_(norm(y).add_(F.relu_(other_norm(other))))


def gated_sum(low: Tensor, norm: nn.BatchNorm2d, y: Tensor, gate_norm: nn.BatchNorm2d, gate: Tensor) -> Tensor:
    """``low + relu(norm(y)) * sigmoid(gate_norm(gate))``, all (B, C, H, W)."""
    if _compiled(norm, y, gate, low) and gate_norm.training:
        return _Gate.apply(low, y, norm.weight, norm.bias, gate, gate_norm.weight, gate_norm.bias, norm, gate_norm)
    return torch.addcmul(low, F.relu_(norm(y)), torch.sigmoid_(gate_norm(gate)))


def scale_and_shift(x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """``factor * x + offset``: x (B, C, H, W), the others (B, C); the result has the dtype of x."""
    if fits(x) and (x.shape[2] * x.shape[3] * x.shape[1]) % _LANES == 0:
        return _Affine.apply(x, factor, offset)
    factor, offset = (term.to(x.dtype)[:, :, None, None] for term in (factor, offset))
    return torch.addcmul(offset, x, factor)


# ---- when


def _compiled(norm: nn.BatchNorm2d, y: Tensor, *others: Tensor | None) -> bool:
    """Whether the compiled layer takes these over."""
    alike = all(o is None or (o.shape == y.shape and o.dtype == y.dtype and _laid_out(o)) for o in others)
    usual = norm.training and norm.affine and norm.track_running_stats and norm.momentum is not None
    return usual and alike and fits(y)


def fits(x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype not in _SUFFIX or not x.numel() or not _laid_out(x):
        return False
    channels = x.shape[1]
    even = _LANES % channels == 0 if channels < _LANES else channels % _LANES == 0
    return even and x.numel() % _LANES == 0 and not torch.compiler.is_compiling() and library() is not None


def _laid_out(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=LAYOUT)


# ---- calls


def call(name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
    """Call ``{name}_{dtype of x}`` with the addresses of tensors and with numbers, as 64 bits each."""
    function = getattr(library(), f"{name}_{_SUFFIX[x.dtype]}")
    function(*(ctypes.c_int64(a) if isinstance(a, int) else address(a) for a in arguments))


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Of a tensor's first number; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _size(x: Tensor) -> tuple[int, int, int]:
    """Pixels of all images, channels, threads."""
    return x.numel() // x.shape[1], x.shape[1], torch.get_num_threads()


def _numbers(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64)


@dataclass(frozen=True)
class _Normal:
    """A norm of one batch, (C,) float64 each: ``factor * y + offset``."""

    factor: Tensor
    offset: Tensor
    mean: Tensor
    inverse: Tensor  # of the standard deviation
    pixels: int

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, y: Tensor, weight: Tensor, bias: Tensor) -> _Normal:
        """Take the statistics of `y`, and move the norm's running ones."""
        pixels, channels, threads = _size(y)
        shift, totals = _numbers(channels), _numbers(2, channels)
        call("statistics", y, y, pixels, channels, threads, shift, totals)
        first, second = (totals / pixels).unbind()
        mean, variance = shift + first, (second - first * first).clamp_(min=0)
        norm.num_batches_tracked.add_(1)
        unbiased = variance * (pixels / max(pixels - 1, 1))
        for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            running.lerp_(now.to(running.dtype), norm.momentum)
        inverse = (variance + norm.eps).rsqrt_()
        factor = weight.double() * inverse
        return cls(factor, bias.double() - mean * factor, mean, inverse, pixels)

    def backward(self, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the sums of g and of g (y - mean), (2, C): A, B, D of the gradient of y, ``A g + B y + D``."""
        first, second = totals
        pull = self.factor * self.inverse.square() * second / -self.pixels
        return self.factor, pull, -self.factor * first / self.pixels - pull * self.mean

    def of_parameters(self, totals: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias."""
        return (totals[1] * self.inverse).to(like.dtype), totals[0].to(like.dtype)


def _gradient(g: Tensor, like: Tensor) -> Tensor:
    return g.to(like.dtype).contiguous(memory_format=LAYOUT)


# ---- the layers


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, y: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, norm: nn.BatchNorm2d
    ) -> Tensor:
        normal = _Normal.of(norm, y, weight, bias)
        out = torch.empty_like(y)
        call("relu_forward", y, y, residual, *_size(y), normal.factor, normal.offset, out)
        ctx.normal, ctx.residual = normal, residual is not None
        ctx.save_for_backward(y, weight, *([out] if ctx.residual else []))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, *outs = ctx.saved_tensors
        normal, size, g = ctx.normal, _size(y), _gradient(g, y)
        totals, gy = _numbers(2, y.shape[1]), torch.empty_like(y)
        cut, out = (torch.empty_like(y), outs[0]) if ctx.residual else (None, None)
        scale = normal.factor, normal.offset
        call("relu_sums", y, g, y, out, *size, *scale, normal.mean, cut, totals)
        call(
            "relu_backward",
            *(y, g if cut is None else cut, y, int(ctx.residual), *size, *scale),
            *normal.backward(totals),
            gy,
        )
        return gy, *normal.of_parameters(totals, weight), cut, None


class _NormPoolReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        normal = _Normal.of(norm, y, weight, bias)
        images, channels, height, width = y.shape
        out = torch.empty((images, channels, height // 2, width // 2), dtype=y.dtype, memory_format=LAYOUT)
        call("pool_forward", y, y, *_lines(y), normal.factor, normal.offset, out)
        ctx.normal = normal
        ctx.save_for_backward(y, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        y, weight = ctx.saved_tensors
        normal, g = ctx.normal, _gradient(g, y)
        totals, gy = _numbers(2, y.shape[1]), torch.empty_like(y)
        scale = normal.factor, normal.offset
        call("pool_sums", y, g, y, *_lines(y), *scale, normal.mean, totals)
        call("pool_backward", y, g, y, *_lines(y), *scale, *normal.backward(totals), gy)
        return gy, *normal.of_parameters(totals, weight), None


def _lines(y: Tensor) -> tuple[int, int, int, int]:
    """Lines of the pooled images, their width, channels, threads."""
    images, channels, height, width = y.shape
    return images * height // 2, width // 2, channels, torch.get_num_threads()


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        z: Tensor,
        other_weight: Tensor,
        other_bias: Tensor,
        norm: nn.BatchNorm2d,
        other_norm: nn.BatchNorm2d,
    ) -> Tensor:
        first, second = _Normal.of(norm, y, weight, bias), _Normal.of(other_norm, z, other_weight, other_bias)
        out = torch.empty_like(y)
        call("join_forward", y, y, z, *_size(y), first.factor, first.offset, second.factor, second.offset, out)
        ctx.normals = first, second
        ctx.save_for_backward(y, z, out, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        y, z, out, weight = ctx.saved_tensors
        (first, second), size, g = ctx.normals, _size(y), _gradient(g, y)
        totals, gy, gz = _numbers(4, y.shape[1]), torch.empty_like(y), torch.empty_like(z)
        scale = second.factor, second.offset
        call("join_sums", y, g, y, z, out, *size, *scale, first.mean, second.mean, totals)
        call("join_backward", y, g, y, z, out, *size, *scale, _coefficients(first, second, totals), gy, gz)
        of_first, of_second = first.of_parameters(totals[:2], weight), second.of_parameters(totals[2:], weight)
        return gy, *of_first, gz, *of_second, None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        low: Tensor,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        gate: Tensor,
        gate_weight: Tensor,
        gate_bias: Tensor,
        norm: nn.BatchNorm2d,
        gate_norm: nn.BatchNorm2d,
    ) -> Tensor:
        first, second = _Normal.of(norm, y, weight, bias), _Normal.of(gate_norm, gate, gate_weight, gate_bias)
        out = torch.empty_like(y)
        scales = first.factor, first.offset, second.factor, second.offset
        call("gate_forward", y, low, y, gate, *_size(y), *scales, out)
        ctx.normals = first, second
        ctx.save_for_backward(y, gate, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        y, gate, weight = ctx.saved_tensors
        (first, second), size, g = ctx.normals, _size(y), _gradient(g, y)
        totals, gy, gz = _numbers(4, y.shape[1]), torch.empty_like(y), torch.empty_like(gate)
        scales = first.factor, first.offset, second.factor, second.offset
        call("gate_sums", y, g, y, gate, *size, *scales, first.mean, second.mean, totals)
        call("gate_backward", y, g, y, gate, *size, *scales, _coefficients(first, second, totals), gy, gz)
        of_first, of_second = first.of_parameters(totals[:2], weight), second.of_parameters(totals[2:], weight)
        return g, gy, *of_first, gz, *of_second, None, None


def _coefficients(first: _Normal, second: _Normal, totals: Tensor) -> Tensor:
    """A, B, D of the one, then of the other: (6, C)."""
    rows: Sequence[Tensor] = (*first.backward(totals[:2]), *second.backward(totals[2:]))
    return torch.stack(list(rows))


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
        wide, out = factor.double(), torch.empty_like(x)
        call("affine_forward", x, x, *_images(x), wide, offset.double(), out)
        ctx.dtype = factor.dtype
        ctx.save_for_backward(x, wide)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        x, factor = ctx.saved_tensors
        g, gx, totals = _gradient(g, x), torch.empty_like(x), _numbers(len(x), 2, x.shape[1])
        call("affine_backward", x, g, x, *_images(x), factor, gx, totals)
        return gx, totals[:, 1].to(ctx.dtype), totals[:, 0].to(ctx.dtype)


def _images(x: Tensor) -> tuple[int, int, int, int]:
    """Images, pixels of each, channels, threads."""
    return len(x), x.shape[2] * x.shape[3], x.shape[1], torch.get_num_threads()
