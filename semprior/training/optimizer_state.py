"""The state of an AdamW optimiser as named tensors, to be stored without pickling."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_MOMENTS = ("exp_avg", "exp_avg_sq")


def stored_optimizer(name: str, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Moments and step counts by ``{name}.{index of the parameter}.{entry}``; empty before the first step."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        f"{name}.{index}.{entry}": value
        for index, parameter in enumerate(parameters)
        for entry, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(name: str, optimizer: torch.optim.AdamW, stored: Mapping[str, Tensor]) -> None:
    """Restore the state that `stored_optimizer` returned, on the device and in the memory format of each parameter."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        if f"{name}.{index}.step" not in stored:
            continue
        state = {
            "step": stored[f"{name}.{index}.step"].to(parameter.device, copy=True)
        }  # where a fused optimiser expects it
        for entry in _MOMENTS:
            moment = torch.empty_like(parameter, memory_format=torch.preserve_format)
            state[entry] = moment.copy_(stored[f"{name}.{index}.{entry}"]).detach()
        optimizer.state[parameter] = state
