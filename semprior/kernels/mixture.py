"""A learned mixture of many float16 maps, read once and in the layout of the feature bank."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from semprior.kernels.autograd import Context, apply
from semprior.kernels.build import kernel, library

_STEP = 16  # as in layers.cpp


def mix(maps: Sequence[Tensor], shares: Tensor) -> Tensor:
    """``sum_k shares[k] * maps[k]``: K maps (B, C, h, w) of any float dtype and shares (K,), to the shares' dtype."""
    if _side_by_side(maps) and shares.dtype == torch.float32 and library() is not None:
        return apply(_Mixture, shares, *maps)
    weighted = [share * values.to(shares.dtype) for share, values in zip(shares, maps, strict=True)]
    mixture: Tensor = reduce(torch.add, weighted)
    return mixture


def _side_by_side(maps: Sequence[Tensor]) -> bool:
    """Whether the maps are neighbouring parts of one float16 tensor (B, h, w, K * C or more)."""
    first = maps[0]
    _, channels, height, width = first.shape
    step = first.stride(3)
    wanted = (height * width * step, 1, width * step, step)
    return (
        first.device.type == "cpu"
        and channels % _STEP == 0
        and not torch.compiler.is_compiling()
        and all(
            values.dtype == torch.float16
            and values.shape == first.shape
            and values.stride() == wanted
            and values.data_ptr() == first.data_ptr() + place * channels * first.element_size()
            for place, values in enumerate(maps)
        )
    )


def _call(name: str, maps: Sequence[Tensor], *addresses: Tensor) -> None:
    first = maps[0]
    images, channels, height, width = first.shape
    sizes = first.stride(3), images * height * width, len(maps), channels, torch.get_num_threads()
    kernel(name)(
        ctypes.c_void_p(first.data_ptr()),
        *(ctypes.c_int64(size) for size in sizes),
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in addresses),
    )


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, shares: Tensor, *maps: Tensor) -> Tensor:
        images, channels, height, width = maps[0].shape
        out = torch.empty(images, height, width, channels)
        _call("mixture_forward", maps, shares.double(), out)
        ctx.save_for_backward(*maps)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, g: Tensor) -> tuple[Tensor | None, ...]:
        maps = ctx.saved_tensors
        shares_gradient = torch.empty(len(maps), dtype=torch.float64)
        _call("mixture_backward", maps, g.permute(0, 2, 3, 1).contiguous(), shares_gradient)
        return shares_gradient.to(g.dtype), *(None for _ in maps)
