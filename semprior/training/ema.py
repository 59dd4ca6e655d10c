"""The moving average of a network's weights, which is evaluated and deployed."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def update_average(average: nn.Module, module: nn.Module, decay: float, updates: int) -> None:
    """Move every weight and running statistic of `average` towards `module`.

    Args:
        average: a copy of `module` made earlier.
        module: after a step of the optimiser.
        decay: of the average; 0 copies the weights.
        updates: number of earlier updates; the decay is smaller for the first ones, so that the initial weights are
            soon forgotten.
    """
    update = get_ema_multi_avg_fn(min(decay, (1 + updates) / (10 + updates)))  # type: ignore[no-untyped-call]
    update(_floating(average), _floating(module), updates)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that is never trained: in eval mode, without gradients."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def _floating(module: nn.Module) -> list[torch.Tensor]:
    return [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
