"""Asynchronous successive halving for several objectives (MOASHA; Schmucker et al., arXiv 2106.12639).

As in ASHA, a trial that reaches a rung is compared with all that have reached it before, and continues if it is among
the best one in `factor` of them. Trials are ranked by non-dominated sorting: the Pareto front of the rung, then the
front of the rest, and so on. Where only a part of a front may continue, it is a spread one (an epsilon-net): first the
trial that is best by the first objective, then again and again the one that is farthest from those before it, with each
objective scaled to its range on that front.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune.search.ray_tune_internals import EPOCH, VALUES, is_base
from tune.store.ranking import pareto_fronts


class MultiObjectiveHalving(FIFOScheduler):
    """Stops trials at rungs by all objectives. Its state is what trials reported at the rungs (`replay`).

    Args:
        directions: ``max`` or ``min`` for each objective.
        first: epoch of the first rung.
        last: last epoch at which a rung may be.
        factor: one trial in `factor` continues from each rung, up to `factor` times the epochs.

    Attributes:
        rungs: by epoch, and then by trial, the objectives with which the trial reached the rung.
    """

    def __init__(self, directions: Sequence[str], first: int, last: int, factor: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._signs = np.array([1.0 if direction == "max" else -1.0 for direction in directions])
        self._factor = factor
        number = 1 + math.floor(math.log(last / first) / math.log(factor) + 1e-9)
        self.rungs: dict[float, dict[str, tuple[float, ...]]] = {first * factor**rung: {} for rung in range(number)}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Decide whether a trial continues."""
        values = result.get(VALUES)
        if not values:  # it was not evaluated yet
            return TrialScheduler.CONTINUE
        rung = self._enter(trial.trial_id, result[EPOCH], tuple(values))
        if rung is None or is_base(trial.trial_id):
            return TrialScheduler.CONTINUE
        return TrialScheduler.CONTINUE if self._continues(rung, trial.trial_id) else TrialScheduler.STOP

    def replay(self, trial: str, curve: Iterable[tuple[int, Sequence[float]]]) -> None:
        """Enter the curve of a trial into the rungs."""
        for epoch, values in curve:
            if values:
                self._enter(trial, epoch, tuple(values))

    def _enter(self, trial: str, epoch: int, values: tuple[float, ...]) -> dict[str, tuple[float, ...]] | None:
        """Enter a trial into the highest rung that it has reached and is not in; None if there is none."""
        for at, rung in sorted(self.rungs.items(), reverse=True):
            if epoch >= at and trial not in rung:
                rung[trial] = values
                return rung
        return None

    def _continues(self, rung: dict[str, tuple[float, ...]], trial: str) -> bool:
        """Whether a trial is among the best of its rung. The order in which trials reached it does not matter."""
        names = sorted(rung)
        values = np.array([rung[name] for name in names]) * self._signs
        return names.index(trial) in chosen(values, math.ceil(len(names) / self._factor))


def chosen(values: np.ndarray, count: int) -> set[int]:
    """The best rows by non-dominated sorting.

    Args:
        values: (N,M) objectives, all maximised.
        count: number of rows to choose.

    Returns:
        Their indices.
    """
    fronts = pareto_fronts(values)
    found: set[int] = set()
    for front in range(int(fronts.max()) + 1):
        members = np.flatnonzero(fronts == front)
        found |= set(members[spread(values[members], count - len(found))].tolist())
        if len(found) == count:
            break
    return found


def spread(values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows of a front that are far from each other.

    Args:
        values: (N,M) objectives, all maximised.
        count: number of rows to choose.

    Returns:
        Their indices: first the best row by the first objective, then each time the one that is farthest from its
        nearest predecessor.
    """
    if count >= len(values):
        return np.arange(len(values))
    low, high = values.min(0), values.max(0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    order = [int(np.argmax(values[:, 0]))]
    nearest = np.full(len(values), np.inf)
    while len(order) < count:
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
        nearest[order] = -1.0
        order.append(int(np.argmax(nearest)))
    return np.array(order)
