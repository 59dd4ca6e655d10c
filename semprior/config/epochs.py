"""Epochs at which things happen, and shares of a run as epochs."""

from __future__ import annotations

import math


def share_of(share: float, epochs: int) -> int:
    """The epoch at which a share of a run is done, to the nearest (of 300 epochs, a fifth is 60)."""
    return math.floor(share * epochs + 0.5)


def is_due(epoch: int, first: int, every: int) -> bool:
    """Whether something that begins at `first` and recurs `every` so many epochs happens at `epoch`."""
    return epoch >= first and (epoch - first) % every == 0


def evolution_due(epoch: int, *, start: int, every: int) -> bool:
    """Whether pseudo-masks evolve before an epoch: after `start` and on multiples of `every` (published: 60 and 5)."""
    return epoch > start and epoch % every == 0
