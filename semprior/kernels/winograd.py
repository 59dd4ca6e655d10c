"""Convolutions in float32 on a CPU with fewer products: Winograd's minimal filtering (see winograd.cpp).

Without bfloat16, convolutions take nearly all of a training step, and products nearly all of a convolution. At the cost
of transforming every map, 3x3 filters, dilated or not, need 4 times fewer products and 5x5 filters 2.8 times fewer; 1x1
filters need as many. The rounding error grows about fivefold, to 1e-6 of the result's norm, which is still less than
what the order of summation changes in a gradient.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from semprior.kernels.autograd import Context, apply
from semprior.kernels.build import kernel, library
from semprior.kernels.layers import LAYOUT, address, call

_STEP = 16  # as in winograd.cpp: channels are multiples of it
_TAPS = (1, 3, 5)


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """``conv(x)``, (B, C, H, W) to (B, C', H', W').

    Args:
        conv: the layer.
        x: its input.
        weight: of the shape of the layer's, to replace it; None keeps the layer's.
    """
    if can_convolve(conv, x):
        return apply(_Winograd, x, conv.weight if weight is None else weight, conv.bias, conv.dilation[0], False)
    out: Tensor = conv(x) if weight is None else torch.func.functional_call(conv, {"weight": weight}, (x,))
    return out


def convolve_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``relu(conv(x))`` where `can_convolve` holds."""
    return apply(_Winograd, x, conv.weight, conv.bias, conv.dilation[0], True)


def can_convolve(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the compiled convolution can replace this one: float32, channels-last, on a CPU."""
    taps, dilation = conv.kernel_size[0], conv.dilation[0]
    square = conv.kernel_size == (taps, taps) and conv.dilation == (dilation, dilation) and taps in _TAPS
    same = conv.stride == (1, 1) and conv.padding == (dilation * (taps // 2),) * 2 and conv.padding_mode == "zeros"
    even = conv.groups == 1 and conv.in_channels % _STEP == 0 and conv.out_channels % _STEP == 0
    narrowed = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != torch.float32
    return square and same and even and not narrowed and x.dtype == conv.weight.dtype == torch.float32 and takes_map(x)


def takes_map(x: Tensor) -> bool:
    """Whether compiled code can read this map: channels-last, on a CPU."""
    usual = x.device.type == "cpu" and x.numel() > 0 and x.is_contiguous(memory_format=LAYOUT)
    return usual and not torch.compiler.is_compiling() and library() is not None


def convolve_with(x: Tensor, weight: Tensor, bias: Tensor, dilation: int, *, relu: bool) -> Tensor:
    """A convolution, without gradients, with weights (C', C, taps, taps) of a layer that `can_convolve` accepts."""
    return _forward(x, weight.permute(2, 3, 1, 0), bias, dilation, relu)


class _WinogradContext(Context):
    dilation: int


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _WinogradContext, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, relu: bool
    ) -> Tensor:
        out = _forward(x, weight.permute(2, 3, 1, 0), bias, dilation, relu)
        ctx.dilation = dilation
        ctx.save_for_backward(x, weight, *([out] if relu else []))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _WinogradContext, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *outs = ctx.saved_tensors
        if outs:
            g = relu_gradient(g, outs[0])
        g = g.contiguous(memory_format=LAYOUT)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        # The input's gradient is a convolution with the filter rotated by 180 degrees and its channels transposed.
        gx = _forward(g, weight.flip(2, 3).permute(2, 3, 0, 1), None, ctx.dilation, False) if needs_x else None
        gw, gb = _parameter_gradients(x, g, weight, ctx.dilation) if needs_weight or needs_bias else (None, None)
        return gx, gw, gb if needs_bias else None, None, None


def relu_gradient(g: Tensor, out: Tensor) -> Tensor:
    """The gradient of a ReLU's input, from its result `out` and the gradient `g`, maybe a slice of a wider map."""
    images, channels, height, width = out.shape
    g = g.to(out.dtype)
    step = g.stride(3)
    if g.stride() != (height * width * step, 1, width * step, step) or step < channels:
        g, step = g.contiguous(memory_format=LAYOUT), channels
    gradient = torch.empty_like(out)
    call("cut", out, g, step, out, images * height * width, channels, torch.get_num_threads(), gradient)
    return gradient


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, relu: bool) -> Tensor:
    """A convolution with a weight (taps, taps, C, C'), and a ReLU after it if asked for."""
    images, inputs, height, width = x.shape
    taps, outputs = weight.shape[0], weight.shape[3]
    out = torch.empty((images, outputs, height, width), dtype=x.dtype, memory_format=LAYOUT)
    sizes = images, height, width, dilation, taps, inputs, outputs, torch.get_num_threads()
    weight = weight.contiguous()
    kernel("convolution_forward")(
        address(x), *map(ctypes.c_int64, sizes), address(weight), address(bias), ctypes.c_int64(relu), address(out)
    )
    return out


def _parameter_gradients(x: Tensor, g: Tensor, weight: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Gradients of the weight, in its memory layout, and of the bias."""
    images, inputs, height, width = x.shape
    outputs, _, taps, _ = weight.shape
    gw, gb = torch.empty((taps, taps, inputs, outputs), dtype=x.dtype), torch.empty(outputs, dtype=x.dtype)
    sizes = images, height, width, dilation, taps, inputs, outputs, torch.get_num_threads()
    kernel("convolution_parameters")(address(x), address(g), *map(ctypes.c_int64, sizes), address(gw), address(gb))
    return torch.empty_like(weight).copy_(gw.permute(3, 2, 0, 1)), gb
