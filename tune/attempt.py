"""One attempt of a trial, as one of its workers lives it: prepare, go on from a checkpoint, train, record."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
import torch.distributed as dist

from semprior.allocator import keep_freed_memory
from semprior.cache import cache_folder
from semprior.checkpoint import Snapshot
from semprior.config import Config, Resolved, flatten, unflatten
from semprior.data.layout import find_layout
from semprior.devices import Precision, change_remark, instruction_set, precision_remark, used_precision, uses_bf16
from semprior.errors import UserError
from semprior.parallel import rank, workers
from semprior.prepare import as_used, banked, load_frozen, read_training_set
from semprior.remote import local_data
from semprior.storage import open_storage
from semprior.threads import use_threads
from semprior.trainer import DivergedError, Report, Trainer
from tune.checkpoints import DamagedCheckpointError, StoredCheckpoint, get_checkpoint, put_checkpoint
from tune.diagnosis import CannotGoOnError
from tune.order import Order
from tune.origin import revision, versions
from tune.records import Record
from tune.results import patient_store
from tune.retention import SupersededError, prune
from tune.trial_files import TrialFiles

Tell = Callable[[dict[str, Any]], None]


class Attempt:
    """One worker's part in an attempt.

    Args:
        order: what to do.
        tell: told of every epoch, on every worker, after it was recorded.
    """

    def __init__(self, order: Order, tell: Tell) -> None:
        self.order, self.tell = order, tell
        self.store = patient_store(order.uri)
        self.leads = rank() == 0
        self.files = TrialFiles(open_storage(order.uri), order.trial, order.attempt, writes=self.leads)
        self.device = torch.device("cuda", torch.cuda.current_device()) if order.gpus else torch.device("cpu")
        self.values: tuple[float, ...] = ()
        self.data = ""
        self.before: str | None = None  # precision of the last epoch of an attempt before
        self._last = order.started or time.time()

    def run(self) -> None:
        """Train to the end, or until a loss is not finite, which is recorded as the trial's end.

        Raises:
            SupersededError: a higher attempt of the trial has begun.
            StorageError: the storage could not be read or written for so long that nobody waits any more.
            UserError: a fault in data or settings.
        """
        use_threads(int(self.order.cpus / self.order.workers))
        keep_freed_memory()
        try:
            trainer = self._prepared()
            resumed = self._resumed(trainer)
            self._start(trainer, *resumed)
            self._train(trainer)
        except DivergedError as error:
            self.files.say(str(error))
            self._append(self._record("end", trainer, state="diverged", reason=str(error)))
        except SupersededError as error:
            self.files.say(f"stopped: {error}")
            raise
        finally:
            self.files.close()

    def _prepared(self) -> Trainer:
        config = unflatten(self.order.leaves, "sweep")
        root = self.store.storage.patiently(lambda: local_data(self.order.data))
        layout, resolved = find_layout(root), Resolved(config, frozenset())
        vfm = load_frozen(config, self.device, self._say)
        training_set = read_training_set(layout, resolved, self._say, cache_folder())
        config = alike(as_used(config, training_set), self.device)
        features = banked(config, vfm, training_set, cache_folder(), self.device, self._say)
        self._say(
            f"{training_set.train} training, {training_set.validation} validation and"
            f" {len(training_set.holdout_indices)} held-out images; {config.detector} on {_device_name(self.device)}"
            + precision_remark(config.precision, self.device)
            + (f", worker {rank() + 1} of {workers()}" if workers() > 1 else "")
        )
        trainer = Trainer(config, training_set, features, self.device)
        self.data = trainer.data
        return trainer

    def _say(self, text: str) -> None:
        self.files.say(text)

    def _resumed(self, trainer: Trainer) -> tuple[StoredCheckpoint | None, str]:
        """Go on from the newest checkpoint that every worker finds whole; it, and what was wrong with newer ones."""
        faults = [self.order.note] if self.order.note else []
        for known in self.order.resume:
            checkpoint = StoredCheckpoint(known.address, known.sha256)
            try:
                snapshot = get_checkpoint(self.store.storage, checkpoint)
                fault = None
            except DamagedCheckpointError as error:
                fault = f"{error}; going on from the checkpoint before it"
            if _agreed(fault is None):
                self._go_on(trainer, snapshot)
                self.before = snapshot.values.get("precision")
                self.values = known.values
                return checkpoint, "; ".join(faults)
            faults.append(fault or f"{known.address}: damaged for another worker")
        return None, "; ".join(faults)

    @staticmethod
    def _go_on(trainer: Trainer, snapshot: Snapshot) -> None:
        try:
            trainer.restore(snapshot)
        except UserError as error:
            raise CannotGoOnError(str(error)) from error

    def _start(self, trainer: Trainer, checkpoint: StoredCheckpoint | None, reason: str) -> None:
        told = f"attempt {self.order.attempt} begins after {trainer.epoch} of {trainer.config.epochs} epochs"
        told += change_remark(self.before, _precision(trainer))
        self.files.say(f"{told}: {reason}" if reason else told)
        self._append(self._record("start", trainer, checkpoint=checkpoint, reason=reason))

    def _train(self, trainer: Trainer) -> None:
        first = trainer.epoch
        if first >= trainer.config.epochs:  # it died between its last epoch and its end
            self._append(self._record("end", trainer, state="completed"))
        for report in trainer.run():
            if report.best:
                # without a holdout nothing is measured, and the last epoch is the best
                self.values = tuple(report.scores[name] for name in self.order.objectives if name in report.scores)
            if self.leads and report.epoch > first:
                self.order.gate.wait(report.epoch)
            last = report.epoch + 1 == trainer.config.epochs
            self._keep(trainer, report, last)
            self.tell({"epoch": report.epoch, "values": list(self.values), "last": last})
            self.files.epoch(report)

    def _keep(self, trainer: Trainer, report: Report, last: bool) -> None:
        """Save an epoch and then record it; the last one with the trial's end, all or nothing."""
        if not self.leads:
            return
        order = self.order
        checkpoint = put_checkpoint(self.store.storage, order.trial, order.attempt, trainer.snapshot())
        record = self._record("report", trainer, checkpoint=checkpoint, metrics=flat_metrics(report), best=report.best)
        ends = [replace(record, kind="end", epoch=trainer.epoch, state="completed", wall_s=0.0, device_s=0.0)]
        self._append(record, *(ends if last else []))
        prune(self.store, order.trial, order.attempt)

    def _append(self, *records: Record) -> None:
        if self.leads:
            self.store.append(records)

    def _record(self, kind: Any, trainer: Trainer, checkpoint: StoredCheckpoint | None = None, **more: Any) -> Record:  # noqa: ANN401
        order, now = self.order, time.time()
        spent, self._last = now - self._last, now
        return Record(
            kind=kind,
            trial=order.trial,
            configuration=order.configuration,
            seed=int(order.leaves["seed"]),
            attempt=order.attempt,
            epoch=trainer.epoch - 1 if kind == "report" else trainer.epoch,
            config=flatten(trainer.config),
            params=dict(order.params),
            values=self.values,
            checkpoint=checkpoint.address if checkpoint else None,
            sha256=checkpoint.sha256 if checkpoint else None,
            wall_s=spent,
            device_s=spent * (order.gpus or order.workers),
            host=platform.node(),
            device=_device_name(self.device),
            precision=_precision(trainer),
            instructions=instruction_set(),
            revision=revision(),
            versions=versions(),
            data=self.data,
            time=now,
            **more,
        )


def flat_metrics(report: Report) -> dict[str, float]:
    """All numbers of a report by name; its scores under their own."""
    named = {item.name: getattr(report, item.name) for item in fields(report) if item.name not in ("epoch", "scores")}
    return {key: float(value) for key, value in {**named, **report.scores}.items() if value is not None}


def _agreed(mine: bool) -> bool:
    """Whether all workers say yes."""
    if workers() == 1:
        return mine
    votes = torch.tensor(int(mine), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(votes, dist.ReduceOp.MIN)
    return bool(votes.item())


def alike(config: Config, device: torch.device) -> Config:
    """The config with which this worker computes as the others do: in float32 if one of them has no bfloat16."""
    mine = uses_bf16(config.precision, device)
    return replace(config, precision="fp32") if not _agreed(mine) and mine else config


def _precision(trainer: Trainer) -> Precision:
    return used_precision(trainer.config.precision, trainer.device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
