"""The learning rate as a function of the progress of a run."""

from __future__ import annotations

import math

_WARM_UP = 0.05  # share of the run
_FIRST, _LAST = 0.1, 0.01  # rates as a share of the peak


def learning_rate(schedule: str, peak: float, progress: float) -> float:
    """The learning rate at a point of a run.

    Args:
        schedule: ``constant`` (published), or ``one_cycle``: up over the first twentieth, then down along a cosine.
        peak: the highest rate.
        progress: completed share of the run, in 0..1.
    """
    if schedule == "constant":
        return peak
    if progress < _WARM_UP:
        return peak * (_FIRST + (1 - _FIRST) * progress / _WARM_UP)
    falling = (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP))) / 2
    return peak * (_LAST + (1 - _LAST) * falling)
