"""Early stopping: Ray Tune's schedulers, by the trial's own epoch, and their memory after a restart.

A trial reports `EPOCH`, its own from 0, and from its first evaluation on `VALUE`, the student's best so far. Ray makes
a scheduler empty when a sweep is resumed, counts iterations from 1 and gives trials new objects; here trials are known
by their ids, so that `feed` with the curves of the store makes its rungs what they were:

    scheduler = make_scheduler(spec)
    feed(scheduler, {"0000": [(0, None), (1, 0.41), (2, 0.41)], ...})
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

Curve = Iterable[tuple[int, float | None]]
"""Epochs from 0 in their order, and the best value so far; none before the first evaluation."""


@dataclass(frozen=True)
class _Named:
    """A trial as far as a scheduler needs it; equal to any other of the same id."""

    trial_id: str


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving, in one bracket (ASHA) or several.

    Ray draws a trial's bracket from the global random state; here it follows from the trial's id, so that it is the
    same after a restart.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:  # noqa: ANN401
        """Put a trial into its bracket; those with more rungs get more trials, as in Ray."""
        rungs = np.array([len(bracket._rungs) for bracket in self._brackets])
        shares = np.exp(rungs - rungs.max())
        drawn = np.random.default_rng(zlib.crc32(trial.trial_id.encode())).choice(len(rungs), p=shares / shares.sum())
        self._trial_info[trial.trial_id] = self._brackets[drawn]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Judge a trial."""
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if _is_base(trial.trial_id) else decision

    def recall(self, trial: _Named, curve: Curve) -> None:
        """Put a trial's past into the rungs."""
        self.on_trial_add(None, trial)
        for epoch, value in curve:
            if value is not None:
                self._trial_info[trial.trial_id].on_result(trial, epoch, self._metric_op * value)

    @property
    def rungs(self) -> list[dict[int, dict[str, float]]]:
        """By bracket and epoch: the value with which each trial passed."""
        return [
            {
                round(epoch): {name: self._metric_op * value for name, value in passed.items()}
                for epoch, passed in b._rungs
            }
            for b in self._brackets
        ]


class Median(MedianStoppingRule):
    """Stops a trial whose best is worse than the median of the others' running means.

    Ray knows a trial by its object and counts a result as often as it is told; here a trial is known by its id and an
    epoch counts once. Nothing is paused: a trial goes on or ends.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Judge a trial."""
        named = _Named(trial.trial_id)
        if named in self._stopped_trials:
            return TrialScheduler.STOP
        if EPOCH not in result or self._seen(named, result[EPOCH]):
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, named, result)
        if decision == TrialScheduler.STOP and _is_base(named.trial_id):
            self._stopped_trials.discard(named)
            return TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ANN401
        """Nothing to learn: the last result was told before."""

    def recall(self, trial: _Named, curve: Curve) -> None:
        """Remember a trial's past."""
        self._results[trial] += [{EPOCH: epoch, VALUE: value} for epoch, value in curve if value is not None]
        if not self._results[trial]:
            del self._results[trial]

    def _seen(self, trial: _Named, epoch: int) -> bool:
        told = self._results.get(trial)
        return bool(told) and told[-1][EPOCH] >= epoch


def make_scheduler(spec: SweepSpec) -> TrialScheduler:
    """The scheduler of a sweep.

    Args:
        spec: of the sweep. Its base says how long trials are and where the first rung is.

    Returns:
        One of Ray's, with its metric set; one that stops nothing where a sweep wants none, or where trials are too
        short to be stopped before they end.
    """
    chosen, config = spec.scheduler, spec.base_config()
    first = rung_of(chosen, config)
    last = config.epochs - 2  # a trial that has trained its last epoch is complete; no rung there
    if chosen.name == "none" or first > last:
        return FIFOScheduler()
    if chosen.name == "median":
        return Median(
            time_attr=EPOCH, metric=VALUE, mode="max", grace_period=first, min_time_slice=math.inf, hard_stop=True
        )
    brackets = 1
    if chosen.name == "hyperband":
        fitting = 1 + math.floor(math.log(last / first) / math.log(chosen.factor) + 1e-9)
        brackets = min(chosen.brackets, fitting)
    return Halving(
        time_attr=EPOCH,
        metric=VALUE,
        mode="max",
        max_t=last,
        grace_period=first,
        reduction_factor=chosen.factor,
        brackets=brackets,
        stop_last_trials=False,
    )


def rung_of(chosen: Scheduler, config: Config) -> int:
    """The epoch of the first decision.

    Args:
        chosen: of the sweep. The brackets of hyperband begin as early as they may and hedge by the later ones.
        config: of the trials.
    """
    if chosen.first != "auto":
        return chosen.first
    return first_rung(config) if chosen.name == "hyperband" else default_rung(config)


def _is_base(trial: str) -> bool:
    """Whether a trial runs configuration 0. It is never stopped: what a search gains is told against it."""
    return int(trial.partition(".")[0]) == 0


def feed(scheduler: TrialScheduler, curves: Mapping[str, Curve]) -> None:
    """Make a new scheduler remember what the store knows.

    What a scheduler decided is not decided again: trials that were stopped are those that do not go on.

    Args:
        scheduler: from `make_scheduler`.
        curves: of every trial that has begun, by its id.
    """
    if isinstance(scheduler, Halving | Median):
        for name, curve in curves.items():
            scheduler.recall(_Named(name), curve)
