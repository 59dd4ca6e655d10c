"""The results store: every trial's records, appended by many, ranked by anyone.

Example::

    store = ResultsStore("./runs/demo")
    store.append([Record(kind="start", trial="0000", configuration=0, seed=0, attempt=1, epoch=0, config=leaves)])
    for entry in store.rank({"holdout/point_score": "max"}, limit=10):
        print(entry.place, entry.trial, entry.values, entry.errors, entry.params)
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from semprior.storage import Storage, open_storage
from tune.compaction import compact, sort_records
from tune.kept import with_kept_checkpoints
from tune.parquet import file_name, write_file
from tune.ranking import Direction, Ranked, RankedBy, rank
from tune.records import Record, from_table, new_writer, to_table, visible
from tune.standing import Faults, read_faults
from tune.summaries import TrialSummary, summarise
from tune.view import NEW, read_view, scan

PATIENCE = 300.0  # seconds that whoever runs trials waits for a storage that cannot be read or written


def patient_store(uri: str) -> ResultsStore:
    """The store as whoever runs trials has it: an outage of minutes costs these minutes."""
    return ResultsStore(open_storage(uri, PATIENCE))


class ResultsStore:
    """The records of one sweep.

    Any number of processes on any number of machines may append and read at once; no file is ever changed.

    Args:
        uri: STORAGE/SWEEP: a folder, ``s3://``, ``gs://`` or any other address of pyarrow's; it need not exist yet.
        writer: the name that records without one are given.

    Raises:
        UserError: the address is not understood.
    """

    def __init__(self, uri: str | Path | Storage, writer: str | None = None) -> None:
        self.storage = uri if isinstance(uri, Storage) else open_storage(uri)
        self.writer = writer or new_writer()
        self._written = 0

    def append(self, records: Iterable[Record]) -> None:
        """Add records, in one new file; they are kept, all or none, when this returns.

        Raises:
            UserError: the storage cannot be written.
        """
        named = [r if r.writer else dataclasses.replace(r, writer=self.writer) for r in records]
        if not named:
            return
        self._written += 1
        stem = f"{time.time_ns():020d}-{self.writer}-{self._written}"
        self.storage.put(f"{NEW}/{file_name(stem, {r.trial for r in named})}", write_file(to_table(named)))

    def trials(self) -> list[TrialSummary]:
        """Every trial as it stands, in the order of the ids.

        Raises:
            UserError: the storage cannot be read.
        """
        return read_view(self.storage, summarise)

    def curve(self, trial: str) -> list[Record]:
        """The reports of a trial that count, by epoch; empty for one that is not known.

        A checkpoint that retention has removed, or may remove at any moment, is not told.

        Raises:
            UserError: the storage cannot be read.
        """
        return [record for record in self.history(trial) if record.kind == "report"]

    def curves(self, trials: Collection[str] | None = None) -> dict[str, list[Record]]:
        """The curves of some trials, or of all, read at once.

        Raises:
            UserError: the storage cannot be read.
        """
        found = self.histories(trials)
        return {trial: [r for r in records if r.kind == "report"] for trial, records in found.items()}

    def history(self, trial: str) -> list[Record]:
        """The records of a trial that count: starts, reports, and the end if it has ended.

        Raises:
            UserError: the storage cannot be read.
        """
        return self.histories([trial]).get(trial, [])

    def histories(self, trials: Collection[str] | None = None) -> dict[str, list[Record]]:
        """The histories of some trials, or of all, read at once, in the order of the ids.

        Raises:
            UserError: the storage cannot be read.
        """
        return {trial: with_kept_checkpoints(visible(found)) for trial, found in self.records(trials).items()}

    def records(self, trials: Collection[str] | None = None) -> dict[str, list[Record]]:
        """All that was ever appended of some trials, or of all, whether it counts or not, as it was written.

        Raises:
            UserError: the storage cannot be read.
        """
        chosen = None if trials is None else set(trials)
        table = read_view(self.storage, lambda view: scan(view, None, chosen)[1])
        found: dict[str, list[Record]] = {}
        for record in from_table(sort_records(table)):  # which two compactions at once may have doubled
            found.setdefault(record.trial, []).append(record)
        return found

    def faults(self) -> Faults:
        """What attempts of all trials broke off by.

        Raises:
            UserError: the storage cannot be read.
        """
        return read_view(self.storage, read_faults)

    def rank(
        self,
        objectives: Mapping[str, Direction],
        by: RankedBy = "best",
        *,
        last: int = 5,
        limit: int | None = None,
        also: Collection[int] = (),
    ) -> list[Ranked]:
        """The configurations with a value, best first; the rule stands at the head of `tune.ranking`.

        Args:
            objectives: names of metrics, ``holdout/point_score``, and ``max`` or ``min``; one or several.
            by: a trial's ``best`` evaluation, its ``last``, or ``robust``.
            last: evaluations that ``robust`` looks at.
            limit: how many places are wanted.
            also: configurations that are wanted whatever their place.

        Raises:
            UserError: the storage cannot be read.
        """
        return read_view(self.storage, lambda view: rank(view, objectives, by, last, limit, also))

    def compact(self) -> int:
        """Gather the records of small files into large ones, where there are enough; `tune.compaction` says how.

        To be called now and then by whoever runs the sweep; by several at once, if it so happens.

        Returns:
            The number of files that were gathered.

        Raises:
            UserError: the storage cannot be read or written.
        """
        return compact(self.storage)
