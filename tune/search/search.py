"""The search of a sweep: which configuration comes next, by Optuna's samplers.

    search = Search(spec)
    number, parameters, leaves = search.ask()          # 0: the base itself
    search.report(number, epoch, value)                # the best so far, by the trial's own epoch
    search.tell(number, "stopped", values)

Every configuration is sampled by a sampler of its own, whose seed comes from the sweep's and the configuration's
number, from a study of what is known at that moment. So the next configuration depends on the results alone, and
`rebuild` from the store is all that a sweep needs to go on as if nothing had been.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from threadpoolctl import threadpool_limits

from tune.search.dashboard_journal import StudyFile
from tune.search.history import Configuration, Ended, History, Run
from tune.search.space import Parameters, Space
from tune.spec.sweep_file import Sampler, SweepSpec
from tune.store.records import Record
from tune.store.trial_summary import TrialSummary

FINITE = 20_000
"""Configurations up to which a space without continuous dimensions is listed, to know when all have been tried."""
_TRIES = 4  # of the sampler, before it is left to chance to find a configuration that is new
_CHANCES = 100

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Suggestion(NamedTuple):
    """A configuration to run.

    Attributes:
        number: from 0.
        parameters: what is searched in it, by leaf.
        leaves: every leaf of semprior's configuration.
    """

    number: int
    parameters: Parameters
    leaves: dict[str, Any]


class Search:
    """Asks and tells.

    Args:
        spec: of the sweep.
        study_file: keeps `optuna-dashboard` informed; none: nobody.
    """

    def __init__(self, spec: SweepSpec, study_file: StudyFile | None = None) -> None:
        self.spec = spec
        self.space = Space(spec)
        self.history = History(self.space, spec.directions)
        self._file = study_file
        self._tried: dict[str, int] = {}
        listed = self.space.all(FINITE)
        self._listed = None if listed is None else {self.space.identity(one): one for one in listed}

    @property
    def left(self) -> int:
        """Configurations that the budget still allows."""
        return self.spec.budget.trials - len(self.history.configurations)

    def ask(self) -> Suggestion | None:
        """The next configuration; none where the budget is spent or every configuration has been tried."""
        if self.left <= 0:
            return None
        known = self.history.configurations
        number = next(number for number in range(len(known) + 1) if number not in known)
        if self.spec.configurations is not None:  # there is nothing to search
            parameters: Parameters | None = dict(self.spec.configurations[number])
        else:
            parameters = self.space.base_parameters() if number == 0 else self._sampled(number)
        if parameters is None:
            return None
        self._enter(number, parameters)
        if self._file is not None:
            self._file.begin(self.history, number)
        return Suggestion(number, parameters, self.space.leaves(parameters))

    def report(self, number: int, epoch: int, value: float | None, run: int = 0) -> None:
        """How far a run has come.

        Args:
            number: of the configuration.
            epoch: of the trial's own, from 0.
            value: the first objective at its best evaluation so far; none before the first.
            run: position of its seed.
        """
        if value is None or not math.isfinite(value):
            return
        curve = self.history.configurations[number].runs[run].curve
        if epoch not in curve:
            curve[epoch] = float(value)
            if self._file is not None:
                self._file.report(self.history, number)

    def tell(self, number: int, state: Ended, values: Sequence[float] | None, run: int = 0) -> None:
        """How a run has ended.

        Args:
            number: of the configuration.
            state: ``completed``; ``stopped``, by the scheduler or on request; ``diverged``; ``failed``.
            values: the objectives at its best evaluation; none or empty where there was none.
            run: position of its seed.
        """
        known = self.history.configurations[number]
        told = known.runs[run]
        told.state = state
        finite = values is not None and len(values) > 0 and all(math.isfinite(value) for value in values)
        told.values = tuple(float(value) for value in values) if values is not None and finite else None
        if known.ended and self._file is not None:
            self._file.end(self.history, number)

    def rebuild(self, trials: Sequence[TrialSummary], curves: Mapping[str, Sequence[Record]]) -> None:
        """Know what the store knows; what was known before is forgotten.

        Trials that the store takes for running are taken for running: whoever runs the sweep goes on with them, or
        tells how they ended.

        Args:
            trials: of the store.
            curves: reports of each trial, by its id.
        """
        self.history.forget()
        self._tried.clear()
        for trial in sorted(trials, key=lambda trial: trial.trial):
            if trial.configuration not in self.history.configurations:
                self._enter(trial.configuration, dict(trial.params))
            for record in curves.get(trial.trial, ()):
                if record.kind == "report" and record.values:
                    run = self.history.configurations[trial.configuration].runs[run_of(trial.trial)]
                    run.curve.setdefault(record.epoch, record.values[0])
            if trial.state != "running":
                told = self.history.configurations[trial.configuration].runs[run_of(trial.trial)]
                told.state, told.values = trial.state, tuple(trial.values) or None
        if self._file is not None:
            self._file.rewrite(self.history)

    def _enter(self, number: int, parameters: Mapping[str, Any]) -> None:
        runs = {run: Run() for run in range(self.spec.seeds)}
        self.history.configurations[number] = Configuration(parameters, runs)
        self._tried.setdefault(self.space.identity(parameters), number)

    def _sampled(self, number: int) -> Parameters | None:
        """A configuration that was not tried; training is repeatable, and to repeat it tells nothing."""
        if self._listed is not None:
            new = [parameters for name, parameters in self._listed.items() if name not in self._tried]
            if not new:
                return None
        found: Parameters = {}
        for attempt in range(_TRIES + _CHANCES):
            seed = int(np.random.SeedSequence([self.spec.sampler.seed, number, attempt]).generate_state(1)[0])
            if attempt < _TRIES:
                sampler = make_sampler(self.spec.sampler, seed)
            elif self._listed is not None:
                return new[seed % len(new)]
            else:
                sampler = optuna.samplers.RandomSampler(seed)
            with warnings.catch_warnings(), _one_thread(sampler):
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                found = self.space.sample(self.history.study(sampler).ask())
            if self.space.identity(found) not in self._tried:
                break
        return found


def make_sampler(chosen: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of that name, for one configuration.

    Args:
        chosen: name and settings.
        seed: of this configuration.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match chosen.name:
            case "tpe":  # in groups, so that a dimension is modelled with those that are searched whenever it is
                return optuna.samplers.TPESampler(
                    n_startup_trials=chosen.startup, multivariate=True, group=True, constant_liar=True, seed=seed
                )
            case "gp":
                return optuna.samplers.GPSampler(
                    n_startup_trials=chosen.startup, seed=seed, warn_independent_sampling=False
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(population_size=chosen.startup, seed=seed)
            case "grid":
                return optuna.samplers.BruteForceSampler(seed=seed)
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)


def _one_thread(sampler: optuna.samplers.BaseSampler) -> contextlib.AbstractContextManager[Any]:
    """For a sampler that computes: on a machine that trains, threads wait for each other longer than they work."""
    heavy = isinstance(sampler, optuna.samplers.GPSampler)
    return threadpool_limits(1) if heavy else contextlib.nullcontext()


def trial_ids(number: int, seeds: int) -> list[str]:
    """Ids of the runs of a configuration: ``0007``, or ``0007.0``, ``0007.1`` ... where there are several."""
    return [f"{number:04d}"] if seeds == 1 else [f"{number:04d}.{run}" for run in range(seeds)]


def run_of(trial: str) -> int:
    """The position of a trial's seed, from its id."""
    return int(trial.partition(".")[2] or 0)
