"""Early stopping with Ray Tune's schedulers, whose state can be rebuilt from the results store.

A trial reports `EPOCH`, counted from 0, and from its first evaluation on `VALUE`, its best value so far. When a sweep
is resumed, Ray creates an empty scheduler and new trial objects. The schedulers of this module identify trials by id,
so that `replay_curves` restores their rungs from the curves in the store:

    scheduler = make_scheduler(spec)
    replay_curves(scheduler, {"0000": [(0, None), (1, 0.41), (2, 0.41)], ...})
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from semprior.config.schema import Config
from tune.spec.rungs import default_rung, first_rung
from tune.spec.sweep_file import Scheduler, SweepSpec

EPOCH = "epoch"
VALUE = "value"
_NEVER_PAUSE: Any = math.inf  # Ray annotates min_time_slice as int

Curve = Iterable[tuple[int, float | None]]
"""The epochs of a trial, ascending, each with the best value so far; None before the first evaluation."""


@dataclass(frozen=True)
class _TrialId:
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
        return TrialScheduler.CONTINUE if _is_base(trial.trial_id) else decision

    def replay(self, trial: _TrialId, curve: Curve) -> None:
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


class MedianStopping(MedianStoppingRule):
    """Stops a trial whose best value is worse than the median of the running means of the other trials.

    Ray identifies a trial by its object and counts repeated results. Here, the id identifies a trial, and each epoch
    counts once. Trials are never paused.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Decide whether a trial continues."""
        trial_id = _TrialId(trial.trial_id)
        if trial_id in self._stopped_trials:
            return TrialScheduler.STOP
        if EPOCH not in result or self._seen(trial_id, result[EPOCH]):
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial_id, result)  # type: ignore[arg-type]  # Ray needs the id only
        if decision == TrialScheduler.STOP and _is_base(trial_id.trial_id):
            self._stopped_trials.discard(trial_id)
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ANN401
        """Do nothing, because `on_trial_result` has received the last result already."""

    def replay(self, trial: _TrialId, curve: Curve) -> None:
        """Enter the curve of a trial into the results."""
        self._results[trial] += [{EPOCH: epoch, VALUE: value} for epoch, value in curve if value is not None]
        if not self._results[trial]:
            del self._results[trial]

    def _seen(self, trial: _TrialId, epoch: int) -> bool:
        results = self._results.get(trial)
        return results is not None and len(results) > 0 and results[-1][EPOCH] >= epoch


def make_scheduler(spec: SweepSpec) -> TrialScheduler:
    """Make the scheduler of a sweep.

    Args:
        spec: the sweep. Its base configuration determines the number of epochs and the first rung.

    Returns:
        A scheduler whose metric is set. It never stops a trial if the sweep has no scheduler, or if the first rung is
        not before the last epoch.
    """
    chosen, config = spec.scheduler, spec.base_config()
    first = first_decision(chosen, config)
    last = config.epochs - 2  # after the last epoch a trial is complete, and needs no rung
    if chosen.name == "none" or first > last:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    if chosen.name == "median":
        return MedianStopping(
            time_attr=EPOCH, metric=VALUE, mode="max", grace_period=first, min_time_slice=_NEVER_PAUSE, hard_stop=True
        )
    brackets = 1
    if chosen.name == "hyperband":
        fitting = 1 + math.floor(math.log(last / first) / math.log(chosen.factor) + 1e-9)
        brackets = min(chosen.brackets, fitting)
    return SuccessiveHalving(
        time_attr=EPOCH,
        metric=VALUE,
        mode="max",
        max_t=last,
        grace_period=first,
        reduction_factor=chosen.factor,
        brackets=brackets,
        stop_last_trials=False,
    )


def first_decision(chosen: Scheduler, config: Config) -> int:
    """The epoch of the first decision.

    Args:
        chosen: the scheduler of the sweep. Hyperband starts as early as possible, because its later brackets hedge.
        config: the configuration of the trials.
    """
    if chosen.first != "auto":
        return chosen.first
    return first_rung(config) if chosen.name == "hyperband" else default_rung(config)


def _is_base(trial: str) -> bool:
    """Whether a trial runs the base configuration, which is never stopped, because the gain is relative to it."""
    return int(trial.partition(".")[0]) == 0


def replay_curves(scheduler: TrialScheduler, curves: Mapping[str, Curve]) -> None:
    """Restore the state of a new scheduler. Earlier decisions are not repeated.

    Args:
        scheduler: a scheduler from `make_scheduler`.
        curves: the curve of each trial that has started, by trial id.
    """
    if isinstance(scheduler, SuccessiveHalving | MedianStopping):
        for name, curve in curves.items():
            scheduler.replay(_TrialId(name), curve)
