"""Ray Tune's schedulers with private state that can be rebuilt from the results store, as read in Ray 2.60.

Ray's own way to restore a scheduler is to unpickle it. What these classes rely on: the brackets of successive halving
with their rungs, and the results and stopped trials of median stopping. `pyproject.toml` bounds Ray to the minor
version that this was read in, and `tests/test_ray_internals.py` fails first when one of the names moves.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from tune.store.records import run_index

EPOCH = "epoch"
"""Key of a trial's epoch, from 0, in its results."""
VALUE = "value"
"""Key of a trial's best value so far in its results, from its first evaluation on."""

VALUES = "values"
"""Key of all objectives at that best evaluation in its results."""

Curve = Iterable[tuple[int, float | None]]
"""The epochs of a trial, ascending, each with the best value so far; None before the first evaluation."""


@dataclass(frozen=True)
class TrialId:
    """Stands in for Ray's trial objects in a scheduler; equal ids are equal."""

    trial_id: str


class SuccessiveHalving(AsyncHyperBandScheduler):
    """Asynchronous successive halving, in one bracket (ASHA) or several.

    Ray draws the bracket of a trial from the global random state. Here, the id of the trial determines it, so that it
    is the same after a restart.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:  # noqa: ANN401
        """Assign a trial to a bracket. As in Ray, brackets with more rungs get more trials."""
        rungs = np.array([len(bracket._rungs) for bracket in self._brackets])
        shares = np.exp(rungs - rungs.max())
        drawn = np.random.default_rng(zlib.crc32(trial.trial_id.encode())).choice(len(rungs), p=shares / shares.sum())
        self._trial_info[trial.trial_id] = self._brackets[drawn]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Decide whether a trial continues."""
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if is_base(trial.trial_id) else decision

    def replay(self, trial: TrialId, curve: Curve) -> None:
        """Enter the curve of a trial into the rungs."""
        self.on_trial_add(None, trial)
        for epoch, value in curve:
            if value is not None:
                self._trial_info[trial.trial_id].on_result(trial, epoch, (self._metric_op or 1.0) * value)

    @property
    def rungs(self) -> list[dict[int, dict[str, float]]]:
        """For each bracket, by epoch and trial: the value with which the trial reached the rung."""
        sign = self._metric_op or 1.0
        return [
            {round(epoch): {name: sign * value for name, value in passed.items()} for epoch, passed in bracket._rungs}
            for bracket in self._brackets
        ]


class FirstRunHalving(SuccessiveHalving):
    """Successive halving of the first run of each configuration.

    Further runs hold out other images, or serve the comparison with the leader of a race: they are not stopped.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Decide whether a trial continues."""
        if run_index(trial.trial_id):
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ANN401
        """Enter the last result of a first run."""
        if not run_index(trial.trial_id):
            super().on_trial_complete(tune_controller, trial, result)

    def replay(self, trial: TrialId, curve: Curve) -> None:
        """Enter the curve of a first run into the rungs."""
        if not run_index(trial.trial_id):
            super().replay(trial, curve)


class MedianStopping(MedianStoppingRule):
    """Stops a trial whose best value is worse than the median of the running means of the other trials.

    Ray identifies a trial by its object and counts repeated results. Here, the id identifies a trial, and each epoch
    counts once. Trials are never paused.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Decide whether a trial continues."""
        trial_id = TrialId(trial.trial_id)
        if trial_id in self._stopped_trials:
            return TrialScheduler.STOP
        if EPOCH not in result or self._seen(trial_id, result[EPOCH]):
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial_id, result)  # type: ignore[arg-type]  # Ray needs the id only
        if decision == TrialScheduler.STOP and is_base(trial_id.trial_id):
            self._stopped_trials.discard(trial_id)
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ANN401
        """Do nothing, because `on_trial_result` has received the last result already."""

    def replay(self, trial: TrialId, curve: Curve) -> None:
        """Enter the curve of a trial into the results."""
        self._results[trial] += [{EPOCH: epoch, VALUE: value} for epoch, value in curve if value is not None]
        if not self._results[trial]:
            del self._results[trial]

    def _seen(self, trial: TrialId, epoch: int) -> bool:
        results = self._results.get(trial)
        return results is not None and len(results) > 0 and results[-1][EPOCH] >= epoch


def is_base(trial: str) -> bool:
    """Whether a trial runs the base configuration, which is never stopped, because the gain is relative to it."""
    return int(trial.partition(".")[0]) == 0
