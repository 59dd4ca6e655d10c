"""The faults of a sweep that stand, and whether they end it: then what one trial met every other would meet.

A fault stands until its trial has trained an epoch in a later attempt, or was begun again. Standing faults end the
sweep, as `stopped`, where

- one is of what the user gave to all trials (`tune.faults.Kind.SHARED`), or
- an exception that nobody foresaw came in two trials, each time before the attempt had trained an epoch, or twice in
  one trial before its first epoch.

All of this is told by the store's records, so that it holds whoever reads them, and however often the driver was lost.
A sweep that goes on after such an end begins the trials again that its faults broke off. Where one trial then meets the
same exception twice once more, alone, while others have trained, it is the trial's own, and ends that trial.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tune.arrange import ranked_kinds, ranked_words
from tune.faults import Fault, Kind
from tune.records import KINDS, Record, from_table
from tune.view import View, scan


@dataclass(frozen=True)
class Faults:
    """The faults of a sweep.

    Attributes:
        records: of all of them, in the order of time.
        trained: the highest attempt that has trained an epoch, by trial.
        retried: the attempt's number of the last record that begins a trial again, by trial.
    """

    records: tuple[Record, ...]
    trained: Mapping[str, int]
    retried: Mapping[str, int]

    def ending(self) -> list[Record]:
        """Those that end the sweep, in the order of time; empty where it may go on."""
        standing = [record for record in self.records if self._stands(record)]
        marks = {mark for mark in map(_mark, standing) if self._ends([r for r in standing if _mark(r) == mark])}
        return [record for record in standing if _mark(record) in marks]

    def _stands(self, record: Record) -> bool:
        later = max(self.trained.get(record.trial, 0) - 1, self.retried.get(record.trial, 0))
        return record.attempt > later

    def _ends(self, alike: list[Record]) -> bool:
        """Whether standing faults of one mark do."""
        told = [(record, Fault.from_json(record.fault, record.reason)) for record in alike]
        if any(fault.kind is Kind.SHARED for _, fault in told):
            return True
        fruitless = [record for record, fault in told if fault.kind is Kind.ERROR and not fault.epochs]
        if len({record.trial for record in fruitless}) > 1:
            return True
        return len([r for r in fruitless if not r.epoch]) > 1 and not self._own(fruitless[0])

    def _own(self, record: Record) -> bool:
        """Whether the sweep has ended by such faults of this trial before, and others have trained."""
        before = [r for r in self.records if (r.trial, _mark(r)) == (record.trial, _mark(record))]
        again = any(r.attempt < self.retried.get(record.trial, 0) for r in before)
        return again and any(trial != record.trial for trial in self.trained)


def read_faults(view: View) -> Faults:
    """The faults that a view tells."""
    files, table = scan(view, ("trial", "attempt", "kind"))
    trials, trial = ranked_words(table["trial"])
    attempt, kind = table["attempt"].to_numpy(), ranked_kinds(table["kind"])

    def highest(name: str) -> dict[str, int]:
        rows = np.flatnonzero(kind == KINDS.index(name))
        found = np.zeros(len(trials), np.int64)
        np.maximum.at(found, trial[rows], attempt[rows])
        return {trials[index]: int(found[index]) for index in np.flatnonzero(found)}

    rows = np.flatnonzero(kind == KINDS.index("fault"))
    records = from_table(files.details(rows)) if len(rows) else []
    once = {(record.trial, record.attempt, record.writer): record for record in records}
    return Faults(tuple(sorted(once.values(), key=lambda r: r.time)), highest("report"), highest("retry"))


def ending_in_words(ending: list[Record], uri: str) -> str:
    """Why a sweep has ended, in a line.

    Args:
        ending: faults of `Faults.ending`.
        uri: of the sweep, whose logs hold the whole of it.
    """
    last = ending[-1]
    if Fault.from_json(last.fault, last.reason).kind is Kind.SHARED:
        return last.reason
    count: dict[str, int] = defaultdict(int)
    for record in ending:
        count[record.trial] += _mark(record) == _mark(last)
    met = [trial for trial in sorted(count) if count[trial]]
    where = f"twice in trial {met[0]}" if len(met) == 1 else f"in trials {', '.join(met[:-1])} and {met[-1]}"
    return f"{last.reason}, {where}, before an epoch was trained; log: {log_of(uri, last.trial)}"


def log_of(uri: str, trial: str) -> str:
    """Where a trial's log is."""
    return f"{uri.partition('?')[0]}/logs/{trial}.log"


def _mark(record: Record) -> str:
    return str(record.fault["mark"]) or f"of its own: {record.trial} {record.attempt}"
