"""The moving average of a network's weights, which is what is evaluated and deployed."""

from __future__ import annotations

import copy

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, updates: int) -> None:
    """Move every weight and running statistic of `average` towards `module`.

    Args:
        average: a copy of `module` made earlier.
        module: as just stepped.
        decay: of the average; 0 copies.
        updates: made before this one; early ones count more, so that the first weights are soon forgotten.
    """
    step = 1 - min(decay, (1 + updates) / (10 + updates))
    sources, targets = _floating(module), _floating(average)
    torch._foreach_lerp_(targets, sources, step)


def copy_of(module: nn.Module) -> nn.Module:
    """A copy that is never trained: eval mode, no gradients."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def _floating(module: nn.Module) -> list[torch.Tensor]:
    return [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
