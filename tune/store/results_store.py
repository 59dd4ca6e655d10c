"""The results store: the records of all trials of a sweep, with concurrent writers and readers.

Example::

    store = ResultsStore("./runs/demo")
    store.append([Record(kind="start", trial="0000", configuration=0, seed=0, attempt=1, epoch=0, config=leaves)])
    for entry in store.rank({"holdout/point_score": "max"}, limit=10):
        print(entry.place, entry.trial, entry.values, entry.errors, entry.params)
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from semprior.io.storage import Storage, open_storage
from tune.spec.constraints import Limit
from tune.store.compaction import compact, sort_records
from tune.store.faults import Faults, read_faults
from tune.store.ranking import Direction, Ranked, RankedBy, rank
from tune.store.record_files import file_name, write_file
from tune.store.records import Record, from_table, new_writer_id, to_table, visible, with_kept_checkpoints
from tune.store.snapshot import NEW, LeftOut, StoreSnapshot, read_snapshot, scan
from tune.store.trial_summary import (
    Curves,
    MachineCost,
    TrialSummary,
    read_costs,
    read_curves,
    summarise_trials,
)

T = TypeVar("T")
PATIENCE = 300.0  # seconds for which drivers and trials wait for a storage that is not available


def patient_store(uri: str) -> ResultsStore:
    """Open the store for a driver or a trial, which waits out an outage of the storage of some minutes."""
    return ResultsStore(open_storage(uri, PATIENCE))


class ResultsStore:
    """The records of one sweep.

    Any number of processes and machines may append and read at the same time; no file is ever changed. Files that
    cannot be used, because they are damaged, foreign or of another version, are left out (`left_out`).

    Args:
        uri: the address of the sweep: a folder, or any address that pyarrow supports, such as ``s3://``. It need not
            exist yet.
        writer: writer id of appended records that have none.

    Raises:
        UserError: the address is not valid.
    """

    def __init__(self, uri: str | Path | Storage, writer: str | None = None) -> None:
        self.storage = uri if isinstance(uri, Storage) else open_storage(uri)
        self.writer = writer or new_writer_id()
        self._written = 0
        self._left_out: dict[str, LeftOut] = {}

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The files that this object has left out of what it read, because they cannot be used."""
        return tuple(self._left_out[name] for name in sorted(self._left_out))

    def _read(self, read: Callable[[StoreSnapshot], T]) -> T:
        found, left_out = read_snapshot(self.storage, read)
        self._left_out |= {file.name: file for file in left_out}
        return found

    def append(self, records: Iterable[Record]) -> None:
        """Write records atomically, as one new file.

        Raises:
            UserError: the storage cannot be written.
        """
        complete = [r if r.writer else dataclasses.replace(r, writer=self.writer) for r in records]
        if not complete:
            return
        self._written += 1
        stem, content = f"{time.time_ns():020d}-{self.writer}-{self._written}", write_file(to_table(complete))
        self.storage.put(f"{NEW}/{file_name(stem, {r.trial for r in complete}, content)}", content)

    def trials(self) -> list[TrialSummary]:
        """The current summary of each trial, sorted by id.

        Raises:
            UserError: the storage cannot be read.
        """
        return self._read(summarise_trials)

    def curve(self, trial: str) -> list[Record]:
        """The visible reports of a trial, by epoch; empty if the trial is unknown.

        Addresses of checkpoints that retention may have removed are left out.

        Raises:
            UserError: the storage cannot be read.
        """
        return [record for record in self.history(trial) if record.kind == "report"]

    def curves(self, trials: Collection[str] | None = None) -> dict[str, list[Record]]:
        """The curves of some trials, or of all, by trial.

        Raises:
            UserError: the storage cannot be read.
        """
        found = self.histories(trials)
        return {trial: [r for r in records if r.kind == "report"] for trial, records in found.items()}

    def metric_curves(self, metrics: Sequence[str]) -> Curves:
        """Some metrics of all visible reports of all trials, as columns.

        Raises:
            UserError: the storage cannot be read.
        """
        return self._read(lambda snapshot: read_curves(snapshot, metrics))

    def costs(self) -> list[MachineCost]:
        """What the trials have cost, by machine and device, the most expensive first.

        Raises:
            UserError: the storage cannot be read.
        """
        return self._read(read_costs)

    def history(self, trial: str) -> list[Record]:
        """The visible records of a trial: starts, reports, and the end if it has ended.

        Raises:
            UserError: the storage cannot be read.
        """
        return self.histories([trial]).get(trial, [])

    def histories(self, trials: Collection[str] | None = None) -> dict[str, list[Record]]:
        """The histories of some trials, or of all, by trial and sorted by id.

        Raises:
            UserError: the storage cannot be read.
        """
        return {trial: with_kept_checkpoints(visible(records)) for trial, records in self.records(trials).items()}

    def records(self, trials: Collection[str] | None = None) -> dict[str, list[Record]]:
        """All records of some trials, or of all, by trial, whether they are visible or not.

        Raises:
            UserError: the storage cannot be read.
        """
        chosen = None if trials is None else set(trials)
        table = self._read(lambda snapshot: scan(snapshot, None, chosen)[1])
        found: dict[str, list[Record]] = {}
        for record in from_table(sort_records(table)):  # drops duplicates of concurrent compactions
            found.setdefault(record.trial, []).append(record)
        return found

    def faults(self) -> Faults:
        """What attempts of all trials broke off by.

        Raises:
            UserError: the storage cannot be read.
        """
        return self._read(read_faults)

    def rank(
        self,
        objectives: Mapping[str, Direction],
        by: RankedBy = "best",
        *,
        last: int = 5,
        limit: int | None = None,
        include: Collection[int] = (),
        minimum: int = 1,
        limits: Sequence[Limit] = (),
    ) -> list[Ranked]:
        """The configurations that have a value, best first; `tune.store.ranking` explains the order.

        Args:
            objectives: names of metrics, such as ``holdout/point_score``, each with ``max`` or ``min``.
            by: whether to rank by the ``best`` evaluation of a trial, its ``last``, or a ``robust`` combination.
            last: number of evaluations that ``robust`` considers.
            limit: number of ranks to return; None for all.
            include: configurations to return whatever their rank.
            minimum: number of completed runs of a configuration of the first front; the others follow in a second one.
                For one objective.
            limits: constraints; configurations that do not meet them come last.

        Raises:
            UserError: the storage cannot be read.
        """
        return self._read(lambda snapshot: rank(snapshot, objectives, by, last, limit, include, minimum, limits))

    def compact(self) -> int:
        """Merge small files into large ones if there are enough of them (`tune.store.compaction`).

        The driver of the sweep calls this regularly. Concurrent calls are safe.

        Returns:
            The number of files that were merged.

        Raises:
            UserError: the storage cannot be read or written.
        """
        return compact(self.storage)
