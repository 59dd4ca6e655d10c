"""Schedules: shares of a run as epochs, and recurring events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def share_of(share: float, epochs: int) -> int:
    """The number of epochs in a share of a run, rounded (a fifth of 300 epochs is 60)."""
    return math.floor(share * epochs + 0.5)


def short_epochs(share: float, epochs: int) -> int:
    """The number of epochs of a short run of cross-fitting, at least one."""
    return max(1, share_of(share, epochs))


def crossfit_work(leaves: Mapping[str, Any]) -> float:
    """What the short runs of cross-fitting cost, in epochs of the run that follows them; 0 without cross-fitting.

    Each short run trains on all images but those of one fold: K runs of E epochs cost K - 1 times E epochs.

    Args:
        leaves: of the configuration, by dotted keys; an earlier version may have stored them.
    """
    if leaves.get("labels.refine") != "crossfit":
        return 0.0
    return float(
        (leaves["labels.crossfit_folds"] - 1) * short_epochs(leaves["labels.crossfit_epochs"], leaves["epochs"])
    )


def is_due(epoch: int, first: int, every: int) -> bool:
    """Whether an event that first happens at epoch `first` and then every `every` epochs happens at `epoch`."""
    return epoch >= first and (epoch - first) % every == 0


def evolution_due(epoch: int, *, start: int, every: int) -> bool:
    """Whether pseudo-masks evolve before an epoch: after `start` and on multiples of `every` (published: 60 and 5)."""
    return epoch > start and epoch % every == 0
