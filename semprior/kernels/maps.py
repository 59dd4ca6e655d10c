"""Maps put side by side, and brought to another's size: torch's own operations, with compiled gradients.

On a CPU, for channels-last maps, torch adds up gradients that are parts of wider maps, and computes that of an
interpolation, number by number; the compiled layers (see maps.cpp) take one pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from semprior.kernels.autograd import Context, apply
from semprior.kernels.layers import LAYOUT, call, has_kernel

_STEP = 16  # as in maps.cpp


def concatenate(parts: Sequence[Tensor]) -> Tensor:
    """``torch.cat(parts, dim=1)``: maps (B, C_k, H, W) to (B, sum of C_k, H, W)."""
    if _has_gradient(*parts) and len({part.dtype for part in parts}) == 1:
        return apply(_Concatenation, *parts)
    return torch.cat(list(parts), dim=1)


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear interpolation, with aligned corners, to the height and width of `like`: (B, C, h, w) to (B, C, H, W)."""
    if _has_gradient(x):
        return apply(_Interpolation, x, tuple(like.shape[-2:]))
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)


def _has_gradient(*maps: Tensor) -> bool:
    """Whether a gradient is wanted that the compiled layers can compute."""
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in maps)
    return wanted and all(x.shape[1] % _STEP == 0 and has_kernel(x) for x in maps)


class _SizedContext(Context):
    size: tuple[int, ...]


class _PartsContext(Context):
    widths: tuple[int, ...]


class _Concatenation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _PartsContext, *parts: Tensor) -> Tensor:
        ctx.widths = tuple(part.shape[1] for part in parts)
        return torch.cat(parts, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: _PartsContext, g: Tensor) -> tuple[Tensor | None, ...]:
        g = g.contiguous(memory_format=LAYOUT)
        images, channels, height, width = g.shape
        found: list[Tensor | None] = []
        start = 0
        for count, needed in zip(ctx.widths, ctx.needs_input_grad, strict=True):
            part = None
            if needed:
                part = torch.empty((images, count, height, width), dtype=g.dtype, memory_format=LAYOUT)
                sizes = channels, images * height * width, count, torch.get_num_threads()
                call("part", g, g[:, start : start + count], *sizes, part)
            found.append(part)
            start += count
        return tuple(found)


class _Interpolation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _SizedContext, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.size = tuple(x.shape)
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: _SizedContext, g: Tensor) -> tuple[Tensor | None, ...]:
        g = g.contiguous(memory_format=LAYOUT)
        images, channels, height, width = g.shape
        gx = torch.empty(ctx.size, dtype=g.dtype, memory_format=LAYOUT)
        sizes = images, height, width, channels, *ctx.size[2:], torch.get_num_threads()
        call("interpolation_backward", g, g, *sizes, gx)
        return gx, None
