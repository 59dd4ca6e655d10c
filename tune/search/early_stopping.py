"""Early stopping with Ray Tune's schedulers, whose state can be rebuilt from the results store.

A trial reports `EPOCH`, counted from 0, and from its first evaluation on `VALUE`, its best value so far, and `VALUES`,
all objectives at that evaluation. When a sweep is resumed, Ray creates an empty scheduler and new trial objects. The
schedulers made here identify trials by id, so that `replay_curves` restores their rungs from the curves in the store:

    scheduler = make_scheduler(spec)
    replay_curves(scheduler, {"0000": [(0, ()), (1, (0.41,)), (2, (0.41,))], ...})
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from semprior.config.schema import Config
from tune.search.moasha import MultiObjectiveHalving
from tune.search.ray_tune_internals import EPOCH, VALUE, FirstRunHalving, MedianStopping, SuccessiveHalving, TrialId
from tune.spec.rungs import default_rung, first_rung
from tune.spec.sweep_file import Scheduler, SweepSpec

_NEVER_PAUSE: Any = math.inf  # Ray annotates min_time_slice as int


class SchedulersOfGroups(FIFOScheduler):
    """A scheduler for each group of trials, which are compared with trials of their own group alone.

    Args:
        make: makes the scheduler of a group.
        group_of: the group of a trial, by its id.

    Attributes:
        schedulers: the schedulers by group, of the groups that have trials.
    """

    def __init__(self, make: Callable[[], TrialScheduler], group_of: Callable[[str], Hashable]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._make, self._group_of = make, group_of
        self.schedulers: dict[Hashable, TrialScheduler] = {}

    def of(self, trial: str) -> TrialScheduler:
        """The scheduler of a trial's group."""
        group = self._group_of(trial)
        if group not in self.schedulers:
            self.schedulers[group] = self._make()
        return self.schedulers[group]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:  # noqa: ANN401
        """Add a trial to its group."""
        self.of(trial.trial_id).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ANN401
        """Decide whether a trial continues."""
        return self.of(trial.trial_id).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ANN401
        """Enter the last result of a trial."""
        self.of(trial.trial_id).on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ANN401
        """Remove a trial that failed."""
        self.of(trial.trial_id).on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:  # noqa: ANN401
        """Remove a trial that never ran."""
        self.of(trial.trial_id).on_trial_remove(tune_controller, trial)


def make_scheduler(spec: SweepSpec, group_of: Callable[[str], Hashable] = lambda trial: None) -> TrialScheduler:
    """Make the scheduler of a sweep.

    Args:
        spec: the sweep. Its slowest configuration determines the number of epochs and the first rung.
        group_of: by the id of a trial, its value of the leaf that ``scheduler.within`` names.

    Returns:
        A scheduler whose metric is set. It never stops a trial if the sweep has no scheduler, or if the first rung is
        not before the last epoch.
    """
    if spec.scheduler.within is None:
        return _single_scheduler(spec)
    return SchedulersOfGroups(lambda: _single_scheduler(spec), group_of)


def _single_scheduler(spec: SweepSpec) -> TrialScheduler:
    chosen, config = spec.scheduler, spec.slowest_config()
    first = first_decision(chosen, config)
    last = config.epochs - 2  # after the last epoch a trial is complete, and needs no rung
    if chosen.name == "none" or first > last:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    if chosen.name == "median":
        return MedianStopping(
            time_attr=EPOCH, metric=VALUE, mode="max", grace_period=first, min_time_slice=_NEVER_PAUSE, hard_stop=True
        )
    if chosen.name == "moasha":
        return MultiObjectiveHalving(spec.directions, first, last, chosen.factor)
    brackets = 1
    if chosen.name == "hyperband":
        fitting = 1 + math.floor(math.log(last / first) / math.log(chosen.factor) + 1e-9)
        brackets = min(chosen.brackets, fitting)
    halving = FirstRunHalving if chosen.name == "race" else SuccessiveHalving
    return halving(
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


def replay_curves(scheduler: TrialScheduler, curves: Mapping[str, Iterable[tuple[int, Sequence[float]]]]) -> None:
    """Restore the state of a new scheduler. Earlier decisions are not repeated.

    Args:
        scheduler: a scheduler from `make_scheduler`.
        curves: by trial id, the epochs of each trial that has started, ascending, each with the objectives at its best
            evaluation so far; none before the first evaluation.
    """
    if isinstance(scheduler, SchedulersOfGroups):
        for name, curve in curves.items():
            replay_curves(scheduler.of(name), {name: curve})
    if isinstance(scheduler, MultiObjectiveHalving):
        for name, curve in curves.items():
            scheduler.replay(name, curve)
    if isinstance(scheduler, SuccessiveHalving | MedianStopping):
        for name, curve in curves.items():
            scheduler.replay(TrialId(name), [(epoch, values[0] if values else None) for epoch, values in curve])
