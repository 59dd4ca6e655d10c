"""Types for the layers' autograd functions, which torch leaves untyped."""

from __future__ import annotations

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


class Context(FunctionCtx):
    """The context of a function between its forward and its backward pass; a function adds what it keeps there."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


def apply(function: type[Function], *inputs: object) -> Tensor:
    """The single tensor that an autograd function returns for these inputs."""
    out: Tensor = function.apply(*inputs)
    return out
