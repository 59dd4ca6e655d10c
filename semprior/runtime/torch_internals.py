"""The private names of torch that this project uses, each with the reason; read in torch 2.14, and there since 2.11.

`tests/test_library_internals.py` fails first when one of them moves.
"""

from __future__ import annotations

import functools
import inspect

import torch
from torch import Tensor


@functools.cache
def onednn_has_bf16() -> bool:
    """Whether oneDNN, which computes torch's convolutions on a CPU, has native bfloat16 arithmetic on this processor.

    Private, since only oneDNN itself knows: the variable ONEDNN_MAX_CPU_ISA may limit it to less than the processor
    has, which `torch.cpu.get_capabilities` reports. A torch without oneDNN, as on Apple's machines, emulates bfloat16.
    """
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def fused_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    padding: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    activation: str,
    residual: Tensor | None = None,
) -> Tensor:
    """``activation(conv2d(x, weight, bias) + residual)`` in one pass of oneDNN; without gradients.

    Private, since torch has no public name for a convolution with an activation: its compiler alone emits this one.

    Args:
        x: (B, C, H, W), of the dtype of all tensors.
        weight: (C', C / groups, h, w).
        bias: (C',).
        padding: of both sides of rows and columns.
        stride: of rows and columns.
        dilation: of rows and columns.
        groups: of channels.
        activation: ``none``, ``relu`` or ``sigmoid``.
        residual: (B, C', H', W'), added before the activation; None adds nothing. With one, oneDNN needs channels-last
            maps, a single group and the activation ``relu``.
    """
    convolution = torch.ops.mkldnn._convolution_pointwise
    shape = padding, stride, dilation, groups
    out: Tensor
    if residual is None:
        out = convolution(x, weight, bias, *shape, activation, [], "")
    else:
        out = convolution.binary(x, residual, weight, bias, *shape, "add", 1.0, activation, [], "")
    return out


class EagerAdamW(torch.optim.AdamW):
    """AdamW that does not import torch's compiler, for processes that compile nothing.

    At each step, and in four more methods, torch's optimizers import it to tell it what is not to be traced: 1,700
    modules, more than a second of processor time in each process that trains. Here the same functions are called
    without what torch has wrapped around them; the numbers are the same.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
