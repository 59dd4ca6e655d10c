"""The history of a search: its configurations and their runs, and their conversion to an Optuna study.

`History.study` creates a new Optuna study for each new configuration. Optuna keeps no state in between, so that a
resumed sweep and an uninterrupted one propose the same configurations after the same results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import variance
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune.search.space import Space
from tune.spec.constraints import Limit

EndState = Literal["completed", "stopped", "diverged", "failed"]


@dataclass
class Run:
    """One run of a configuration.

    Attributes:
        curve: the first objective at the best evaluation so far, by epoch.
        values: all objectives at the best evaluation; None before the first evaluation.
        state: how the run ended; None while it runs.
        metrics: by name, the metrics of the best evaluation that the search uses beside the objectives; empty while the
            run lasts.
    """

    curve: dict[int, float] = field(default_factory=dict)
    values: tuple[float, ...] | None = None
    state: EndState | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Configuration:
    """A configuration and its runs.

    Attributes:
        parameters: the searched leaves and their values (`Space`).
        runs: the runs by index of their seed.
    """

    parameters: Mapping[str, Any]
    runs: dict[int, Run]

    @property
    def ended(self) -> bool:
        """Whether all runs have ended."""
        return all(run.state is not None for run in self.runs.values())

    @property
    def counted(self) -> list[Run]:
        """The runs that count: those that were evaluated and did not fail."""
        return [run for run in self.runs.values() if run.state != "failed" and (run.curve or run.values)]

    @property
    def values(self) -> tuple[float, ...] | None:
        """The mean of each objective over the runs; None if no run has values."""
        found = [run.values for run in self.counted if run.values is not None]
        return tuple(math.fsum(column) / len(found) for column in zip(*found, strict=True)) if found else None

    def mean(self, metric: str) -> float | None:
        """The mean of a metric of the best evaluation over the runs; None if no run has it."""
        found = [run.metrics[metric] for run in self.counted if metric in run.metrics]
        return math.fsum(found) / len(found) if found else None

    def error(self, metric: str) -> float | None:
        """The standard error of the first objective, as `tune.store.ranking` has it; None if it is not known.

        Args:
            metric: name of the metric that has the standard error of an evaluation.
        """
        values = [run.values[0] for run in self.counted if run.values is not None]
        squares = [run.metrics[metric] ** 2 for run in self.counted if metric in run.metrics]
        if not squares and len(values) < 2:
            return None
        between = variance(values) / len(values) if len(values) > 1 else 0.0
        return math.sqrt(between + (math.fsum(squares) / len(squares) if squares else 0.0))

    @property
    def curve(self) -> dict[int, float]:
        """The mean of the first objective over the runs, at the epochs that all runs reached."""
        curves = [run.curve for run in self.counted]
        common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
        return {epoch: math.fsum(curve[epoch] for curve in curves) / len(curves) for epoch in common}


class History:
    """The configurations of a search by number.

    Args:
        space: the search space.
        directions: ``max`` or ``min`` for each objective.
        limits: the constraints.
    """

    def __init__(self, space: Space, directions: Sequence[str], limits: Sequence[Limit] = ()) -> None:
        self.space, self.limits = space, limits
        self.directions: list[Literal["minimize", "maximize"]] = [
            "maximize" if direction == "max" else "minimize" for direction in directions
        ]
        self.configurations: dict[int, Configuration] = {}
        self._ended: dict[int, FrozenTrial] = {}

    def clear(self) -> None:
        """Remove all configurations."""
        self.configurations.clear()
        self._ended.clear()

    def frozen(self, number: int) -> FrozenTrial:
        """Convert a configuration to an Optuna trial.

        The trial is running until all runs have ended. It is then complete if all runs completed; pruned, with its last
        intermediate value, if a run was stopped or diverged; and failed if no run has a value. Optuna does not support
        pruned trials with several objectives: with values, such a trial is complete. Constraints are met at 0 or below.
        """
        if number in self._ended:
            return self._ended[number]
        configuration = self.configurations[number]
        params, distributions, exact = self.space.encoded(configuration.parameters)
        several = len(self.directions) > 1
        state = self._state(configuration, several)
        values = configuration.values if state == TrialState.COMPLETE else None
        curve = {} if several else configuration.curve
        if state == TrialState.PRUNED:
            values = (curve[max(curve)],)
        attributes: dict[str, Any] = {
            "configuration": number,
            **{key: _plain(v) for key, v in configuration.parameters.items()},
        }
        if not exact:
            attributes["outside"] = "a value of the base is outside of the search space; the nearest one is shown"
        trial = create_trial(
            state=state,
            values=values,
            params=params,
            distributions=distributions,
            intermediate_values=curve,
            user_attrs=attributes,
            constraints=self._excess(configuration) if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        )
        if configuration.ended:
            self._ended[number] = trial
        return trial

    def _excess(self, configuration: Configuration) -> dict[str, float]:
        return {limit.metric: limit.excess(configuration.mean(limit.metric)) for limit in self.limits}

    @staticmethod
    def _state(configuration: Configuration, several: bool) -> TrialState:
        if not configuration.ended:
            return TrialState.RUNNING
        if configuration.values is None:
            return TrialState.FAIL
        if several or all(run.state == "completed" for run in configuration.counted):
            return TrialState.COMPLETE
        return TrialState.PRUNED if configuration.curve else TrialState.FAIL

    def study(self, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        """An Optuna study of the history, in the order of the numbers."""
        study = optuna.create_study(directions=self.directions, sampler=sampler)
        if isinstance(sampler, optuna.samplers.RandomSampler):
            return study  # random sampling does not use the history
        counter = _GenerationCounter(sampler)
        for number in sorted(self.configurations):
            trial = self.frozen(number)
            counter.mark(trial)
            if not self._misleads(trial, sampler):
                study.add_trial(trial)
        return study

    @staticmethod
    def _misleads(trial: FrozenTrial, sampler: optuna.samplers.BaseSampler) -> bool:
        """Whether a grid sampler would mistake the base, which is not a grid point, for one."""
        return isinstance(sampler, optuna.samplers.BruteForceSampler) and "outside" in trial.user_attrs


class _GenerationCounter:
    """Assigns each trial to a generation of Optuna's genetic samplers.

    Optuna assigns the generation when it creates a trial. Here, it follows from the number of completed trials with
    lower numbers, so that a rebuilt search assigns the same generations.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler) -> None:
        genetic = sampler if isinstance(sampler, optuna.samplers.BaseGASampler) else None
        self._key = genetic._get_generation_key() if genetic is not None else None
        self._size = (genetic.population_size if genetic is not None else None) or 1
        self._complete = 0

    def mark(self, trial: FrozenTrial) -> None:
        if self._key:
            trial.system_attrs[self._key] = self._complete // self._size
            self._complete += trial.state == TrialState.COMPLETE


def _plain(value: Any) -> Any:  # noqa: ANN401
    return list(value) if isinstance(value, tuple) else value
