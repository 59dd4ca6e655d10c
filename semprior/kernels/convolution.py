"""A convolution and what follows it as one layer.

In training a ReLU goes into the convolution, and its gradient takes one pass; torch alone goes over the result once
more forward, and in the backward pass through its slow path where the gradient is a part of a wider map, as after a
concatenation. In evaluation a norm goes into the convolution's weights, and in 16 bit all the rest into its last turn;
in float32 that is done for channels-last maps.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from semprior.devices import processor_has_bf16
from semprior.kernels.layers import LAYOUT, fits
from semprior.kernels.winograd import before_relu, convolve_relu, here, suits, with_weights

_STEP = 16  # as in layers.cpp


def conv_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``relu(conv(x))``."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if suits(conv, x):
        return convolve_relu(conv, x)
    usual = conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and conv.bias is not None
    if x.device.type == "cpu" and usual and conv.out_channels % _STEP == 0 and fits(x):
        shape = conv.stride, conv.padding, conv.dilation, conv.groups
        return _ConvReLU.apply(x.to(dtype), conv.weight, conv.bias, shape)
    return F.relu_(conv(x))


def folds(norm: nn.BatchNorm2d, x: Tensor) -> bool:
    """Whether `folded` takes over: evaluation on a CPU without gradients, in bfloat16 or channels-last in float32."""
    if norm.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return processor_has_bf16() if _narrowed() else x.dtype == torch.float32 and here(x)


def _narrowed() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def folded(
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
    x: Tensor,
    activation: Literal["none", "relu", "sigmoid"] = "relu",
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(norm(conv(x)) + residual)`` as one convolution, where `folds` holds."""
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    if not _narrowed():
        return _folded_in_float32(conv, norm, x, factor, activation, residual)
    dtype = torch.bfloat16
    x = x.to(dtype).contiguous(memory_format=LAYOUT)
    weight = (conv.weight * factor[:, None, None, None]).to(dtype)
    bias = ((conv.bias - norm.running_mean) * factor + norm.bias).to(dtype)
    shape = conv.padding, conv.stride, conv.dilation, conv.groups
    convolution = torch.ops.mkldnn._convolution_pointwise
    if residual is None:
        return convolution(x, weight, bias, *shape, activation, [], "")
    return convolution.binary(x, residual, weight, bias, *shape, "add", 1.0, activation, [], "")


def _folded_in_float32(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, factor: Tensor, activation: str, residual: Tensor | None
) -> Tensor:
    weight = conv.weight * factor[:, None, None, None]
    bias = (conv.bias - norm.running_mean) * factor + norm.bias
    if suits(conv, x):
        out = with_weights(x, weight, bias, conv.dilation[0], relu=activation == "relu" and residual is None)
    else:
        out = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    if residual is not None:
        out.add_(residual)
    return F.relu_(out) if activation == "relu" else torch.sigmoid_(out) if activation == "sigmoid" else out


class _ConvReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, shape: tuple) -> Tensor:
        stride, padding, dilation, groups = shape
        kernel = weight.to(x.dtype)
        if x.dtype == torch.bfloat16 and processor_has_bf16():
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
        gx, gw, gb = torch.ops.aten.convolution_backward(
            *(before_relu(g, out), x, kernel, [out.shape[1]], stride, padding, dilation, False, [0, 0], groups),
            list(ctx.needs_input_grad[:3]),
        )
        return gx, *(None if part is None else part.to(ctx.dtype) for part in (gw, gb)), None
