"""The search of a sweep: proposes the next configuration with Optuna's samplers.

    search = Search(spec)
    asked = search.ask()                               # number 0: the base configuration
    search.report(asked.number, epoch, value)          # the best value so far
    search.tell(asked.number, "stopped", values)

Each configuration is drawn by a new sampler, whose seed follows from the seed of the sweep and the number of the
configuration, from a study of the results so far. The next configuration therefore depends on the results alone, and a
sweep is resumed by `rebuild` from the store.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import optuna
from threadpoolctl import threadpool_limits

from semprior.evaluation.image_sums import ImageSums
from tune.search.dashboard_journal import DashboardJournal
from tune.search.history import Configuration, EndState, History, Run
from tune.search.patience import Outcome, without_improvement
from tune.search.race import Contender, Race
from tune.search.space import Parameters, Space
from tune.spec.start_configurations import StartFrom
from tune.spec.sweep_file import Sampler, SweepSpec
from tune.store.records import OUT_OF_HOURS, Record, run_index
from tune.store.trial_summary import TrialSummary

MAX_LISTED = 20_000
"""A finite space with at most so many configurations is enumerated, so that the search ends when all were tried."""
_SAMPLER_TRIES = 4  # of the sampler to find a new configuration, before it is drawn at random
_RANDOM_TRIES = 100

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Suggestion(NamedTuple):
    """A configuration to run.

    Attributes:
        number: number of the configuration, from 0.
        parameters: the searched leaves and their values.
        leaves: all leaves of semprior's configuration.
        runs: indices of the runs to begin.
    """

    number: int
    parameters: Parameters
    leaves: dict[str, Any]
    runs: tuple[int, ...]


class Search:
    """Proposes configurations (`ask`) and learns from their results (`report`, `tell`).

    Args:
        spec: the sweep.
        journal: receives the search for `optuna-dashboard`; None for no journal.
        since: number of the first configuration that counts for `budget.patience`.

    Attributes:
        history: the configurations and their runs.
        used_metrics: names of the metrics of best evaluations that the search uses beside the objectives.
        uses_images: whether it uses the terms of best evaluations, image by image.
    """

    def __init__(self, spec: SweepSpec, journal: DashboardJournal | None = None, since: int = 0) -> None:
        self.spec = spec
        self.since = since
        self.space = Space(spec)
        self.history = History(self.space, spec.directions, spec.limits)
        self._journal = journal
        self._tried: dict[str, int] = {}
        listed = self.space.all(MAX_LISTED)
        self._listed = None if listed is None else {self.space.identity(one): one for one in listed}
        if isinstance(spec.start, StartFrom):
            raise ValueError("the winners of earlier sweeps are expected as a list")
        self._start = [self.space.completed(given) for given in spec.start]
        self._exhausted = False
        self._error = f"{next(iter(spec.objective))}_se"
        self._waited: tuple[Outcome | None, int] | None = None
        patient = spec.budget.patience is not None
        self.used_metrics = frozenset(spec.constraints) | ({self._error} if patient else set())
        self._image_metric = next(iter(spec.objective)).rpartition("/")[2]
        self.race = Race(self._image_metric, spec.run_count) if spec.races else None
        self.uses_images = spec.races or patient or spec.sampler.shrink

    @property
    def remaining(self) -> int:
        """Number of further configurations within the budget."""
        return self.spec.budget.trials - len(self.history.configurations)

    def group_of(self, trial: str) -> Hashable:
        """A trial's value of the leaf within whose values trials are compared for early stopping.

        It is that of the base where the search did not choose one. Without ``scheduler.within`` all are in one group.
        """
        leaf = self.spec.scheduler.within
        parameters = self.history.configurations[int(trial.partition(".")[0])].parameters
        return repr(self.space.leaves(parameters)[leaf]) if leaf is not None else ""

    def over(self) -> str:
        """Why no further run is proposed; empty as long as one may be."""
        reason = self._no_configuration()
        if reason and self.race is not None:
            contenders = self._contenders()
            if any(one.running for one in contenders) or self.race.next_run(contenders, more=False) is not None:
                return ""
        return reason

    def _no_configuration(self) -> str:
        """Why no further configuration begins; empty as long as one may."""
        if self.remaining <= 0:
            number = self.spec.budget.trials
            return f"its budget of {number} configuration{'s' if number > 1 else ''} is spent"
        if self._exhausted:
            return "all configurations of its search space were tried"
        patience = self.spec.budget.patience
        if patience is None:
            return ""
        if self._waited is None:
            self._waited = without_improvement(self._outcomes(), self._image_metric, self.since)
        leader, count = self._waited
        if leader is None or count < patience:
            return ""
        return (
            f"its patience is at an end: {count} configurations in a row did not improve on {leader.number:04d} by more"
            " than the standard error"
        )

    def extend(self, spec: SweepSpec, since: int) -> None:
        """Take the raised budget of the sweep.

        Args:
            spec: the sweep with this budget.
            since: number of the first configuration that counts for `budget.patience` now.
        """
        self.spec, self.since, self._waited = spec, since, None

    def ask(self) -> Suggestion | None:
        """The next configuration and its runs.

        Returns:
            None if there is none, for the reason that `over` says; in a race, also while it depends on runs that last.
        """
        reason = self._no_configuration()
        if self.race is not None:
            number = self.race.next_run(self._contenders(), more=not reason)
            if number is not None:
                configuration = self.history.configurations[number]
                run = len(configuration.runs)
                configuration.runs[run] = Run()
                known_parameters = dict(configuration.parameters)
                return Suggestion(number, known_parameters, self.space.leaves(known_parameters), (run,))
        if reason:
            return None
        known = self.history.configurations
        number = next(number for number in range(len(known) + 1) if number not in known)
        if self.spec.configurations is not None:  # there is nothing to search
            parameters: Parameters | None = dict(self.spec.configurations[number])
        else:
            parameters = self.space.base_parameters() if number == 0 else self._listed_first() or self._sampled(number)
        if parameters is None:
            self._exhausted = True
            return None
        self._enter(number, parameters)
        if self._journal is not None:
            self._journal.begin(self.history, number)
        runs = tuple(self.history.configurations[number].runs)
        return Suggestion(number, parameters, self.space.leaves(parameters), runs)

    def report(self, number: int, epoch: int, value: float | None, run: int = 0) -> None:
        """Report an epoch of a run.

        Args:
            number: number of the configuration.
            epoch: epoch of the run, from 0.
            value: the first objective at the best evaluation so far; None before the first evaluation.
            run: index of the seed.
        """
        if value is None or not math.isfinite(value):
            return
        curve = self.history.configurations[number].runs[run].curve
        if epoch not in curve:
            curve[epoch] = float(value)
            if self._journal is not None and not (self.race and run):
                self._journal.report(self.history, number)

    def tell(
        self,
        number: int,
        state: EndState,
        values: Sequence[float] | None,
        run: int = 0,
        metrics: Mapping[str, float] = MappingProxyType({}),
        images: ImageSums | None = None,
        cut_off: bool = False,
    ) -> None:
        """Report the end of a run.

        Args:
            number: number of the configuration.
            state: ``completed``; ``stopped``, by the scheduler or on request; ``diverged``; or ``failed``.
            values: the objectives at the best evaluation; None or empty without an evaluation.
            run: index of the seed.
            metrics: the metrics of the best evaluation, `used_metrics` among them.
            images: if `uses_images`, the terms of the best evaluation, image by image; None if they are not known.
            cut_off: whether it was stopped because the sweep's hours were over.
        """
        configuration = self.history.configurations[number]
        ended = configuration.runs[run]
        ended.state = state
        ended.metrics = self._used(metrics)
        self._waited = None
        finite = values is not None and len(values) > 0 and all(math.isfinite(value) for value in values)
        ended.values = tuple(float(value) for value in values) if values is not None and finite else None
        ended.images, ended.cut_off = images, cut_off
        if configuration.so_far().ended and self._journal is not None and not (self.race and run):
            self._journal.end(self.history, number)

    def rebuild(
        self,
        trials: Sequence[TrialSummary],
        curves: Mapping[str, Sequence[Record]],
        images: Mapping[str, ImageSums] = MappingProxyType({}),
    ) -> None:
        """Replace the history by the content of the store.

        Trials without an end in the store are running: the caller continues them, or reports their end.

        Args:
            trials: the trials of the store.
            curves: the reports of each trial, by trial id.
            images: if `uses_images`, the terms of the best evaluation of each trial that has ended, by trial id.
        """
        self.history.clear()
        self._tried.clear()
        self._exhausted, self._waited = False, None
        for trial in sorted(trials, key=lambda trial: trial.trial):
            if trial.configuration not in self.history.configurations:
                self._enter(trial.configuration, dict(trial.params))
            self.history.configurations[trial.configuration].runs.setdefault(run_index(trial.trial), Run())
            for record in curves.get(trial.trial, ()):
                if record.kind == "report" and record.values:
                    run = self.history.configurations[trial.configuration].runs[run_index(trial.trial)]
                    run.curve.setdefault(record.epoch, record.values[0])
            if trial.state != "running":
                ended = self.history.configurations[trial.configuration].runs[run_index(trial.trial)]
                ended.state, ended.values = trial.state, tuple(trial.values) or None
                ended.metrics, ended.images = self._used(trial.metrics), images.get(trial.trial)
                ended.cut_off = trial.reason == OUT_OF_HOURS
        if self._journal is not None:
            self._journal.rewrite(self.history)

    def _contenders(self) -> list[Contender]:
        configurations = sorted(self.history.configurations.items())
        return [_contender(number, one, self.history.meets_constraints(one.so_far())) for number, one in configurations]

    def _listed_first(self) -> Parameters | None:
        """The next configuration to start with; None if all of them were tried."""
        return next((one for one in self._start if self.space.identity(one) not in self._tried), None)

    def _used(self, metrics: Mapping[str, float]) -> dict[str, float]:
        return {name: metrics[name] for name in self.used_metrics if name in metrics}

    def _outcomes(self) -> Iterator[Outcome]:
        for number, configuration in sorted(self.history.configurations.items()):
            one = configuration.so_far()
            if one.ended and not all(run.state == "failed" for run in one.runs.values()):
                met = self.history.meets_constraints(one)
                runs = {index: run for index, run in one.runs.items() if run.state != "failed"}
                images = {index: run.images for index, run in runs.items() if run.images is not None}
                value = one.values[0] if one.values and met else None
                yield Outcome(number, value, one.error(self._error), images)

    def _at_random(self, number: int) -> bool:
        """Whether a configuration is one of those that are drawn at random."""
        chosen = self.spec.sampler
        return bool(np.random.default_rng([chosen.seed, number]).random() < chosen.random)

    def _enter(self, number: int, parameters: Mapping[str, Any]) -> None:
        runs = {run: Run() for run in range(1 if self.race else self.spec.run_count)}
        self.history.configurations[number] = Configuration(parameters, runs, races=self.race is not None)
        self._tried.setdefault(self.space.identity(parameters), number)

    def _sampled(self, number: int) -> Parameters | None:
        """A new configuration. Training is deterministic, so that a repetition would have the same result."""
        if self._listed is not None:
            new = [parameters for name, parameters in self._listed.items() if name not in self._tried]
            if not new:
                return None
        found: Parameters = {}
        for attempt in range(_SAMPLER_TRIES + _RANDOM_TRIES):
            seed = int(np.random.SeedSequence([self.spec.sampler.seed, number, attempt]).generate_state(1)[0])
            if attempt < _SAMPLER_TRIES and not self._at_random(number):
                sampler = make_sampler(self.spec.sampler, seed)
            elif self._listed is not None:
                return new[seed % len(new)]
            else:
                sampler = optuna.samplers.RandomSampler(seed)
            with warnings.catch_warnings(), _single_thread(sampler):
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study = self.history.study(sampler, self._image_metric if self.spec.sampler.shrink else "")
                found = self.space.sample(study.ask())
            if self.space.identity(found) not in self._tried:
                break
        return found


def _contender(number: int, configuration: Configuration, meets_constraints: bool) -> Contender:
    ended = {index: run for index, run in configuration.runs.items() if run.state is not None and not run.cut_off}
    values = configuration.so_far().values if ended else None
    return Contender(
        number,
        values[0] if values else None,
        len(ended),
        running=any(run.state is None for run in configuration.runs.values()),
        out=any(run.state != "completed" for run in ended.values()) or (bool(ended) and not meets_constraints),
        images={index: run.images for index, run in ended.items() if run.images is not None},
        cut_off=sum(run.cut_off for run in configuration.runs.values()),
    )


def make_sampler(chosen: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    """Make the Optuna sampler for one configuration.

    Args:
        chosen: the sampler of the sweep.
        seed: random seed of the sampler.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match chosen.name:
            case "tpe":  # each dimension by itself: a sweep has too few trials for a joint model of many of them
                return optuna.samplers.TPESampler(n_startup_trials=chosen.startup, constant_liar=True, seed=seed)
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


def _single_thread(sampler: optuna.samplers.BaseSampler) -> contextlib.AbstractContextManager[Any]:
    """Limit a compute-intensive sampler to one thread, because threads wait for cores on a machine that trains."""
    intensive = isinstance(sampler, optuna.samplers.GPSampler)
    return threadpool_limits(1) if intensive else contextlib.nullcontext()
