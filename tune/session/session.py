"""A session of a sweep: Ray Tune runs the trials, the search proposes them, and the store records the results.

No state of Ray or Optuna is saved. Each driver rebuilds the search and the scheduler from the store, continues the
trials that have begun, with their ids and from their checkpoints, and then starts new ones. Trials that have ended are
not repeated, except those that a user retries, and those with faults that ended the whole sweep (`tune.store.faults`):
a user who resumes such a sweep has removed the cause.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ray import tune
from ray.tune import Callback, PlacementGroupFactory, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from semprior.errors import StorageError, UserError
from semprior.io.temporary_folders import temporary_folder
from tune.comparison.ranked import read_images
from tune.launch.resources import cluster_nodes, concurrency
from tune.monitor.heartbeat import INTERVAL, hours_before
from tune.search.dashboard_journal import DashboardJournal
from tune.search.early_stopping import make_scheduler, replay_curves
from tune.search.search import Search
from tune.session.attempt_registry import AttemptRegistry, attempt_registry
from tune.session.attempt_spec import AttemptSpec
from tune.session.trainable import TrialPlan, TrialTrainable
from tune.session.trial_records import end_trial, retry_trials
from tune.session.tune_search import SessionEnd, TuneSearch
from tune.spec.sweep_file import SweepSpec
from tune.store.records import OUT_OF_HOURS, Record, run_index, trial_ids
from tune.store.results_store import ResultsStore, patient_store
from tune.store.snapshot import left_out_in_words
from tune.store.sweeps import Sweep, open_sweep, with_extensions
from tune.store.trial_summary import TrialSummary

_log = logging.getLogger(__name__)
STUDY = "study.journal"
CAUSE_REMOVED = "begun again after the fault that stopped the sweep"
GRACE = 100.0  # seconds in which trials may finish their epoch when the sweep is asked to stop
_MEMORY = 1e6  # bytes, the only resource that Ray Tune reserves for a trial's process: it accepts no empty request
_RAY_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the store has all results
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # early epochs have no value
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_sweep(
    spec: SweepSpec,
    uri: str,
    generation: int,
    stop: Callable[[], bool] = lambda: False,
    trainable: type[TrialTrainable] = TrialTrainable,
) -> str:
    """Run a sweep on the Ray that this process is connected to, until it is done or is asked to stop.

    Args:
        spec: the sweep.
        uri: address of the sweep's storage.
        generation: number of this driver, from 1.
        stop: polled; whether the trials are to finish their epoch and to be left for the next session.
        trainable: runs a trial.

    Returns:
        Why the sweep is done, such as that its budget is spent; empty if it was asked to stop before.

    Raises:
        UserError: not one trial fits into the cluster; the storage fails; another driver runs the sweep; or there was a
            fault that every trial would have. The trials continue in the next session.
    """
    concurrent = concurrency(spec, cluster_nodes())
    store = patient_store(uri)
    retry_trials(store, _trials_with_ending_faults(store), CAUSE_REMOVED)
    state = SweepState(spec, store, uri, generation)
    if store.left_out:
        _log.warning("%s", left_out_in_words(store.left_out))
    unfinished = state.unfinished()
    hours_left = state.hours_left(concurrent)
    out_of_hours = hours_left <= 0
    if out_of_hours:  # only the trials that a user retries run
        _end_running(store, [attempt for attempt in unfinished if attempt.trial not in state.retried])
        unfinished = [attempt for attempt in unfinished if attempt.trial in state.retried]
    if not unfinished and (out_of_hours or state.search.over()):
        return OUT_OF_HOURS if out_of_hours else state.search.over()
    configure_ray_tune(concurrent)
    with (
        temporary_folder("semprior-tune-") as scratch,
        attempt_registry(state.registry.name) as registry,
    ):
        search = TuneSearch(
            state.search,
            store,
            unfinished,
            state.attempt_spec,
            lambda attempt: state.trial_plan(attempt, str(scratch)),
            concurrent,
            spec.scheduler.name,
            new=not out_of_hours,
        )
        hours = float("inf") if out_of_hours else hours_left
        watch = ExtensionWatch(state.sweep)
        stopper = SessionStopper(search, registry, stop, time.monotonic() + hours * 3600, watch)
        tune.run(
            trainable,
            name=f"generation-{generation}",
            storage_path=str(scratch),
            search_alg=search,
            scheduler=state.scheduler(),
            num_samples=search.total_samples,
            resources_per_trial=PlacementGroupFactory([{"memory": _MEMORY}]),
            max_failures=spec.failures.retries,
            stop=stopper,
            callbacks=[_PlacementGroupReclaimer(registry)],
            reuse_actors=True,
            raise_on_failed_trial=False,
            verbose=0,
        )
    if search.fault:
        raise UserError(search.fault)
    if stopper.requested:
        return ""
    _end_running(store, [*search.live.values(), *search.waiting])
    return OUT_OF_HOURS if out_of_hours or stopper.out_of_hours else state.search.over()


def configure_ray_tune(concurrent: int) -> None:
    """Set what Ray Tune reads from the environment of the driver only, and silence its log.

    Args:
        concurrent: maximum number of trials that run at a time.
    """
    os.environ.update(_RAY_TUNE_SETTINGS)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrent)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it warns of missing result files, which are disabled


def _trials_with_ending_faults(store: ResultsStore) -> list[str]:
    """Trials whose faults ended the sweep."""
    ending = {record.trial for record in store.faults().ending()}
    trials = store.trials() if ending else []
    return [trial.trial for trial in trials if trial.trial in ending and trial.state in ("running", "failed")]


def _best_images(curve: Sequence[Record]) -> str | None:
    """Address of the terms of a trial's best evaluation, image by image."""
    return next((record.images_address for record in reversed(curve) if record.best), None)


def _end_running(store: ResultsStore, specs: Iterable[AttemptSpec]) -> None:
    """Record an end of the trials that are running when the sweep's hours are over."""
    specs = list(specs)
    running = {trial.trial for trial in store.trials() if trial.state == "running"} if specs else set()
    for spec in specs:
        if spec.trial in running:
            end_trial(store, spec, "stopped", OUT_OF_HOURS)


class SweepState:
    """The state of a sweep at the start of a driver, as it follows from the store.

    Args:
        spec: the sweep.
        store: the store of the sweep.
        uri: address of the sweep's storage.
        generation: number of the driver.

    Attributes:
        trials: summaries of the trials, by id.
        retried: running trials that a user retries.
        sweep: the sweep as it is stored, with the budget as it was raised last.
        search: the search, with the history of the store.
        registry: the registry of attempts of the driver.
    """

    def __init__(self, spec: SweepSpec, store: ResultsStore, uri: str, generation: int) -> None:
        self.sweep = store.storage.retry(lambda: open_sweep(uri))
        self.spec, self.uri = spec.model_copy(update={"budget": self.sweep.spec.budget}), uri
        self.registry = AttemptRegistry(f"{uri}#{generation}")
        self.trials: dict[str, TrialSummary] = {trial.trial: trial for trial in store.trials()}
        retried = store.faults().retried
        self.retried = {name for name, trial in self.trials.items() if trial.state == "running" and name in retried}
        self._curves = store.curves()
        local = store.storage.local
        journal = DashboardJournal(local / STUDY, spec.name) if local is not None else None
        self.search = Search(self.spec, journal, since=counted_since(self.sweep))
        addresses = {name: _best_images(curve) for name, curve in self._curves.items()}
        used = addresses if self.search.uses_images else {}
        images = store.storage.retry(lambda: read_images(store.storage, used))
        self.search.rebuild(list(self.trials.values()), self._curves, images)
        self._store, self._generation = store, generation

    def hours_left(self, concurrent: int) -> float:
        """The rest of the budget of hours; infinite without one.

        Drivers count the hours they run, this one too. Where a heartbeat was lost, the trials tell how long there were
        drivers at least.

        Args:
            concurrent: maximum number of trials that run at a time.
        """
        if self.spec.budget.hours is None:
            return float("inf")
        trained = sum(trial.wall_s for trial in self.trials.values()) / 3600
        return self.spec.budget.hours - max(
            hours_before(self._store.storage, self._generation + 1), trained / concurrent
        )

    def unfinished(self) -> list[AttemptSpec]:
        """Trials that have begun and not ended, and the missing runs of configurations that have begun."""
        found = []
        for number, configuration in sorted(self.search.history.configurations.items()):
            names = trial_ids(number, self.spec.run_count)
            for trial in [names[run] for run in configuration.runs]:
                if trial not in self.trials or self.trials[trial].state == "running":
                    parameters = dict(configuration.parameters)
                    found.append(self.attempt_spec(trial, number, self.search.space.leaves(parameters), parameters))
        return found

    def scheduler(self) -> TrialScheduler:
        """The scheduler with its state. It lacks the last epoch of running trials, which they will report again."""
        scheduler = make_scheduler(self.spec, self.search.group_of)
        curves = {}
        for name, records in self._curves.items():
            curve = [(record.epoch, record.values) for record in records]
            curves[name] = curve[:-1] if name in self.trials and self.trials[name].state == "running" else curve
        replay_curves(scheduler, curves)
        return scheduler

    def attempt_spec(
        self, trial: str, number: int, config: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> AttemptSpec:
        """The specification of a trial.

        Args:
            trial: id of the trial.
            number: number of its configuration.
            config: the whole configuration by flat keys, with the seed of its first run.
            parameters: the part of it that the search chose.
        """
        resources = self.spec.resources
        return AttemptSpec(
            uri=self.uri,
            sweep=self.sweep.digest,
            registry=self.registry,
            data=self.spec.data,
            trial=trial,
            configuration=number,
            config={**config, **self.spec.run_leaves(int(config["seed"]), run_index(trial))},
            params=dict(parameters),
            objectives=tuple(self.spec.objective),
            workers=resources.workers,
            cpus=resources.cpus,
            gpus=resources.gpus,
        )

    def trial_plan(self, spec: AttemptSpec, folder: str) -> TrialPlan:
        """The plan of a trial.

        Args:
            spec: the specification of the trial.
            folder: a folder of the driver's machine for the files of Ray Train.
        """
        known = self.trials.get(spec.trial)
        return TrialPlan(
            spec=spec,
            previous_attempts=known.attempt if known else 0,
            # The last epoch is reported again: the driver may have died before the scheduler received it.
            last_epoch=known.epochs - 2 if known else -1,
            retries=self.spec.failures.retries,
            folder=folder,
        )


def counted_since(sweep: Sweep) -> int:
    """The number of the first configuration that counts for `budget.patience`."""
    return sweep.extensions[-1].begun if sweep.extensions else 0


class ExtensionWatch:
    """Notices that the budget of a running sweep is raised, soon after.

    Args:
        sweep: the sweep, with the budget that is known.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._next = time.monotonic() + INTERVAL

    def __call__(self) -> Sweep | None:
        """The sweep, if its budget was raised since the last look.

        Raises:
            UserError: a raise cannot be read. A storage that does not answer is asked again at the next look.
        """
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + INTERVAL
        try:
            found = with_extensions(self.sweep)
        except StorageError:
            return None
        changed, self.sweep = found is not self.sweep, found
        return found if changed else None


class SessionStopper(Stopper):
    """Ends a session early, on request or when the sweep's hours are over. Trials finish their epoch.

    It also passes a raised budget on.

    Args:
        search: starts no further trial then.
        registry: the registry of attempts.
        stop: whether the sweep is asked to stop.
        deadline: time of the monotonic clock at which the hours are over.
        watch: notices a raised budget.

    Attributes:
        requested: whether the sweep was asked to stop.
        out_of_hours: whether the hours of the sweep are over.
    """

    def __init__(
        self,
        search: TuneSearch,
        registry: AttemptRegistry,
        stop: Callable[[], bool],
        deadline: float,
        watch: ExtensionWatch,
    ) -> None:
        self.search, self.registry = search, registry
        self.requested = self.out_of_hours = False
        self._stop, self._deadline, self._watch = stop, deadline, watch
        self._since: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether a trial ends at this result."""
        self.search.remember_epoch(trial_id, result)
        if not self._stopping() or result.get("done"):
            return False
        self.search.stopped[trial_id] = SessionEnd.RESUMABLE if self._resumable() else SessionEnd.FINAL
        return True

    def stop_all(self) -> bool:
        """Whether the session ends now: no trial trains any more, or one takes too long to finish its epoch."""
        if not self._stopping():
            return False
        self._since = self._since or time.monotonic()
        if self._resumable() and time.monotonic() - self._since > GRACE:
            return True
        return not self.registry.holders()

    def _resumable(self) -> bool:
        return self.requested or bool(self.search.fault)

    def _stopping(self) -> bool:
        if self._stop():
            self.requested = True
            self.search.close()
            return True
        if not self.search.closed:
            self._take_extension()
        if time.monotonic() > self._deadline:
            self.out_of_hours = True
            self.search.close()
        return self.search.closed

    def _take_extension(self) -> None:
        known = self._watch.sweep
        try:
            raised = self._watch()
        except UserError as fault:
            self.search.interrupt(str(fault))
            return
        if raised is None:
            return
        before, after = known.spec.budget, raised.spec.budget
        self._deadline += 3600 * ((after.hours or 0.0) - (before.hours or 0.0))
        search = self.search.search
        search.extend(search.spec.model_copy(update={"budget": after}), counted_since(raised))


class _PlacementGroupReclaimer(Callback):
    """Frees the placement group of a trial whose process died, before the trial is restarted."""

    def __init__(self, registry: AttemptRegistry) -> None:
        self.registry = registry

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:  # noqa: ANN401 - Ray Tune's
        self.registry.reclaim(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any) -> None:  # noqa: ANN401 - Ray Tune's
        self.registry.reclaim(trial.trial_id)
