"""A convolution and the operation after it as one layer.

In training a ReLU is fused into the convolution, and its gradient takes one pass. Torch alone passes over the result
once more in the forward pass, and takes its slow path in the backward pass where the gradient is a part of a wider map,
as after a concatenation. In evaluation a norm is folded into the weights of the convolution before it. In bfloat16 the
residual and the activation are fused, too; in float32 this is done for channels-last maps.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from semprior.kernels.autograd import Context, apply
from semprior.kernels.layers import LAYOUT, has_kernel, norm_relu
from semprior.kernels.winograd import (
    can_convolve,
    convolve,
    convolve_relu,
    convolve_with,
    relu_gradient,
    takes_map,
)
from semprior.runtime.device import processor_has_bf16
from semprior.runtime.torch_internals import fused_convolution

_STEP = 16  # as in layers.cpp

_Shape = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]  # stride, padding, dilation, groups


def conv_relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``relu(conv(x))``, (B, C, H, W) to (B, C', H', W')."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    if can_convolve(conv, x):
        return convolve_relu(conv, x)
    usual = conv.padding_mode == "zeros" and not isinstance(conv.padding, str) and conv.bias is not None
    if x.device.type == "cpu" and usual and conv.out_channels % _STEP == 0 and has_kernel(x):
        shape = conv.stride, conv.padding, conv.dilation, conv.groups
        return apply(_ConvReLU, x.to(dtype), conv.weight, conv.bias, shape)
    return F.relu_(conv(x))


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``norm(conv(x))``, (B, C, H, W) to (B, C', H', W')."""
    if can_fold(norm, x):
        return folded_conv(conv, norm, x, "none")
    out: Tensor = norm(convolve(conv, x))
    return out


def conv_norm_relu(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """``relu(norm(conv(x)) + residual)``, (B, C, H, W) to (B, C', H', W')."""
    if can_fold(norm, x):
        return folded_conv(conv, norm, x, residual=residual)
    return norm_relu(norm, convolve(conv, x), residual)


def can_fold(norm: nn.BatchNorm2d, x: Tensor) -> bool:
    """Whether `folded_conv` may be used: in evaluation on a CPU, in bfloat16 or with channels-last float32 maps."""
    if norm.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return processor_has_bf16() if _in_bf16() else x.dtype == torch.float32 and takes_map(x)


def _in_bf16() -> bool:
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def folded_conv(
    conv: nn.Conv2d,
    norm: nn.BatchNorm2d,
    x: Tensor,
    activation: Literal["none", "relu", "sigmoid"] = "relu",
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(norm(conv(x)) + residual)`` as one convolution, where `can_fold` holds."""
    factor, bias = normal_form(norm, conv.bias)
    return conv_with(conv, conv.weight * factor[:, None, None, None], bias, x, activation, residual)


def normal_form(norm: nn.BatchNorm2d, shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Factor and offset per channel, (C,) each, with which ``norm(x + shift)`` is ``factor * x + offset``.

    Of a norm in evaluation; `shift` is (C,), the bias of a convolution before it; None if there is none.

    Raises:
        ValueError: the norm has no running statistics.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("folding needs a norm with running statistics")
    factor: Tensor = norm.weight * (variance + norm.eps).rsqrt()
    return factor, (-mean if shift is None else shift - mean) * factor + norm.bias


def conv_with(
    conv: nn.Conv2d,
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    activation: Literal["none", "relu", "sigmoid"] = "relu",
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(conv(x) + residual)`` with another weight and bias than those of `conv`, where `can_fold` holds."""
    if not _in_bf16():
        return _folded_in_float32(conv, weight, bias, x, activation, residual)
    if isinstance(conv.padding, str):
        raise ValueError("folding needs a convolution with its padding in numbers")
    dtype = torch.bfloat16
    return fused_convolution(
        x.to(dtype).contiguous(memory_format=LAYOUT),
        weight.to(dtype),
        bias.to(dtype),
        padding=conv.padding,
        stride=conv.stride,
        dilation=conv.dilation,
        groups=conv.groups,
        activation=activation,
        residual=residual,
    )


def _folded_in_float32(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor, x: Tensor, activation: str, residual: Tensor | None
) -> Tensor:
    if can_convolve(conv, x):
        relu = activation == "relu" and residual is None
        out = convolve_with(x, weight, bias, conv.dilation[0], relu=relu)
    else:
        out = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    if residual is not None:
        out.add_(residual)
    return F.relu_(out) if activation == "relu" else torch.sigmoid_(out) if activation == "sigmoid" else out


class _ConvReLUContext(Context):
    shape: _Shape
    dtype: torch.dtype


class _ConvReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _ConvReLUContext, x: Tensor, weight: Tensor, bias: Tensor, shape: _Shape) -> Tensor:
        stride, padding, dilation, groups = shape
        kernel, shift = weight.to(x.dtype), bias.to(x.dtype)
        if x.dtype == torch.bfloat16 and processor_has_bf16():
            out = fused_convolution(
                x,
                kernel,
                shift,
                padding=padding,
                stride=stride,
                dilation=dilation,
                groups=groups,
                activation="relu",
            )
        else:
            out = F.relu_(F.conv2d(x, kernel, shift, stride, padding, dilation, groups))
        out = out.contiguous(memory_format=LAYOUT)
        ctx.shape, ctx.dtype = shape, weight.dtype
        ctx.save_for_backward(x, kernel, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _ConvReLUContext, g: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, out = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape
        gx, gw, gb = torch.ops.aten.convolution_backward(
            *(relu_gradient(g, out), x, kernel, [out.shape[1]], stride, padding, dilation, False, [0, 0], groups),
            list(ctx.needs_input_grad[:3]),
        )
        return gx, *(None if part is None else part.to(ctx.dtype) for part in (gw, gb)), None
