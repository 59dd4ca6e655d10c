"""What broke attempts of trials off, and whether another attempt may help."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from tune.store.records import RECORD_KINDS, Record, from_table
from tune.store.snapshot import StoreSnapshot, scan
from tune.store.visible_records import kind_codes, sorted_words


class FaultKind(Enum):
    """Why an attempt failed, which decides what follows."""

    ERROR = "error"
    """An unforeseen exception. If it recurs before an epoch is trained, every trial would meet it."""
    WORKER = "worker"
    """A worker died or lost its connection to another; another attempt may succeed."""
    MEMORY = "memory"
    """Out of memory: a fault of this trial, which gets one more attempt."""
    SHARED = "shared"
    """A fault of the user that every trial would meet, in the data or in a setting that all trials share."""
    OWN = "own"
    """A fault of the user that this trial alone meets, in the value of a searched setting."""
    STORAGE = "storage"
    """The storage could not be read or written for longer than attempts wait."""
    PREEMPTED = "preempted"
    """The machine was reclaimed, or the registry lost the attempt; this does not count as a retry."""
    SUPERSEDED = "superseded"
    """A higher attempt of the trial has begun."""


@dataclass(frozen=True)
class Fault:
    """Why one attempt failed.

    Attributes:
        kind: kind of the fault.
        reason: one line for the user.
        mark: equal for faults with the same cause (`tune.monitor.exception_text.signature`).
        epochs: number of epochs that the attempt had trained.
        log: the traceback; empty if there is none.
    """

    kind: FaultKind
    reason: str
    mark: str = ""
    epochs: int = 0
    log: str = ""

    def to_json(self) -> dict[str, Any]:
        """The part of a fault that a record stores beside the reason."""
        return {"kind": self.kind.value, "mark": self.mark, "epochs": self.epochs}

    @staticmethod
    def from_json(content: Mapping[str, Any], reason: str) -> Fault:
        """The fault that a record stores."""
        return Fault(FaultKind(content["kind"]), reason, str(content["mark"]), int(content["epochs"]))


def may_try_again(faults: Sequence[Fault], tried: int, retries: int) -> bool:
    """Whether a trial gets another attempt.

    After running out of memory, a trial gets one retry. After a fault of the user, or an exception that recurs before
    an epoch is trained, it gets none. Reclaimed machines do not count.

    Args:
        faults: faults of the attempts so far.
        tried: number of attempts so far, all of which failed.
        retries: number of retries that the sweep allows.
    """
    if any(fault.kind in (FaultKind.SHARED, FaultKind.OWN) for fault in faults):
        return False
    if sum(fault.kind is FaultKind.MEMORY for fault in faults) > 1:
        return False
    last = faults[-1] if faults else None
    if last and last.kind is FaultKind.ERROR and not last.epochs and any(f.mark == last.mark for f in faults[:-1]):
        return False
    return tried - sum(fault.kind is FaultKind.PREEMPTED for fault in faults) <= retries


_FIRST = 3  # trials that all have to fail alike before a sweep ends by faults of single trials


@dataclass(frozen=True)
class Faults:
    """The faults of a sweep.

    Attributes:
        records: all records of faults, in order of time.
        trained: by trial, the highest attempt that has trained an epoch.
        retried: by trial, the attempt number of the last `retry` record.
        ended: by trial, the highest attempt at which the trial had ended.
        first: ids of the first trials of the sweep.
    """

    records: tuple[Record, ...]
    trained: Mapping[str, int]
    retried: Mapping[str, int]
    ended: Mapping[str, int]
    first: tuple[str, ...]

    def ending(self) -> list[Record]:
        """The faults that end the sweep, in order of time; empty if it may continue."""
        standing = [record for record in self.records if self._stands(record)]
        marks = {mark for mark in map(_mark, standing) if self._ends([r for r in standing if _mark(r) == mark])}
        return [record for record in standing if _mark(record) in marks] or self._first_failed_alike(standing)

    def _first_failed_alike(self, standing: list[Record]) -> list[Record]:
        """The last faults of the first trials, if all of these have failed by the same and none has trained an epoch.

        Whatever broke them off, such as too little memory, then breaks all others off as well.
        """
        last = {record.trial: record for record in standing if record.trial in self.first}
        failed = [one for one in last.values() if self.ended.get(one.trial, 0) >= one.attempt and not one.epoch]
        alike = len(failed) == _FIRST and all(_alike(one, failed[0]) for one in failed)
        return failed if alike and not self.trained else []

    def _stands(self, record: Record) -> bool:
        later = max(self.trained.get(record.trial, 0) - 1, self.retried.get(record.trial, 0))
        return record.attempt > later

    def _ends(self, alike: list[Record]) -> bool:
        """Whether standing faults of one mark do."""
        told = [(record, Fault.from_json(record.fault, record.reason)) for record in alike]
        if any(fault.kind is FaultKind.SHARED for _, fault in told):
            return True
        fruitless = [record for record, fault in told if fault.kind is FaultKind.ERROR and not fault.epochs]
        if len({record.trial for record in fruitless}) > 1:
            return True
        return len([r for r in fruitless if not r.epoch]) > 1 and not self._own(fruitless[0])

    def _own(self, record: Record) -> bool:
        """Whether the sweep has ended by such faults of this trial before, and others have trained."""
        before = [r for r in self.records if (r.trial, _mark(r)) == (record.trial, _mark(record))]
        again = any(r.attempt < self.retried.get(record.trial, 0) for r in before)
        return again and any(trial != record.trial for trial in self.trained)


def read_faults(snapshot: StoreSnapshot) -> Faults:
    """The faults in a snapshot of the store."""
    files, table = scan(snapshot, ("trial", "attempt", "kind"))
    trials, trial = sorted_words(table["trial"])
    attempt, kind = table["attempt"].to_numpy(), kind_codes(table["kind"])

    def highest(name: str) -> dict[str, int]:
        rows = np.flatnonzero(kind == RECORD_KINDS.index(name))
        found = np.zeros(len(trials), np.int64)
        np.maximum.at(found, trial[rows], attempt[rows])
        return {trials[index]: int(found[index]) for index in np.flatnonzero(found)}

    rows = np.flatnonzero(kind == RECORD_KINDS.index("fault"))
    records = from_table(files.rows_at(rows)) if len(rows) else []
    ended, first = highest("end"), tuple(trials[:_FIRST])
    once = {(record.trial, record.attempt, record.writer): record for record in records}
    return Faults(tuple(sorted(once.values(), key=lambda r: r.time)), highest("report"), highest("retry"), ended, first)


def ending_in_words(ending: list[Record], uri: str) -> str:
    """Why a sweep has ended, in a line.

    Args:
        ending: faults of `Faults.ending`.
        uri: of the sweep, whose logs hold the whole of it.
    """
    last = ending[-1]
    if Fault.from_json(last.fault, last.reason).kind is FaultKind.SHARED:
        return last.reason
    count: dict[str, int] = defaultdict(int)
    for record in ending:
        count[record.trial] += _alike(record, last)
    met = [trial for trial in sorted(count) if count[trial]]
    where = f"twice in trial {met[0]}" if len(met) == 1 else f"in trials {', '.join(met[:-1])} and {met[-1]}"
    return f"{last.reason}, {where}, before an epoch was trained; log: {log_of(uri, last.trial)}"


def log_of(uri: str, trial: str) -> str:
    """Where a trial's log is."""
    return f"{uri.partition('?')[0]}/logs/{trial}.log"


def _alike(one: Record, other: Record) -> bool:
    return (one.fault["kind"], one.fault["mark"]) == (other.fault["kind"], other.fault["mark"])


def _mark(record: Record) -> str:
    return str(record.fault["mark"]) or f"of its own: {record.trial} {record.attempt}"
