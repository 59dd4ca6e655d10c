"""Batch normalisation in train mode fused with the operations after it: a ReLU, a residual, a maximum, a gate.

Each function takes the results of convolutions and their norms. It gives the same values, gradients and running
statistics as its plain form, which stands in the same function. On a CPU, for channels-last maps, compiled layers (see
layers.cpp) replace the plain form, which passes over memory three to six times as often.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from semprior.kernels.autograd import Context, apply
from semprior.kernels.build import kernel, library

_LANES, _POOLED, _MOST = 64, 32, 4  # as in layers.cpp
_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "float", torch.float64: "double"}
LAYOUT = torch.channels_last


def norm_relu(norm: nn.BatchNorm2d, y: Tensor, residual: Tensor | None = None) -> Tensor:
    """``relu(norm(y) + residual)``, all (B, C, H, W)."""
    if _compiled(norm, y, residual):
        return apply(_NormReLU, y, norm.weight, norm.bias, residual, norm)
    normal = norm(y)
    return F.relu_(normal if residual is None else normal.add_(residual))


def norm_pool_relu(norm: nn.BatchNorm2d, y: Tensor) -> Tensor:
    """``relu(max_pool2d(norm(y), 2))``, (B, C, H, W) to (B, C, H/2, W/2)."""
    if _compiled(norm, y) and y.shape[1] % _POOLED == 0 and y.shape[2] % 2 == 0 and y.shape[3] % 2 == 0:
        return apply(_NormPoolReLU, y, norm.weight, norm.bias, norm)
    return F.relu_(F.max_pool2d(norm(y), 2))


def sum_relu(norms: Sequence[nn.BatchNorm2d], maps: Sequence[Tensor]) -> Tensor:
    """``relu(sum_k norms[k](maps[k]))``, maps (B, C, H, W)."""
    first, *others = maps
    if len(maps) <= _MOST and all(norm.training for norm in norms) and _compiled(norms[0], first, *others):
        parameters = [term for norm in norms for term in (norm.weight, norm.bias)]
        return apply(_Sum, tuple(norms), *maps, *parameters)
    total = norms[0](first)
    for norm, y in zip(norms[1:], others, strict=True):
        total = total + norm(y)
    return F.relu_(total)


def join_relu(norm: nn.BatchNorm2d, y: Tensor, other_norm: nn.BatchNorm2d, other: Tensor) -> Tensor:
    """``relu(norm(y) + relu(other_norm(other)))``, all (B, C, H, W)."""
    if _compiled(norm, y, other) and other_norm.training:
        return apply(_Join, y, norm.weight, norm.bias, other, other_norm.weight, other_norm.bias, norm, other_norm)
    return F.relu_(norm(y).add_(F.relu_(other_norm(other))))


def gated_sum(low: Tensor, norm: nn.BatchNorm2d, y: Tensor, gate_norm: nn.BatchNorm2d, gate: Tensor) -> Tensor:
    """``low + relu(norm(y)) * sigmoid(gate_norm(gate))``, all (B, C, H, W)."""
    if _compiled(norm, y, gate, low) and gate_norm.training:
        return apply(_Gate, low, y, norm.weight, norm.bias, gate, gate_norm.weight, gate_norm.bias, norm, gate_norm)
    return torch.addcmul(low, F.relu_(norm(y)), torch.sigmoid_(gate_norm(gate)))


def scale_and_shift(x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """``factor * x + offset``: x (B, C, H, W), the others (B, C); the result has the dtype of x."""
    if has_kernel(x) and (x.shape[2] * x.shape[3] * x.shape[1]) % _LANES == 0:
        return apply(_Affine, x, factor, offset)
    factor, offset = (term.to(x.dtype)[:, :, None, None] for term in (factor, offset))
    return torch.addcmul(offset, x, factor)


def _compiled(norm: nn.BatchNorm2d, y: Tensor, *others: Tensor | None) -> bool:
    """Whether the compiled layer can normalise `y` and combine it with `others`."""
    same = all(o is None or (o.shape == y.shape and o.dtype == y.dtype and _laid_out(o)) for o in others)
    usual = norm.training and norm.affine and norm.track_running_stats and norm.momentum is not None
    return usual and same and has_kernel(y)


def has_kernel(x: Tensor) -> bool:
    """Whether a compiled layer can read this map: channels-last on a CPU, of a known dtype and number of channels."""
    if x.device.type != "cpu" or x.dtype not in _SUFFIX or not x.numel() or not _laid_out(x):
        return False
    channels = x.shape[1]
    even = _LANES % channels == 0 if channels < _LANES else channels % _LANES == 0
    return even and x.numel() % _LANES == 0 and not torch.compiler.is_compiling() and library() is not None


def _laid_out(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=LAYOUT)


def call(name: str, x: Tensor, *arguments: Tensor | int | None) -> None:
    """Call the kernel ``{name}_{dtype of x}``; tensors are passed by address, numbers in 64 bits."""
    function = kernel(f"{name}_{_SUFFIX[x.dtype]}")
    function(*(ctypes.c_int64(a) if isinstance(a, int) else address(a) for a in arguments))


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """The address of a tensor's first element; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _size(x: Tensor) -> tuple[int, int, int]:
    """Number of pixels of all images, of channels, and of threads."""
    return x.numel() // x.shape[1], x.shape[1], torch.get_num_threads()


def _numbers(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float64)


@dataclass(frozen=True)
class _Normal:
    """The normalisation of one batch: ``factor * y + offset``.

    Attributes:
        factor: (C,) float64.
        offset: (C,) float64.
        mean: (C,) float64, of the batch.
        inverse: (C,) float64, of the batch's standard deviation.
        pixels: number of values that a statistic is taken over.
    """

    factor: Tensor
    offset: Tensor
    mean: Tensor
    inverse: Tensor
    pixels: int

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, y: Tensor, weight: Tensor, bias: Tensor) -> _Normal:
        """Compute the statistics of `y` and update the running statistics of the norm."""
        pixels, channels, threads = _size(y)
        shift, totals = _numbers(channels), _numbers(2, channels)
        call("statistics", y, y, pixels, channels, threads, shift, totals)
        first, second = (totals / pixels).unbind()
        mean, variance = shift + first, (second - first * first).clamp_(min=0)
        move_running_statistics(norm, mean, variance, pixels)
        inverse = (variance + norm.eps).rsqrt_()
        factor = weight.double() * inverse
        return cls(factor, bias.double() - mean * factor, mean, inverse, pixels)

    def backward(self, totals: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A, B, D of the gradient of y, ``A g + B y + D``, from the sums (2, C) of g and of g (y - mean)."""
        first, second = totals
        slope = self.factor * self.inverse.square() * second / -self.pixels
        return self.factor, slope, -self.factor * first / self.pixels - slope * self.mean

    def parameter_gradients(self, totals: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias, from the same sums."""
        return (totals[1] * self.inverse).to(like.dtype), totals[0].to(like.dtype)


def move_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Move a norm's running statistics, as it does itself in train mode, to those of a batch of `count` values, (C,).

    Raises:
        ValueError: the norm has no running statistics, or no momentum.
    """
    tracked, running_mean, running_var = norm.num_batches_tracked, norm.running_mean, norm.running_var
    if tracked is None or running_mean is None or running_var is None or norm.momentum is None:
        raise ValueError("the compiled layers need a norm with running statistics and a momentum")
    tracked.add_(1)
    for running, now in ((running_mean, mean), (running_var, variance * (count / max(count - 1, 1)))):
        running.lerp_(now.to(running.dtype), norm.momentum)


def _gradient(g: Tensor, like: Tensor) -> Tensor:
    return g.to(like.dtype).contiguous(memory_format=LAYOUT)


class _NormContext(Context):
    normal: _Normal
    residual: bool


class _TwoNormsContext(Context):
    normals: tuple[_Normal, _Normal]


class _AffineContext(Context):
    dtype: torch.dtype


class _NormReLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _NormContext, y: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, norm: nn.BatchNorm2d
    ) -> Tensor:
        normal = _Normal.of(norm, y, weight, bias)
        out = torch.empty_like(y)
        call("relu_forward", y, y, residual, *_size(y), normal.factor, normal.offset, out)
        ctx.normal, ctx.residual = normal, residual is not None
        ctx.save_for_backward(y, weight, *([out] if ctx.residual else []))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _NormContext, g: Tensor) -> tuple[Tensor | None, ...]:
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
        return gy, *normal.parameter_gradients(totals, weight), cut, None


class _NormPoolReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _NormContext, y: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        normal = _Normal.of(norm, y, weight, bias)
        images, channels, height, width = y.shape
        out = torch.empty((images, channels, height // 2, width // 2), dtype=y.dtype, memory_format=LAYOUT)
        call("pool_forward", y, y, *_lines(y), normal.factor, normal.offset, out)
        ctx.normal = normal
        ctx.save_for_backward(y, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _NormContext, g: Tensor) -> tuple[Tensor | None, ...]:
        y, weight = ctx.saved_tensors
        normal, g = ctx.normal, _gradient(g, y)
        totals, gy = _numbers(2, y.shape[1]), torch.empty_like(y)
        scale = normal.factor, normal.offset
        call("pool_sums", y, g, y, *_lines(y), *scale, normal.mean, totals)
        call("pool_backward", y, g, y, *_lines(y), *scale, *normal.backward(totals), gy)
        return gy, *normal.parameter_gradients(totals, weight), None


def _lines(y: Tensor) -> tuple[int, int, int, int]:
    """Number of rows of all pooled images, their width, and numbers of channels and threads."""
    images, channels, height, width = y.shape
    return images * height // 2, width // 2, channels, torch.get_num_threads()


class _SumContext(Context):
    normals: tuple[_Normal, ...]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _SumContext, norms: tuple[nn.BatchNorm2d, ...], *inputs: Tensor) -> Tensor:
        maps, parameters = inputs[: len(norms)], inputs[len(norms) :]
        ctx.normals = tuple(
            _Normal.of(norm, y, weight, bias)
            for norm, y, weight, bias in zip(norms, maps, parameters[::2], parameters[1::2], strict=True)
        )
        out = torch.empty_like(maps[0])
        factors = torch.stack([normal.factor for normal in ctx.normals])
        offset = torch.stack([normal.offset for normal in ctx.normals]).sum(0)
        call("sum_forward", out, _addresses(maps), len(maps), *_size(out), factors, offset, out)
        ctx.save_for_backward(out, *maps, *parameters[::2])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _SumContext, g: Tensor) -> tuple[Tensor | None, ...]:
        normals, (out, *saved) = ctx.normals, ctx.saved_tensors
        maps, weights = saved[: len(normals)], saved[len(normals) :]
        size, g, cut, totals = _size(out), _gradient(g, out), torch.empty_like(out), _numbers(1 + _MOST, out.shape[1])
        means = torch.stack([normal.mean for normal in normals])
        call("sum_sums", out, g, out, _addresses(maps), len(maps), *size, means, cut, totals)
        of_maps: list[Tensor] = []
        of_parameters: list[Tensor] = []
        for k, (normal, y, weight) in enumerate(zip(normals, maps, weights, strict=True)):
            sums, gy = totals[[0, 1 + k]], torch.empty_like(y)
            call("relu_backward", y, cut, y, 1, *size, normal.factor, normal.offset, *normal.backward(sums), gy)
            of_maps.append(gy)
            of_parameters += normal.parameter_gradients(sums, weight)
        return None, *of_maps, *of_parameters


def _addresses(maps: Sequence[Tensor]) -> Tensor:
    return torch.tensor([y.data_ptr() for y in maps], dtype=torch.int64)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _TwoNormsContext,
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
    def backward(ctx: _TwoNormsContext, g: Tensor) -> tuple[Tensor | None, ...]:
        y, z, out, weight = ctx.saved_tensors
        (first, second), size, g = ctx.normals, _size(y), _gradient(g, y)
        totals, gy, gz = _numbers(4, y.shape[1]), torch.empty_like(y), torch.empty_like(z)
        scale = second.factor, second.offset
        call("join_sums", y, g, y, z, out, *size, *scale, first.mean, second.mean, totals)
        call("join_backward", y, g, y, z, out, *size, *scale, _coefficients(first, second, totals), gy, gz)
        first_gradients, second_gradients = (
            first.parameter_gradients(totals[:2], weight),
            second.parameter_gradients(totals[2:], weight),
        )
        return gy, *first_gradients, gz, *second_gradients, None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _TwoNormsContext,
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
    def backward(ctx: _TwoNormsContext, g: Tensor) -> tuple[Tensor | None, ...]:
        y, gate, weight = ctx.saved_tensors
        (first, second), size, g = ctx.normals, _size(y), _gradient(g, y)
        totals, gy, gz = _numbers(4, y.shape[1]), torch.empty_like(y), torch.empty_like(gate)
        scales = first.factor, first.offset, second.factor, second.offset
        call("gate_sums", y, g, y, gate, *size, *scales, first.mean, second.mean, totals)
        call("gate_backward", y, g, y, gate, *size, *scales, _coefficients(first, second, totals), gy, gz)
        first_gradients, second_gradients = (
            first.parameter_gradients(totals[:2], weight),
            second.parameter_gradients(totals[2:], weight),
        )
        return g, gy, *first_gradients, gz, *second_gradients, None, None


def _coefficients(first: _Normal, second: _Normal, totals: Tensor) -> Tensor:
    """A, B, D of the first normalisation, then of the second: (6, C)."""
    rows: Sequence[Tensor] = (*first.backward(totals[:2]), *second.backward(totals[2:]))
    return torch.stack(list(rows))


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _AffineContext, x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
        wide, out = factor.double(), torch.empty_like(x)
        call("affine_forward", x, x, *_images(x), wide, offset.double(), out)
        ctx.dtype = factor.dtype
        ctx.save_for_backward(x, wide)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _AffineContext, g: Tensor) -> tuple[Tensor | None, ...]:
        x, factor = ctx.saved_tensors
        g, gx, totals = _gradient(g, x), torch.empty_like(x), _numbers(len(x), 2, x.shape[1])
        call("affine_backward", x, g, x, *_images(x), factor, gx, totals)
        return gx, totals[:, 1].to(ctx.dtype), totals[:, 0].to(ctx.dtype)


def _images(x: Tensor) -> tuple[int, int, int, int]:
    """Number of images, of pixels in each, of channels, and of threads."""
    return len(x), x.shape[2] * x.shape[3], x.shape[1], torch.get_num_threads()
