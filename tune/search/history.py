"""What a search knows of its configurations, and how Optuna is told.

Optuna's study is not a memory here: `History.study` makes a new one of what is known whenever a configuration is
asked for, so that a sweep that was cut off and one that was not ask the same of the same results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune.search.space import Space

Ended = Literal["completed", "stopped", "diverged", "failed"]


@dataclass
class Run:
    """One run of a configuration.

    Attributes:
        curve: the first objective at the best evaluation so far, by epoch from 0.
        values: all objectives at the best evaluation; none before the first.
        state: how it ended; none while it runs.
    """

    curve: dict[int, float] = field(default_factory=dict)
    values: tuple[float, ...] | None = None
    state: Ended | None = None


@dataclass
class Configuration:
    """A configuration and its runs.

    Attributes:
        parameters: as `Space` has them.
        runs: by position among the seeds.
    """

    parameters: Mapping[str, Any]
    runs: dict[int, Run]

    @property
    def ended(self) -> bool:
        """Whether every run has."""
        return all(run.state is not None for run in self.runs.values())

    @property
    def counted(self) -> list[Run]:
        """The runs that it is judged by: those that did not fail and were evaluated."""
        return [run for run in self.runs.values() if run.state != "failed" and (run.curve or run.values)]

    @property
    def values(self) -> tuple[float, ...] | None:
        """Mean of each objective over the runs; none where none gave one."""
        found = [run.values for run in self.counted if run.values is not None]
        return tuple(math.fsum(column) / len(found) for column in zip(*found, strict=True)) if found else None

    @property
    def curve(self) -> dict[int, float]:
        """Mean of the first objective over the runs, at the epochs that all of them reached."""
        curves = [run.curve for run in self.counted]
        common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
        return {epoch: math.fsum(curve[epoch] for curve in curves) / len(curves) for epoch in common}


class History:
    """Configurations by number.

    Args:
        space: that they lie in.
        directions: ``max`` or ``min`` for each objective.
    """

    def __init__(self, space: Space, directions: Sequence[str]) -> None:
        self.space = space
        self.directions = ["maximize" if direction == "max" else "minimize" for direction in directions]
        self.configurations: dict[int, Configuration] = {}
        self._ended: dict[int, FrozenTrial] = {}

    def forget(self) -> None:
        """Know nothing."""
        self.configurations.clear()
        self._ended.clear()

    def frozen(self, number: int) -> FrozenTrial:
        """A configuration as a trial of Optuna's.

        It runs until all its runs have ended. It is then complete if none of them was cut short; pruned, with its
        last intermediate value, if a run was stopped or diverged; failed where no run gave a value. With several
        objectives Optuna knows no pruned trials: one that gave values is complete.
        """
        if number in self._ended:
            return self._ended[number]
        known = self.configurations[number]
        values, distributions, exact = self.space.encoded(known.parameters)
        several = len(self.directions) > 1
        state = self._state(known, several)
        given = known.values if state == TrialState.COMPLETE else None
        curve = {} if several else known.curve
        if state == TrialState.PRUNED:
            given = (curve[max(curve)],)
        about: dict[str, Any] = {"configuration": number, **{key: _plain(v) for key, v in known.parameters.items()}}
        if not exact:
            about["outside"] = "a value of the base lies outside of what is searched; the nearest is shown"
        trial = create_trial(
            state=state,
            values=given,
            params=values,
            distributions=distributions,
            intermediate_values=curve,
            user_attrs=about,
        )
        if known.ended:
            self._ended[number] = trial
        return trial

    @staticmethod
    def _state(known: Configuration, several: bool) -> TrialState:
        if not known.ended:
            return TrialState.RUNNING
        if known.values is None:
            return TrialState.FAIL
        if several or all(run.state == "completed" for run in known.counted):
            return TrialState.COMPLETE
        return TrialState.PRUNED if known.curve else TrialState.FAIL

    def study(self, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        """A study of all that is known, in the order of the numbers."""
        study = optuna.create_study(directions=self.directions, sampler=sampler)
        if isinstance(sampler, optuna.samplers.RandomSampler):
            return study  # chance has no use for what is known
        generations = _Generations(sampler)
        for number in sorted(self.configurations):
            trial = self.frozen(number)
            generations.mark(trial)
            if not self._misleads(trial, sampler):
                study.add_trial(trial)
        return study

    @staticmethod
    def _misleads(trial: FrozenTrial, sampler: optuna.samplers.BaseSampler) -> bool:
        """Whether a grid would take the base, which is none of its points, for one of them."""
        return isinstance(sampler, optuna.samplers.BruteForceSampler) and "outside" in trial.user_attrs


class _Generations:
    """The generation of each trial, by which Optuna's genetic samplers know whose children come next.

    Optuna counts when a trial is asked for; this counts the complete ones before it by number, which a search that
    was rebuilt can count too.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        genetic = isinstance(sampler, optuna.samplers.BaseGASampler)
        self._key = sampler._get_generation_key() if genetic else None
        self._size = (sampler.population_size if genetic else None) or 1
        self._complete = 0

    def mark(self, trial: FrozenTrial) -> None:
        if self._key:
            trial.system_attrs[self._key] = self._complete // self._size
            self._complete += trial.state == TrialState.COMPLETE


def _plain(value: Any) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value
