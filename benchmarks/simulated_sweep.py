"""A sweep on a surrogate: the service's own search, scheduler and store, with runs that are drawn and not trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler

from benchmarks.surrogate import Evaluations, Surrogate
from semprior.config.epochs import is_due, share_of
from semprior.config.schema import Config
from tune.comparison.ranked import compare_first
from tune.comparison.stored_sums import put_sums
from tune.search.early_stopping import make_scheduler
from tune.search.history import EndState
from tune.search.ray_tune_internals import EPOCH, VALUE
from tune.search.search import Search, Suggestion
from tune.spec.sweep_file import SweepSpec
from tune.store.records import Record, trial_ids
from tune.store.results_store import ResultsStore

SLOTS = 2  # runs at a time


@dataclass
class Running:
    """A run in a slot; a scheduler knows it by its id.

    Attributes:
        trial_id: id of the trial.
        suggestion: its configuration.
        run: index of the run.
        seed: seed of the run.
        evaluations: that it will have.
        epoch: the next epoch.
        best: epoch of the best evaluation so far.
        state: how it ended.
        digest: of the stored terms of the best evaluation.
    """

    trial_id: str
    suggestion: Suggestion
    run: int
    seed: int
    evaluations: Evaluations
    epoch: int = 0
    best: int | None = None
    state: EndState | None = None
    digest: str | None = None

    @property
    def value(self) -> float | None:
        """The best score so far."""
        return None if self.best is None else self.evaluations.scores[self.best]

    def train(self) -> None:
        """Train an epoch."""
        score = self.evaluations.scores.get(self.epoch)
        if score is not None and (self.value is None or score >= self.value):
            self.best = self.epoch
        self.epoch += 1


def evaluated_epochs(config: Config) -> list[int]:
    """The epochs at which a run is evaluated."""
    first, every = share_of(config.select.after, config.epochs), config.select.every
    return [e for e in range(config.epochs) if is_due(e, first, every) or e + 1 == config.epochs]


@dataclass
class Simulation:
    """A sweep on the surrogate: slots that train an epoch each, again and again.

    Attributes:
        spec: the sweep.
        surrogate: draws the runs.
        noise: seed of the noise of the runs.
        folder: for the store.
        spent: epochs so far, over all runs.
        runs: all runs that began.
        tried: the best level of the configurations of which a run has ended.
    """

    spec: SweepSpec
    surrogate: Surrogate
    noise: int
    folder: Path
    spent: int = 0
    runs: list[Running] = field(default_factory=list)
    tried: float = -math.inf

    def __post_init__(self) -> None:
        self.search = Search(self.spec)
        self.scheduler = make_scheduler(self.spec, self.search.group_of)
        config = self.spec.base_config()
        self.epochs, self._seed, self._due = config.epochs, config.seed, evaluated_epochs(config)
        self._running: list[Running] = []
        self._ended = 0
        (objective,) = self.spec.objective
        self.objective = objective

    def train(self, until: float = math.inf) -> bool:
        """Train until a run has ended or so many epochs are spent; False if there is nothing left to run."""
        ended = self._ended
        while self.spent < until and self._ended == ended:
            while len(self._running) < SLOTS and (asked := self.search.ask()) is not None:
                self._begin(asked)
            if not self._running:
                return False
            for run in list(self._running):
                self._epoch(run)
        return True

    def _begin(self, asked: Suggestion) -> None:
        names = trial_ids(asked.number, self.spec.run_count)
        for index in asked.runs:
            own = self.spec.run_leaves(self._seed, index)
            found = self.surrogate.run(asked.parameters, {**asked.leaves, **own}, self._due, self.noise)
            self._running.append(Running(names[index], asked, index, own["seed"], found))
            self.runs.append(self._running[-1])
            self.scheduler.on_trial_add(None, self._running[-1])  # type: ignore[arg-type]

    def _epoch(self, run: Running) -> None:
        """Train an epoch of a run."""
        self.spent += 1
        run.train()
        self.search.report(run.suggestion.number, run.epoch - 1, run.value, run.run)
        result = {EPOCH: run.epoch - 1} | ({VALUE: run.value} if run.value is not None else {})
        decision = self.scheduler.on_trial_result(None, run, result)  # type: ignore[arg-type]
        if run.epoch == self.epochs:
            self.scheduler.on_trial_complete(None, run, result)  # type: ignore[arg-type]
            self._end(run, "completed")
        elif decision == TrialScheduler.STOP:
            self._end(run, "stopped")
        else:
            return
        self._running.remove(run)

    def _end(self, run: Running, state: EndState) -> None:
        run.state = state
        self._ended += 1
        self.tried = max(self.tried, self.surrogate.quality(run.suggestion.parameters))
        known = run.best is not None and run.value is not None
        images = run.evaluations.images(run.best) if known and self.search.uses_images else None
        values = (run.value,) if known else None
        self.search.tell(run.suggestion.number, state, values, run.run, self._metrics(run), images)

    def _metrics(self, run: Running) -> dict[str, float]:
        if run.best is None or run.value is None:
            return {}
        return {self.objective: run.value, f"{self.objective}_se": run.evaluations.error(run.best)}

    def store(self) -> ResultsStore:
        """A store of the runs so far, with the best evaluation of each."""
        store = ResultsStore(self.folder)
        store.storage.delete_folder("records")
        store.append(record for run in self.runs if run.best is not None for record in self._records(run, store))
        return store

    def _records(self, run: Running, store: ResultsStore) -> Iterable[Record]:
        best = run.best or 0
        digest = run.digest
        if digest is None:
            digest = put_sums(store.storage, run.trial_id, 1, best, run.evaluations.images(best))
            run.digest = digest if run.state else None
        common: dict[str, Any] = {
            "trial": run.trial_id,
            "configuration": run.suggestion.number,
            "seed": run.seed,
            "attempt": 1,
            "params": run.suggestion.parameters,
        }
        seconds = {"wall_s": float(run.epoch), "device_s": float(run.epoch)}
        metrics = self._metrics(run)
        values = (metrics[self.objective],)
        yield Record(
            kind="report", epoch=best, metrics=metrics, values=values, best=True, images=digest, **seconds, **common
        )
        if run.state:
            yield Record(kind="end", epoch=run.epoch, state=run.state, **common)

    def recommended(self) -> Mapping[str, Any] | None:
        """The parameters of the configuration that `top` puts first; None without one."""
        spec = self.spec
        if not any(run.best is not None for run in self.runs):
            return None
        compared = compare_first(self.store(), dict(spec.objective), minimum=spec.runs_of_the_best, limits=spec.limits)
        return compared.shown[0].entry.params if compared.shown else None
