"""A worker of an attempt: prepares the data, resumes from a checkpoint, trains, and records the epochs."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from semprior.config.schema import Resolved, flatten, unflatten
from semprior.data.remote_data import data_identity, local_data
from semprior.deployment.trial_cost import cost_metrics
from semprior.errors import UserError
from semprior.io.cache_folder import cache_folder
from semprior.io.checkpoint import Snapshot
from semprior.io.manifest import DamagedError
from semprior.io.storage import open_storage
from semprior.runtime.device import Precision, change_remark, instruction_set, used_precision
from semprior.runtime.distributed import all_agree, rank
from semprior.training.crossfit import CrossFit, crossfit_before
from semprior.training.prepare import prepare_trainer
from semprior.training.trainer import DivergedError, EpochReport, Trainer
from tune.comparison.stored_sums import put_sums
from tune.session.attempt_registry import AttemptOverError
from tune.session.attempt_spec import AttemptSpec, machine_clock
from tune.session.failures import CannotResumeError
from tune.session.trial_log import TrialLog
from tune.store.checkpoints import (
    StoredCheckpoint,
    SupersededError,
    get_checkpoint,
    prune,
    put_checkpoint,
    put_short_checkpoint,
    remove_short_checkpoints,
)
from tune.store.provenance import revision, versions
from tune.store.records import Record, RecordKind
from tune.store.results_store import patient_store
from tune.store.sweeps import SWEEP_FILE, open_sweep, require_present, require_unchanged


class AttemptWorker:
    """One of the workers that run an attempt.

    Args:
        spec: the specification of the attempt.
        report: called on each worker with ``epoch`` and ``values``, after the epoch is recorded.
    """

    def __init__(self, spec: AttemptSpec, report: Callable[[dict[str, Any]], None]) -> None:
        self.spec, self.report = spec, report
        self.store = patient_store(spec.uri)
        self.is_first = rank() == 0
        self.log = TrialLog(open_storage(spec.uri), spec.trial, spec.attempt, enabled=self.is_first)
        self.device = torch.device("cuda", torch.cuda.current_device()) if spec.gpus else torch.device("cpu")
        self.values: tuple[float, ...] = ()
        self.data = ""
        self.cost: dict[str, float] = {}  # of the detector, where it is deployed
        self._previous_precision: str | None = None  # of the checkpoint from which the attempt resumes
        # seconds of the monotonic clock, since the clock of the day may jump
        self._last_record = spec.started if spec.clock == machine_clock() else time.monotonic()

    def run(self) -> None:
        """Train to the end. A loss that is not finite is recorded as the end of the trial.

        Raises:
            SupersededError: a higher attempt of the trial has begun.
            AttemptOverError: the attempt is over for the driver.
            StorageError: the storage could not be read or written for too long.
            UserError: a fault in the data or the settings.
        """
        try:
            trainer = self._prepared()
            checkpoint, faults = self._resume(trainer)
            crossfit = crossfit_before(trainer) if checkpoint is None else None
            if crossfit is not None:
                faults = "; ".join(part for part in (faults, self._resume_short(crossfit)) if part)
            self._start(trainer, checkpoint, faults, crossfit)
            if crossfit is not None:
                self._train_short(crossfit)
            self._train(trainer)
        except DivergedError as error:
            self._say(str(error))
            self._append(replace(self._record("end", trainer), state="diverged", reason=str(error)))
        except (SupersededError, AttemptOverError) as error:
            self._say(f"stopped: {error}")
            raise
        finally:
            self.log.close()

    def _prepared(self) -> Trainer:
        require_present(self.store.storage)
        config = unflatten(self.spec.config, "sweep")
        root = self.store.storage.retry(lambda: local_data(self.spec.data))
        trainer = prepare_trainer(
            Resolved(config, frozenset()),
            root,
            self.device,
            threads=int(self.spec.cpus / self.spec.workers),
            cache=cache_folder(),
            say=self._say,
        )
        self.data = trainer.data
        self._require_unchanged()  # only now, so that a damaged image is named
        self.cost = cost_metrics(trainer.config, trainer.teacher.detector, cache_folder())
        return trainer

    def _require_unchanged(self) -> None:
        """Refuse to train for a sweep whose file, data or code are no longer those of its start.

        Raises:
            UserError: names what was changed.
        """
        storage = self.store.storage
        sweep = storage.retry(lambda: open_sweep(self.spec.uri))
        if sweep.digest != self.spec.sweep:
            raise UserError(f"{storage.uri}/{SWEEP_FILE}: was replaced while the sweep ran; restore it")
        require_unchanged(sweep, storage.retry(lambda: data_identity(self.spec.data)) if sweep.data else "")

    def _say(self, text: str) -> None:
        self.log.line(text)

    def _resume(self, trainer: Trainer) -> tuple[StoredCheckpoint | None, str]:
        """Restore the newest checkpoint that is undamaged for all workers.

        Returns:
            The checkpoint, and why there is another attempt and why newer checkpoints were not used.
        """
        faults = [self.spec.reason] if self.spec.reason else []
        for point in self.spec.resume_points:
            try:
                snapshot = get_checkpoint(self.store.storage, point.checkpoint)
                fault = None
            except DamagedError as error:
                fault = f"{error}; resuming from the previous checkpoint"
            if all_agree(fault is None):
                self._restore(trainer, snapshot)
                self._previous_precision = snapshot.values.get("precision")
                self.values = point.values
                return point.checkpoint, "; ".join(faults)
            faults.append(fault or f"{point.checkpoint.address}: damaged for another worker")
        return None, "; ".join(faults)

    def _resume_short(self, crossfit: CrossFit) -> str:
        """Restore the newest checkpoint of the short runs that is undamaged for all; the faults of newer ones."""
        faults = []
        for checkpoint in self.spec.short_points:
            try:
                snapshot, fault = get_checkpoint(self.store.storage, checkpoint), ""
            except DamagedError as error:
                fault = str(error)
            if all_agree(not fault):
                self._restore(crossfit, snapshot)
                self._previous_precision = snapshot.values.get("precision")
                break
            faults.append(fault or f"{checkpoint.address}: damaged for another worker")
        return "; ".join(faults)

    @staticmethod
    def _restore(trainer: Trainer | CrossFit, snapshot: Snapshot) -> None:
        try:
            trainer.restore(snapshot)
        except UserError as error:
            raise CannotResumeError(str(error)) from error

    def _start(
        self, trainer: Trainer, checkpoint: StoredCheckpoint | None, reason: str, crossfit: CrossFit | None
    ) -> None:
        message = f"attempt {self.spec.attempt} begins after {trainer.epoch} of {trainer.config.epochs} epochs"
        message += f" and {crossfit.done} epochs of short runs" if crossfit is not None else ""
        message += change_remark(self._previous_precision, _precision(trainer))
        self._say(f"{message}: {reason}" if reason else message)
        self._append(replace(self._record("start", trainer, checkpoint), reason=reason))

    def _train_short(self, crossfit: CrossFit) -> None:
        """Train the short runs before the trial, whose epochs are no epochs of the trial."""
        for short in crossfit.run():
            if self.is_first:
                require_present(self.store.storage)
                put_short_checkpoint(self.store.storage, self.spec.trial, self.spec.attempt, crossfit.snapshot())
            self.log.short_epoch(short)

    def _train(self, trainer: Trainer) -> None:
        first = trainer.epoch
        if first >= trainer.config.epochs:  # an earlier attempt died between its last epoch and its end
            self._append(replace(self._record("end", trainer), state="completed"))
        for report in trainer.run():
            if report.best:
                # without a holdout there are no scores, and the last epoch is the best
                known = {**report.scores, **self.cost} if report.scores else {}
                self.values = tuple(known[name] for name in self.spec.objectives if name in known)
            if self.is_first and report.epoch > first:
                self.spec.registry.wait(self.spec.name, report.epoch)
            self._save(trainer, report)
            self.report({"epoch": report.epoch, "values": list(self.values)})
            self.log.epoch(report)

    def _save(self, trainer: Trainer, report: EpochReport) -> None:
        """Write the checkpoint of an epoch, then its record, with the end of the trial after the last epoch."""
        if not self.is_first:
            return
        spec = self.spec
        require_present(self.store.storage)
        checkpoint = put_checkpoint(self.store.storage, spec.trial, spec.attempt, trainer.snapshot())
        metrics = {**report.metrics, **self.cost}
        images = None
        if report.images is not None:  # before the record that names it
            images = put_sums(self.store.storage, spec.trial, spec.attempt, report.epoch, report.images)
        record = replace(self._record("report", trainer, checkpoint), metrics=metrics, best=report.best, images=images)
        records = [record]
        if report.epoch + 1 == trainer.config.epochs:
            end = replace(record, kind="end", epoch=trainer.epoch, state="completed", wall_s=0.0, device_s=0.0)
            end = replace(end, images=None)
            records.append(end)
        self._append(*records)
        prune(self.store, spec.trial, spec.attempt)
        if trainer.config.labels.refine == "crossfit" and report.epoch in (0, trainer.config.epochs - 1):
            remove_short_checkpoints(self.store.storage, spec.trial)

    def _append(self, *records: Record) -> None:
        if self.is_first:
            self.store.append(records)

    def _record(self, kind: RecordKind, trainer: Trainer, checkpoint: StoredCheckpoint | None = None) -> Record:
        spec, now = self.spec, time.monotonic()
        seconds, self._last_record = now - self._last_record, now
        return Record(
            kind=kind,
            trial=spec.trial,
            configuration=spec.configuration,
            seed=int(spec.config["seed"]),
            attempt=spec.attempt,
            epoch=trainer.epoch - 1 if kind == "report" else trainer.epoch,
            config=flatten(trainer.config),
            params=dict(spec.params),
            values=self.values,
            checkpoint=checkpoint.address if checkpoint else None,
            sha256=checkpoint.sha256 if checkpoint else None,
            wall_s=seconds,
            device_s=seconds * (spec.gpus or spec.workers),
            host=platform.node(),
            device=_device_name(self.device),
            precision=_precision(trainer),
            instructions=instruction_set(),
            revision=revision(),
            versions=versions(),
            data=self.data,
            time=time.time(),
        )


def _precision(trainer: Trainer) -> Precision:
    return used_precision(trainer.config.precision, trainer.device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
