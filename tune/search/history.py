"""The history of a search: its configurations and their runs, and their conversion to an Optuna study.

`History.study` creates a new Optuna study for each new configuration. Optuna keeps no state in between, so that a
resumed sweep and an uninterrupted one propose the same configurations after the same results.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import variance
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from semprior.evaluation.image_sums import ImageSums
from tune.comparison.paired import Comparison
from tune.search.space import Space
from tune.spec.constraints import Limit
from tune.store.ranking import fit_levels

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
        images: the terms of the best evaluation, image by image; None while the run lasts, and where nothing uses them.
        cut_off: whether it was stopped because the sweep's hours were over, which says nothing about the configuration.
    """

    curve: dict[int, float] = field(default_factory=dict)
    values: tuple[float, ...] | None = None
    state: EndState | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    images: ImageSums | None = None
    cut_off: bool = False


@dataclass
class Configuration:
    """A configuration and its runs.

    Attributes:
        parameters: the searched leaves and their values (`Space`).
        runs: the runs by their index.
        races: whether the runs begin one after the other.
    """

    parameters: Mapping[str, Any]
    runs: dict[int, Run]
    races: bool = False

    @property
    def ended(self) -> bool:
        """Whether all runs have ended."""
        return all(run.state is not None for run in self.runs.values())

    def so_far(self) -> Configuration:
        """In a race, the configuration with the runs that have ended and count, once its first has; else itself.

        The runs of a race begin one after the other, and further ones do not make it a running configuration again.
        """
        ended = {index: run for index, run in self.runs.items() if run.state is not None and not run.cut_off}
        return Configuration(self.parameters, ended) if self.races and ended else self

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
        errors = [run.metrics.get(metric, math.nan) for run in self.counted]
        squares = [error**2 for error in errors if math.isfinite(error)]
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
        self._ended: dict[int, tuple[int, FrozenTrial]] = {}  # each with the number of runs

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
        configuration = self.configurations[number].so_far()
        runs, known = self._ended.get(number, (0, None))
        if known is not None and runs == len(configuration.runs):
            return known
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
            self._ended[number] = len(configuration.runs), trial
        return trial

    def meets_constraints(self, configuration: Configuration) -> bool:
        """Whether the runs of a configuration are on average within all bounds."""
        return all(excess <= 0 for excess in self._excess(configuration).values())

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

    def study(self, sampler: optuna.samplers.BaseSampler, shrink: str = "") -> optuna.Study:
        """An Optuna study of the history, in the order of the numbers.

        Args:
            sampler: the sampler of the study.
            shrink: metric of the image terms, like ``point_score``, by which the values of completed configurations
                are compared and shrunk. Empty to keep the values.
        """
        study = optuna.create_study(directions=self.directions, sampler=sampler)
        if isinstance(sampler, optuna.samplers.RandomSampler):
            return study  # random sampling does not use the history
        counter = _GenerationCounter(sampler)
        complete_only = isinstance(sampler, optuna.samplers.GPSampler)  # it ignores pruned trials
        levels = self._levels(complete_only, shrink)
        for number in sorted(self.configurations):
            trial = self.frozen(number)
            if number in levels:
                trial = copy.copy(trial)
                trial.state, trial.values = TrialState.COMPLETE, [levels[number]]
            if complete_only:
                trial = self._filled(trial, number)
            counter.mark(trial)
            if not self._misleads(trial, sampler):
                study.add_trial(trial)
        return study

    def _levels(self, stopped_too: bool, shrink: str) -> dict[int, float]:
        """By number, what a sampler is told in place of the value of a configuration, with one objective.

        - Without the effects of runs, if configurations have different ones.
        - If `stopped_too`, also of configurations that were stopped early: a stopped run is credited with what the
          completed ones gained on average after its last epoch.
        - If `shrink` names a metric, shrunk by the errors of comparisons on the same images (`_paired_errors`), which
          leave out how hard the images are for all. Where the terms are not known, by the scatter of runs about the
          effects, and a value is kept if there is none.
        """
        if len(self.directions) > 1:
            return {}
        states = {TrialState.COMPLETE, TrialState.PRUNED} if stopped_too else {TrialState.COMPLETE}
        ended = {n: self.configurations[n].so_far() for n in self.configurations if self.frozen(n).state in states}
        gained = self._gained_later(ended) if stopped_too else {}
        values: dict[int, dict[int, float]] = {}
        for number, configuration in sorted(ended.items()):
            for index, run in sorted(configuration.runs.items()):
                if run.state != "failed" and run.values is not None:
                    later = gained.get(max(run.curve), 0.0) if run.state == "stopped" and run.curve else 0.0
                    values.setdefault(number, {})[index] = run.values[0] + later
        if not values or not (stopped_too or shrink or len({tuple(runs) for runs in values.values()}) > 1):
            return {}
        numbers = list(values)
        known = [(place, run, value) for place, number in enumerate(numbers) for run, value in values[number].items()]
        fitted = fit_levels(*map(np.array, zip(*known, strict=True)))
        levels = dict(zip(numbers, fitted.levels.tolist(), strict=True))
        if not shrink:
            return levels
        errors = {}
        if fitted.variance is not None:
            errors = {number: math.sqrt(fitted.variance / len(values[number])) for number in levels}
        errors |= self._paired_errors({number: ended[number] for number in levels}, levels, shrink)
        noisy = {number: (levels[number], error) for number, error in errors.items()}
        return {**levels, **dict(zip(noisy, shrunk(list(noisy.values())), strict=True))}

    def _paired_errors(
        self, configurations: Mapping[int, Configuration], levels: Mapping[int, float], metric: str
    ) -> dict[int, float]:
        """By number, the standard error of a value beside the others, as far as the terms are known.

        It is that of the difference from the best of those with the most runs, of which each of the two has its share.
        """
        images = {
            number: {
                index: run.images for index, run in one.runs.items() if run.images is not None and run.state != "failed"
            }
            for number, one in configurations.items()
        }
        known = [number for number, runs in images.items() if runs]
        if not known:
            return {}
        sign = 1 if self.directions[0] == "maximize" else -1
        best = max(known, key=lambda number: (len(images[number]), sign * levels[number]))
        comparison = Comparison([images[number] for number in known], metric)
        found = {}
        for place, number in enumerate(known):
            difference = comparison.difference(place, known.index(best)) if number != best else None
            if difference is not None and difference.error is not None:
                found[number] = difference.error / math.sqrt(2)
        if found:
            found[best] = math.sqrt(math.fsum(error**2 for error in found.values()) / len(found))
        return found

    @staticmethod
    def _gained_later(ended: Mapping[int, Configuration]) -> dict[int, float]:
        """By epoch, how much first runs that completed gained after it, on average."""
        gains: dict[int, list[float]] = {}
        for configuration in ended.values():
            run = configuration.runs.get(0)
            if run is not None and run.state == "completed" and run.curve and run.values is not None:
                for epoch, value in run.curve.items():
                    gains.setdefault(epoch, []).append(run.values[0] - value)
        return {epoch: math.fsum(found) / len(found) for epoch, found in gains.items()}

    def _filled(self, trial: FrozenTrial, number: int) -> FrozenTrial:
        """The trial with the values of the base in the dimensions that its configuration does not search.

        A Gaussian process models only the dimensions that all trials have. One without modulation, say, would take
        those of the modulation from all others.
        """
        params, distributions = self.space.inactive(self.configurations[number].parameters)
        if not params:
            return trial
        filled = copy.copy(trial)
        filled.distributions = {**trial.distributions, **distributions}
        filled.params = {**trial.params, **params}
        return filled

    @staticmethod
    def _misleads(trial: FrozenTrial, sampler: optuna.samplers.BaseSampler) -> bool:
        """Whether a grid sampler would mistake the base, which is not a grid point, for one."""
        return isinstance(sampler, optuna.samplers.BruteForceSampler) and "outside" in trial.user_attrs


def shrunk(measured: Sequence[tuple[float, float]]) -> list[float]:
    """Shrink noisy values towards their mean, as empirical Bayes does (Efron and Morris, 1975).

    The variance of the values is that of the true levels and that of the noise. A value keeps as much of its distance
    from the mean as is the share of the true levels in its own variance.

    Args:
        measured: values, each with its standard error.
    """
    if len(measured) < 2:
        return [value for value, _ in measured]
    mean = math.fsum(value for value, _ in measured) / len(measured)
    noise = math.fsum(error**2 for _, error in measured) / len(measured)
    levels = max(variance([value for value, _ in measured]) - noise, 0.0)
    return [
        mean + (value - mean) * (levels / (levels + error**2) if levels + error**2 > 0 else 1.0)
        for value, error in measured
    ]


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
