"""One life of a sweep: Ray Tune runs its trials, our search proposes them, the store remembers everything.

Nothing that Ray or Optuna hold in memory is saved. A driver that begins, the first or a later one, rebuilds search and
scheduler from the store, goes on with the trials that were begun, under their own ids and from their checkpoints, and
then with new ones. Trials that have ended are not run again, but for those that somebody wants to be (`retry`), and
those that a fault broke off which ended the sweep (`tune.standing`): whoever goes on with it has mended that.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray import tune
from ray.tune import Callback, PlacementGroupFactory, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from semprior.errors import UserError
from semprior.storage import Storage
from tune.ends import begin_again, end_trial
from tune.heartbeat import hours_before
from tune.leases import holders, reclaim
from tune.order import Order
from tune.proposals import Proposals
from tune.resources import cluster_nodes, concurrency
from tune.results import ResultsStore, patient_store
from tune.schedulers import feed, make_scheduler
from tune.search import Search, run_of, trial_ids
from tune.study_file import StudyFile
from tune.summaries import TrialSummary
from tune.sweep import SweepSpec
from tune.trial import Brief, Trial

STUDY = "study.journal"
OVER = "the sweep's hours are over"
MENDED = "begun again after the fault that stopped the sweep"
PATIENCE = 100.0  # seconds that trials get to finish their epoch when somebody asks the sweep to stop
_MEMORY = 1e6  # bytes: what a trial's own process takes of a node's resources, because Tune refuses nothing at all
_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the store has it all
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # early epochs have no value
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_sweep(
    spec: SweepSpec, uri: str, generation: int, stop: Callable[[], bool] = lambda: False, trial: type[Trial] = Trial
) -> bool:
    """Run a sweep in the Ray that this process is connected to, until it is done or somebody asks it to stop.

    Args:
        spec: of the sweep.
        uri: of the sweep's storage.
        generation: of this driver, counted from 1.
        stop: asked again and again, whether trials are to finish their epoch and end for now.
        trial: how trials are run.

    Returns:
        Whether the sweep is done: its budget is spent, in trials or hours.

    Raises:
        UserError: not one trial fits into the cluster; or the storage cannot be had, another driver runs the sweep, or
            a fault came that every trial would meet: trials go on with the next driver then.
    """
    at_once = concurrency(spec, cluster_nodes())
    store = patient_store(uri)
    begin_again(store, _broken_off(store), MENDED)
    past = Past(spec, store, uri, generation)
    waiting = past.unfinished()
    over = past.hours_left <= 0
    if over:  # but what somebody wants to be run again is run
        _cut(store, [order for order in waiting if order.trial not in past.again])
        waiting = [order for order in waiting if order.trial in past.again]
        if not waiting:
            return True
    for name, value in _SETTINGS.items():
        os.environ[name] = value
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at_once)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses its own result files, which nobody needs
    with tempfile.TemporaryDirectory(prefix="semprior-tune-", ignore_cleanup_errors=True) as folder:
        proposals = Proposals(
            past.search, store, waiting, past.order, past.briefing(folder), at_once, spec.scheduler.name, new=not over
        )
        hours = float("inf") if over else past.hours_left
        halt = Halt(proposals, uri, stop, time.monotonic() + hours * 3600)
        tune.run(
            trial,
            name=f"generation-{generation}",
            storage_path=folder,
            search_alg=proposals,
            scheduler=past.scheduler(),
            num_samples=proposals.total_samples,
            resources_per_trial=PlacementGroupFactory([{"memory": _MEMORY}]),
            max_failures=spec.failures.retries,
            stop=halt,
            callbacks=[_Ears(proposals, uri)],
            reuse_actors=True,
            raise_on_failed_trial=False,
            verbose=0,
        )
    if proposals.broken:
        raise UserError(proposals.broken)
    left = [*proposals.live.values(), *proposals.waiting]
    if left and not halt.asked:
        _cut(store, left)
    return not halt.asked


def _broken_off(store: ResultsStore) -> list[str]:
    """Trials that faults broke off which ended the sweep."""
    ending = {record.trial for record in store.faults().ending()}
    trials = store.trials() if ending else []
    return [known.trial for known in trials if known.trial in ending and known.state in ("running", "failed")]


def _cut(store: ResultsStore, orders: Iterable[Order]) -> None:
    """End the trials that were begun and that the sweep's hours leave no time for."""
    running = {trial.trial for trial in store.trials() if trial.state == "running"}
    for order in orders:
        if order.trial in running:
            end_trial(store, order, "stopped", OVER)


class Past:
    """What the store knows of a sweep when a driver begins, and what follows from it.

    Args:
        spec: of the sweep.
        store: of its records.
        uri: of its storage.
        generation: of the driver that begins.
    """

    def __init__(self, spec: SweepSpec, store: ResultsStore, uri: str, generation: int) -> None:
        self.spec, self.uri = spec, uri
        self.trials: dict[str, TrialSummary] = {trial.trial: trial for trial in store.trials()}
        retried = store.faults().retried
        self.again = {trial for trial, known in self.trials.items() if known.state == "running" and trial in retried}
        self.curves = store.curves()
        self.search = Search(spec, _study_file(store.storage, spec.name))
        self.search.rebuild(list(self.trials.values()), self.curves)
        self.hours_left = float("inf")
        if spec.budget.hours is not None:
            self.hours_left = spec.budget.hours - hours_before(store.storage, generation)

    def unfinished(self) -> list[Order]:
        """Trials that were begun and have not ended, and the missing runs of configurations that were begun."""
        found = []
        for number, known in sorted(self.search.history.configurations.items()):
            for trial in trial_ids(number, self.spec.seeds):
                if trial not in self.trials or self.trials[trial].state == "running":
                    parameters = dict(known.parameters)
                    found.append(self.order(trial, number, self.search.space.leaves(parameters), parameters))
        return found

    def scheduler(self) -> TrialScheduler:
        """The sweep's scheduler with its memory: all but the last epoch of trials that go on, who tell it again."""
        made = make_scheduler(self.spec)
        told = {
            trial: [(r.epoch, r.values[0] if r.values else None) for r in curve] for trial, curve in self.curves.items()
        }
        running = {trial for trial, known in self.trials.items() if known.state == "running"}
        feed(made, {trial: curve[:-1] if trial in running else curve for trial, curve in told.items()})
        return made

    def order(self, trial: str, number: int, leaves: Mapping[str, Any], parameters: Mapping[str, Any]) -> Order:
        """What a trial is to do."""
        spec = self.spec
        return Order(
            uri=self.uri,
            data=spec.data,
            trial=trial,
            configuration=number,
            leaves={**leaves, "seed": int(leaves["seed"]) + run_of(trial)},
            params=dict(parameters),
            objectives=tuple(spec.objective),
            attempt=0,
            workers=spec.resources.workers,
            cpus=spec.resources.cpus,
            gpus=spec.resources.gpus,
        )

    def briefing(self, folder: str) -> Callable[[Order], Brief]:
        """Makes what a trial's process is told."""

        def brief(order: Order) -> Brief:
            known = self.trials.get(order.trial)
            return Brief(
                order=order,
                before=known.attempt if known else 0,
                # The last epoch is told again: the driver may have died before the scheduler judged it.
                heard=known.epochs - 2 if known else -1,
                retries=self.spec.failures.retries,
                folder=folder,
            )

        return brief


def _study_file(storage: Storage, name: str) -> StudyFile | None:
    return StudyFile(storage.local / STUDY, name) if storage.local is not None else None


class Halt(Stopper):
    """Ends a session early: when somebody asks, or when the hours are over. Trials finish their epoch.

    Args:
        proposals: begin no trial any more then.
        uri: of the sweep, by which the slots of its trials are known.
        stop: whether somebody asks.
        deadline: by the monotonic clock.
    """

    def __init__(self, proposals: Proposals, uri: str, stop: Callable[[], bool], deadline: float) -> None:
        self.proposals, self.uri = proposals, uri
        self.asked = False
        self._stop, self._deadline = stop, deadline
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial is to end at this result."""
        self.proposals.heard(trial_id, result)
        if self._why() is None or result.get("done"):
            return False
        self.proposals.cut[trial_id] = "" if self._goes_on() else OVER
        return True

    def stop_all(self) -> bool:
        """Whether nothing is left to wait for: no trial trains any more, or one takes too long over its epoch."""
        if self._why() is None:
            return False
        self._since = self._since or time.monotonic()
        if self._goes_on() and time.monotonic() - self._since > PATIENCE:
            return True
        return not holders(f"{self.uri}/")

    def _goes_on(self) -> bool:
        """Whether what is cut now goes on with another driver."""
        return self.asked or bool(self.proposals.broken)

    def _why(self) -> str | None:
        if self._stop():
            self.asked = True
            self.proposals.close("stop")
        elif time.monotonic() > self._deadline:
            self.proposals.close("hours")
        return self.proposals.closed or None


class _Ears(Callback):
    """Gives back what a trial held whose process died, before it is begun again."""

    def __init__(self, proposals: Proposals, uri: str) -> None:
        self.proposals, self.uri = proposals, uri

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:  # noqa: ANN401
        reclaim(f"{self.uri}/{trial.trial_id}/")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:  # noqa: ANN401
        reclaim(f"{self.uri}/{trial.trial_id}/")
