"""Convolutions in float32 on a CPU with fewer products: Winograd's minimal filtering (see winograd.cpp).

Without bfloat16 convolutions are nearly all of a step, and their products nearly all of a convolution. Filters of 3x3,
dilated or not, take 4 times fewer products, those of 5x5 2.8 times, for transforms of every map; those of 1x1 take as
many. float32 rounds some five times as coarsely then (1e-6 of the result's norm), which is less than the order of sums
makes in a gradient.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from semprior.kernels.build import library
from semprior.kernels.layers import LAYOUT, address, call

_STEP = 16  # as in winograd.cpp: channels are multiples of it
_TAPS = (1, 3, 5)


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``conv(x)``, (B, C, H, W) to (B, C', H', W')."""
    return _Winograd.apply(x, conv.weight, conv.bias, conv.dilation[0], False) if suits(conv, x) else conv(x)


def convolve_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``relu(conv(x))`` where `suits` holds."""
    return _Winograd.apply(x, conv.weight, conv.bias, conv.dilation[0], True)


def suits(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the compiled convolution takes this one over: float32, channels-last, on a CPU."""
    taps, dilation = conv.kernel_size[0], conv.dilation[0]
    square = conv.kernel_size == (taps, taps) and conv.dilation == (dilation, dilation) and taps in _TAPS
    same = conv.stride == (1, 1) and conv.padding == (dilation * (taps // 2),) * 2 and conv.padding_mode == "zeros"
    even = conv.groups == 1 and conv.in_channels % _STEP == 0 and conv.out_channels % _STEP == 0
    narrowed = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != torch.float32
    return square and same and even and not narrowed and x.dtype == conv.weight.dtype == torch.float32 and here(x)


def here(x: Tensor) -> bool:
    """Whether compiled code can take this map over: channels-last, on a CPU."""
    usual = x.device.type == "cpu" and x.numel() > 0 and x.is_contiguous(memory_format=LAYOUT)
    return usual and not torch.compiler.is_compiling() and library() is not None


def with_weights(x: Tensor, weight: Tensor, bias: Tensor, dilation: int, *, relu: bool) -> Tensor:
    """What a convolution that `suits` gives with these weights (C', C, taps, taps) instead; without gradients."""
    return _forward(x, weight.permute(2, 3, 1, 0), bias, dilation, relu)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, cut: bool) -> Tensor:
        out = _forward(x, weight.permute(2, 3, 1, 0), bias, dilation, cut)
        ctx.dilation, ctx.cut = dilation, cut
        ctx.save_for_backward(x, weight, *([out] if cut else []))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *outs = ctx.saved_tensors
        if outs:
            g = before_relu(g, outs[0])
        g = g.contiguous(memory_format=LAYOUT)
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        # The gradient of the input is a convolution with the filter turned by half a circle, inputs for outputs.
        gx = _forward(g, weight.flip(2, 3).permute(2, 3, 0, 1), None, ctx.dilation, False) if of_x else None
        gw, gb = _of_parameters(x, g, weight, ctx.dilation) if of_weight or of_bias else (None, None)
        return gx, gw, gb if of_bias else None, None, None


def before_relu(g: Tensor, out: Tensor) -> Tensor:
    """The gradient before a ReLU whose result is `out`; `g` may be some channels of a wider map."""
    images, channels, height, width = out.shape
    g = g.to(out.dtype)
    step = g.stride(3)
    if g.stride() != (height * width * step, 1, width * step, step) or step < channels:
        g, step = g.contiguous(memory_format=LAYOUT), channels
    before = torch.empty_like(out)
    call("cut", out, g, step, out, images * height * width, channels, torch.get_num_threads(), before)
    return before


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, cut: bool) -> Tensor:
    """With a weight (taps, taps, C, C')."""
    images, inputs, height, width = x.shape
    taps, outputs = weight.shape[0], weight.shape[3]
    out = torch.empty((images, outputs, height, width), dtype=x.dtype, memory_format=LAYOUT)
    sizes = images, height, width, dilation, taps, inputs, outputs, torch.get_num_threads()
    weight = weight.contiguous()
    library().convolution_forward(
        address(x), *map(ctypes.c_int64, sizes), address(weight), address(bias), ctypes.c_int64(cut), address(out)
    )
    return out


def _of_parameters(x: Tensor, g: Tensor, weight: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """The gradients of the weight, laid out like it, and of the bias."""
    images, inputs, height, width = x.shape
    outputs, _, taps, _ = weight.shape
    found, of_bias = torch.empty((taps, taps, inputs, outputs), dtype=x.dtype), torch.empty(outputs, dtype=x.dtype)
    sizes = images, height, width, dilation, taps, inputs, outputs, torch.get_num_threads()
    library().convolution_parameters(
        address(x), address(g), *map(ctypes.c_int64, sizes), address(found), address(of_bias)
    )
    return torch.empty_like(weight).copy_(found.permute(3, 2, 0, 1)), of_bias
