"""A convolution and its ReLU as one layer: the ReLU inside the convolution, its gradient in one pass.

torch alone goes over the result once more forward, and in the backward pass through its slow path where the gradient is
a part of a wider map, as after a concatenation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from semprior.kernels.layers import LAYOUT, call, fits

_STEP = 16  # as in layers.cpp


def conv_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``relu(conv(x))``."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    usual = conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and conv.bias is not None
    if x.device.type == "cpu" and usual and conv.out_channels % _STEP == 0 and fits(x):
        shape = conv.stride, conv.padding, conv.dilation, conv.groups
        return _ConvReLU.apply(x.to(dtype), conv.weight, conv.bias, shape)
    return F.relu_(conv(x))


class _ConvReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, shape: tuple) -> Tensor:
        stride, padding, dilation, groups = shape
        kernel = weight.to(x.dtype)
        if x.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available():
            out = torch.ops.mkldnn._convolution_pointwise(
                x, kernel, bias.to(x.dtype), padding, stride, dilation, groups, "relu", [], ""
            )
        else:
            out = F.relu_(torch.conv2d(x, kernel, bias.to(x.dtype), stride, padding, dilation, groups))
        out = out.contiguous(memory_format=LAYOUT)
        ctx.shape, ctx.dtype = shape, weight.dtype
        ctx.save_for_backward(x, kernel, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, out = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape
        images, channels, height, width = out.shape
        g = g.to(out.dtype)
        step = g.stride(3)
        if g.stride() != (height * width * step, 1, width * step, step) or step < channels:
            g, step = g.contiguous(memory_format=LAYOUT), channels
        before = torch.empty_like(out)
        call("cut", out, g, step, out, images * height * width, channels, torch.get_num_threads(), before)
        gx, gw, gb = torch.ops.aten.convolution_backward(
            *(before, x, kernel, [channels], stride, padding, dilation, False, [0, 0], groups),
            list(ctx.needs_input_grad[:3]),
        )
        return gx, *(None if part is None else part.to(ctx.dtype) for part in (gw, gb)), None
