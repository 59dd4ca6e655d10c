"""Early stopping with Ray Tune's schedulers, whose state can be rebuilt from the results store.

A trial reports `EPOCH`, counted from 0, and from its first evaluation on `VALUE`, its best value so far, and `VALUES`,
all objectives at that evaluation. When a sweep is resumed, Ray creates an empty scheduler and new trial objects. The
schedulers made here identify trials by id, so that `replay_curves` restores their rungs from the curves in the store:

    scheduler = make_scheduler(spec)
    replay_curves(scheduler, {"0000": [(0, ()), (1, (0.41,)), (2, (0.41,))], ...})
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from semprior.config.schema import Config
from tune.search.moasha import MultiObjectiveHalving
from tune.search.ray_tune_internals import EPOCH, VALUE, FirstRunHalving, MedianStopping, SuccessiveHalving, TrialId
from tune.spec.rungs import default_rung, first_rung
from tune.spec.sweep_file import Scheduler, SweepSpec

_NEVER_PAUSE: Any = math.inf  # Ray annotates min_time_slice as int


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
    if isinstance(scheduler, MultiObjectiveHalving):
        for name, curve in curves.items():
            scheduler.replay(name, curve)
    if isinstance(scheduler, SuccessiveHalving | MedianStopping):
        for name, curve in curves.items():
            scheduler.replay(TrialId(name), [(epoch, values[0] if values else None) for epoch, values in curve])
