"""A trial as Ray Tune sees it: a `Trainable` whose steps are the epochs of a worker group, attempt after attempt."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ray import tune

from semprior.errors import StorageError, UserError
from semprior.io.storage import open_storage
from tune.launch.shared_storage import probe_file
from tune.search.ray_tune_internals import EPOCH, VALUE, VALUES
from tune.session.attempt_spec import AttemptSpec, ReportHandler, ResumePoint, WorkerFactory, Workers, machine_clock
from tune.session.failures import fault_from
from tune.session.trial_records import end_trial, record_fault
from tune.store.checkpoints import StoredCheckpoint, short_checkpoints
from tune.store.faults import Fault, FaultKind, ending_in_words, may_try_again
from tune.store.records import Record
from tune.store.results_store import patient_store

PLAN = "plan"
"""Key of the `TrialPlan` in the configuration that Ray Tune hands to a trial."""
INTERRUPTION = "interruption"
"""Key of `TrialOver.interruption` in the last result of a trial."""


@dataclass(frozen=True)
class TrialPlan:
    """What a trial's process has to know.

    Attributes:
        spec: of its attempts. The number of an attempt and its resume points follow from the store.
        previous_attempts: highest attempt of the trial when this driver started.
        last_epoch: the last epoch that the driver knows of; -1 for none.
        retries: number of attempts that may follow failed ones.
        folder: a folder of this machine for the files of Ray Train.
    """

    spec: AttemptSpec
    previous_attempts: int
    last_epoch: int
    retries: int
    folder: str


@dataclass(frozen=True)
class EpochResult:
    """A recorded epoch, with the objectives at the best evaluation so far; no values before the first evaluation."""

    epoch: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class TrialOver:
    """No attempt of the trial runs any more in this session.

    Attributes:
        interruption: why the whole sweep has to stop before the trial ends. The trial continues when the sweep is
            resumed. None if the store has an end of the trial.
    """

    interruption: str | None = None


class TrialTrainable(tune.Trainable):
    """Runs the attempts of a trial until one of them ends it. Ray Tune may then run another trial in this process."""

    @staticmethod
    def make_workers(spec: AttemptSpec, folder: str, on_report: ReportHandler) -> Workers:
        """Make a Ray Train worker group."""
        from tune.session.worker_group import worker_group  # it takes seconds and memory, and benchmarks do without

        return worker_group(spec, folder, on_report)

    def setup(self, config: dict[str, Any]) -> None:
        """Remember the plan of a trial.

        Ray Tune may make two processes for a trial, a new one and one that another trial has left, and steps only one
        of them. The other must leave the trial alone.
        """
        self._plan: TrialPlan = config[PLAN]
        self._attempts: Attempts | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Replace a trial that was stopped by another one."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the next epoch. Ray Tune calls this when the driver has decided that the trial continues.

        The first call starts the attempts of the trial.

        Returns:
            After an epoch, `EPOCH` and, from the first evaluation on, `VALUE`, the first objective, and `VALUES`, all
            objectives. At the end of the trial, ``done``, and `INTERRUPTION` if it has not ended but the sweep has to
            stop.
        """
        if self._attempts is None:
            self._attempts = Attempts(self._plan, self.make_workers)
        result = self._attempts.next()
        if isinstance(result, EpochResult):
            values = {VALUE: result.values[0], VALUES: list(result.values)} if result.values else {}
            return {EPOCH: result.epoch, **values}
        return {"done": True, **({} if result.interruption is None else {INTERRUPTION: result.interruption})}

    def cleanup(self) -> None:
        """End the workers and free their placement group."""
        if self._attempts is not None:
            self._attempts.stop()


class Attempts:
    """The attempts of one trial, which run in a thread.

    Args:
        plan: the plan of the trial.
        make_workers: makes the workers of each attempt.
    """

    def __init__(self, plan: TrialPlan, make_workers: WorkerFactory) -> None:
        self.plan, self._make_workers = plan, make_workers
        self.store = patient_store(plan.spec.uri)
        self._delivered = self._queued = plan.last_epoch  # the last epoch that `next` has returned, or will return
        self._permitted = -1  # the last epoch that the driver permits
        self._results: queue.Queue[EpochResult | TrialOver | Exception] = queue.Queue()
        self._running: tuple[AttemptSpec, Workers] | None = None
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="attempts", daemon=True)
        self._thread.start()

    def next(self) -> EpochResult | TrialOver:
        """Permit the next epoch and wait for it.

        Raises:
            Exception: an unexpected error in this process. Ray Tune then starts another process for the trial.
        """
        with self._changed:
            self._permitted = self._delivered + 1
            if self._running is not None:
                spec, _ = self._running
                spec.registry.permit(spec.name, self._permitted)
            self._changed.notify_all()
        result = self._results.get()
        if isinstance(result, Exception):
            raise result
        if isinstance(result, EpochResult):
            self._delivered = result.epoch
        return result

    def stop(self) -> None:
        """End the current attempt and start no other."""
        with self._changed:
            self._stopped = True
            if self._running is not None:
                spec, workers = self._running
                workers.abort()
                spec.registry.end(spec.name)  # it releases workers that wait for permission
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._results.put(self._run_attempts())
        except UserError as error:  # the storage fails, so that nothing can be recorded
            self._results.put(TrialOver(str(error)))
        except asyncio.CancelledError as error:
            if not self._stopped:
                self._results.put(RuntimeError(f"the workers were cancelled: {error}"))
        except Exception as error:
            self._results.put(error if self._stopped else self._recorded_error(error))

    def _recorded_error(self, error: Exception) -> TrialOver | Exception:
        """Record an unexpected error in this process. Ray Tune starts another one unless the sweep has to stop."""
        try:
            spec = self._next_spec([])
            self._record(spec, fault_from(error, spec.params))
            return self._interruption() or error
        except Exception:  # the first error says more
            return error

    def _run_attempts(self) -> TrialOver:
        """Run attempts until the trial ends, the sweep has to stop, or another process runs the trial."""
        faults = self._known_faults()
        while not self._ended(faults):
            spec = self._next_spec(faults)
            fault = self._run_attempt(spec)
            if fault is None:
                continue
            if fault.kind is FaultKind.SUPERSEDED:
                return TrialOver(f"{fault.reason}; another driver runs this sweep")
            if fault.kind is FaultKind.STORAGE and not self._storage_answers():
                return TrialOver(fault.reason)
            faults.append(self._record(spec, fault))
            if interruption := self._interruption():
                return interruption
        return TrialOver()

    def _known_faults(self) -> list[Fault]:
        """Faults that an earlier process of this session has recorded for the trial."""
        return [
            Fault.from_json(record.fault, record.reason)
            for record in self.store.history(self.plan.spec.trial)
            if record.kind == "fault" and record.attempt > self.plan.previous_attempts
        ]

    def _record(self, spec: AttemptSpec, fault: Fault) -> Fault:
        """Log and record the fault of an attempt. A fault of the storage is not recorded."""
        from tune.session.trial_log import TrialLog  # it takes seconds, and few trials need it

        if fault.kind is FaultKind.STORAGE:
            return fault
        log = TrialLog(open_storage(spec.uri), spec.trial, spec.attempt, enabled=True)
        log.line(f"attempt {spec.attempt} failed: {fault.reason}" + (f"\n{fault.log}" if fault.log else ""))
        log.close()
        return record_fault(self.store, spec, fault)

    def _interruption(self) -> TrialOver | None:
        """Whether faults, of this trial or others, end the sweep."""
        ending = self.store.faults().ending()
        return TrialOver(ending_in_words(ending, self.plan.spec.uri)) if ending else None

    def _storage_answers(self) -> bool:
        """Whether another attempt may succeed after one that has waited for the storage as long as attempts do.

        A disk is the same for all attempts. A bucket may be out of reach from the worker's machine alone.
        """
        if self.store.storage.local is not None:
            return False
        try:
            with probe_file(self.plan.spec.uri):
                return True
        except StorageError:
            return False

    def _ended(self, faults: list[Fault]) -> bool:
        """Queue the epochs that the driver has missed. Whether the trial has ended, or ends now after its failures."""
        history = self.store.history(self.plan.spec.trial)
        for record in history:
            if record.kind == "report" and record.epoch > self._queued:
                self._queue(record.epoch, record.values)
        if any(record.kind == "end" for record in history):
            return True
        recorded = max((record.attempt for record in history), default=0) - self.plan.previous_attempts
        attempts = max(recorded, len(faults))  # faults of the storage are not recorded
        if may_try_again(faults, attempts, self.plan.retries):
            return False
        if faults and faults[-1].kind is FaultKind.STORAGE:
            raise StorageError(faults[-1].reason)
        reason = faults[-1].reason if faults else "its process died"
        end_trial(
            self.store, self.plan.spec, "failed", reason + (f" (after {attempts} attempts)" if attempts > 1 else "")
        )
        return True

    def _next_spec(self, faults: list[Fault]) -> AttemptSpec:
        """The specification of the next attempt, as the store has it."""
        history = self.store.history(self.plan.spec.trial)
        previous = max((record.attempt for record in history), default=0)
        reason = ""
        if history and history[-1].kind == "retry":
            reason = history[-1].reason
        elif faults:
            reason = faults[-1].reason
        elif previous > self.plan.previous_attempts:
            reason = "its process died"
        points = [_resume_point(record) for record in reversed(history) if record.kind == "report"]
        refine = self.plan.spec.config.get("labels.refine")
        short = (
            short_checkpoints(self.store.storage, self.plan.spec.trial) if refine == "crossfit" and not points else []
        )
        return replace(
            self.plan.spec,
            attempt=previous + 1,
            resume_points=tuple(point for point in points if point is not None),
            short_points=tuple(short),
            reason=reason,
            started=time.monotonic(),
            clock=machine_clock(),
        )

    def _run_attempt(self, spec: AttemptSpec) -> Fault | None:
        workers = self._make_workers(spec, self.plan.folder, self._on_report)
        with self._changed:
            # The driver may stop the trial for one of the epochs that it has missed.
            self._changed.wait_for(lambda: self._stopped or self._permitted > self._queued)
            if self._stopped:
                raise asyncio.CancelledError
            self._running = spec, workers
            spec.registry.permit(spec.name, self._permitted)
        try:
            workers.fit()
            return None
        except Exception as error:
            if self._stopped:
                raise asyncio.CancelledError from error
            return fault_from(error, spec.params)
        finally:
            with self._changed:
                self._running = None
            spec.registry.end(spec.name)

    def _on_report(self, metrics: Mapping[str, Any]) -> None:
        self._queue(int(metrics["epoch"]), tuple(metrics["values"]))

    def _queue(self, epoch: int, values: tuple[float, ...]) -> None:
        self._queued = epoch
        self._results.put(EpochResult(epoch, values))


def _resume_point(record: Record) -> ResumePoint | None:
    if record.checkpoint is None or record.sha256 is None:
        return None
    return ResumePoint(StoredCheckpoint(record.checkpoint, record.sha256), record.values)
