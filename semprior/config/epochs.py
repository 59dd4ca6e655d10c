"""Schedules: shares of a run as epochs, and recurring events."""

from __future__ import annotations

import math


def share_of(share: float, epochs: int) -> int:
    """The number of epochs in a share of a run, rounded (a fifth of 300 epochs is 60)."""
    return math.floor(share * epochs + 0.5)


def is_due(epoch: int, first: int, every: int) -> bool:
    """Whether an event that first happens at epoch `first` and then every `every` epochs happens at `epoch`."""
    return epoch >= first and (epoch - first) % every == 0


def evolution_due(epoch: int, *, start: int, every: int) -> bool:
    """Whether pseudo-masks evolve before an epoch: after `start` and on multiples of `every` (published: 60 and 5)."""
    return epoch > start and epoch % every == 0
