"""The trials of a sweep as Ray Tune's search algorithm.

Ray's own search algorithms make new trial ids in each session. Here a trial keeps its id: trials that earlier sessions
have begun come first, then the runs of each further configuration, until the budget is spent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from ray.tune.experiment import Experiment
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import SearchAlgorithm

from semprior.errors import UserError
from semprior.evaluation.image_sums import ImageSums
from tune.comparison.ranked import read_images
from tune.search.history import EndState
from tune.search.ray_tune_internals import EPOCH, VALUE
from tune.search.search import Search
from tune.session.attempt_spec import AttemptSpec, machine_clock
from tune.session.trainable import INTERRUPTION, PLAN, TrialPlan
from tune.session.trial_records import end_trial
from tune.store.records import OUT_OF_HOURS, Record, run_index, trial_ids
from tune.store.results_store import ResultsStore

SpecFactory = Callable[[str, int, dict[str, Any], dict[str, Any]], AttemptSpec]
"""Makes the specification of a new trial from its id, configuration number, whole configuration and parameters."""


class SessionEnd(Enum):
    """What happens to a trial that is stopped because the session ends."""

    RESUMABLE = "the trial continues in the next session"
    FINAL = "the trial ends, because the sweep's hours are over"


class TuneSearch(SearchAlgorithm):
    """Provides Ray Tune with the trials of a sweep and passes their results to the search and the store.

    Args:
        search: proposes configurations. Its history is that of the store.
        store: the store of the sweep.
        unfinished: trials that have begun, and the missing runs of configurations that have.
        make_spec: makes the specification of a new trial.
        make_plan: makes the plan of a trial.
        concurrent: maximum number of trials that run at a time.
        scheduler: name of the scheduler, for the reason of an early stop.
        new: whether to begin further configurations.

    Attributes:
        live: specifications of the trials that Ray Tune runs.
        waiting: specifications of trials that have not been started yet.
        closed: whether no further trial will be started.
        fault: why the sweep cannot continue now; empty as long as it can.
        stopped: trials that are stopped because the session ends.
    """

    def __init__(
        self,
        search: Search,
        store: ResultsStore,
        unfinished: Sequence[AttemptSpec],
        make_spec: SpecFactory,
        make_plan: Callable[[AttemptSpec], TrialPlan],
        concurrent: int,
        scheduler: str,
        new: bool = True,
    ) -> None:
        self.search, self.store, self.scheduler = search, store, scheduler
        self.waiting = deque(unfinished)
        self.live: dict[str, AttemptSpec] = {}
        self.closed = False
        self.fault = ""
        self.stopped: dict[str, SessionEnd] = {}
        self._make_spec, self._make_plan, self._concurrent = make_spec, make_plan, concurrent
        self._trials: dict[str, TuneTrial] = {}
        self._experiment: Experiment | None = None
        self._exhausted = not new

    def add_configurations(self, experiments: Experiment | list[Experiment] | dict[str, dict[Any, Any]]) -> None:
        """Take the experiment of the session, which Ray Tune creates."""
        if not isinstance(experiments, list):
            raise TypeError("Ray Tune is expected to give a list of experiments")
        self._experiment = experiments[0]

    @property
    def total_samples(self) -> int:
        """Number of trials in the budget."""
        return self.search.spec.budget.trials * self.search.spec.run_count

    def close(self) -> None:
        """Start no further trial."""
        self.closed = True

    def interrupt(self, fault: str) -> None:
        """Start no further trial, and end none: the running ones continue when the sweep is resumed."""
        self.fault = self.fault or fault
        self.close()

    def is_finished(self) -> bool:
        """Whether no further trial will be started."""
        return self.closed or (not self.waiting and (self._exhausted or bool(self.search.over())))

    def set_finished(self) -> None:
        """Called by Ray Tune at the end of the session."""
        self.close()

    def next_trial(self) -> TuneTrial | None:
        """The next trial; None if as many as possible are running, or none is left."""
        if self.is_finished() or len(self.live) >= self._concurrent:
            return None
        if not self.waiting:
            suggestion = self.search.ask()
            if suggestion is None:
                return None
            number, parameters, config, runs = suggestion
            names = trial_ids(number, self.search.spec.run_count)
            self.waiting += [self._make_spec(names[run], number, config, parameters) for run in runs]
        spec = self.waiting.popleft()
        self.live[spec.trial] = spec
        self._trials[spec.trial] = self._tune_trial(spec)
        return self._trials[spec.trial]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch of a trial that continues."""
        self._report(trial_id, result)

    def remember_epoch(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note the last epoch of a trial in its plan: another process of the trial does not report it again."""
        if EPOCH in result and trial_id in self._trials:
            config = self._trials[trial_id].config
            config[PLAN] = replace(config[PLAN], last_epoch=int(result[EPOCH]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report the end of a trial, or of its part in this session.

        Raises nothing for a storage that fails, because Ray Tune would take it for an error of the trial and restart
        the trial.
        """
        spec = self.live.pop(trial_id, None)
        if spec is None:
            return
        if result:
            self._report(trial_id, result)
        if result and INTERRUPTION in result:
            self.interrupt(str(result[INTERRUPTION]))
        if self.fault or self.stopped.get(trial_id) is SessionEnd.RESUMABLE:
            return
        try:
            state, reason = self._end(trial_id, result or {}, error)
            end = end_trial(self.store, spec, state, reason)
            best = self._best(trial_id) if self.search.used_metrics or self.search.uses_images else end
            images = self._images(best) if self.search.uses_images else None
        except UserError as fault:
            self.interrupt(str(fault))
            return
        assert end.state != "running"
        run, cut_off = run_index(trial_id), end.reason == OUT_OF_HOURS
        self.search.tell(spec.configuration, end.state, end.values, run, best.metrics, images, cut_off)

    def _best(self, trial_id: str) -> Record:
        """The best evaluation of a trial that has ended, or its last record if there is none."""
        history = self.store.history(trial_id)
        return next((record for record in reversed(history) if record.kind == "report" and record.best), history[-1])

    def _images(self, best: Record) -> ImageSums | None:
        return read_images(self.store.storage, {best.trial: best.images_address}).get(best.trial)

    def _end(self, trial_id: str, result: dict[str, Any], error: bool) -> tuple[EndState, str]:
        if error:
            return "failed", self._last_fault(trial_id) or "its process died, and again when it was restarted"
        if trial_id in self.stopped:
            return "stopped", OUT_OF_HOURS
        return "stopped", f"stopped by {self.scheduler} at epoch {result.get(EPOCH, -1)}"

    def _last_fault(self, trial_id: str) -> str:
        records = [record for record in self.store.history(trial_id) if record.kind in ("fault", "retry")]
        return records[-1].reason if records and records[-1].kind == "fault" else ""

    def _report(self, trial_id: str, result: dict[str, Any]) -> None:
        if EPOCH in result:
            spec = self.live.get(trial_id)
            number = spec.configuration if spec else int(trial_id.partition(".")[0])
            self.search.report(number, int(result[EPOCH]), result.get(VALUE), run_index(trial_id))

    def _tune_trial(self, spec: AttemptSpec) -> TuneTrial:
        if self._experiment is None:
            raise RuntimeError("Ray Tune asks for a trial before it gives an experiment")
        settings = self._experiment.spec
        return TuneTrial(
            self._experiment.run_identifier,
            config={PLAN: self._make_plan(replace(spec, started=time.monotonic(), clock=machine_clock()))},
            trial_id=spec.trial,
            storage=settings["storage"],
            checkpoint_config=settings["checkpoint_config"],
            placement_group_factory=settings["resources_per_trial"],
            max_failures=settings["max_failures"],
            trial_dirname_creator=lambda trial: trial.trial_id,
        )

    def has_checkpoint(self, dirpath: str) -> bool:
        """There is never a checkpoint of the search, which is rebuilt from the store."""
        del dirpath
        return False

    def save_to_dir(self, dirpath: str, **_: Any) -> None:  # noqa: ANN401 - arguments of Ray Tune that are not used
        """Save nothing."""
        del dirpath

    def restore_from_dir(self, dirpath: str) -> None:
        """Restore nothing."""
        del dirpath
