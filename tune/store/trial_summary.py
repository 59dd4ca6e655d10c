"""A trial in one line: where it stands, its best, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tune.store.records import Record, State, from_table
from tune.store.snapshot import Files, View, scan
from tune.store.visible_records import KEYS, Arranged, arrange, last_of_each


@dataclass(frozen=True)
class TrialSummary:
    """A trial as it stands.

    Attributes:
        trial: its id.
        configuration: its number.
        seed: of the run.
        attempt: the highest.
        epochs: trained so far.
        state: ``running`` until it has ended; then how.
        reason: of the end.
        values: the objectives at its best evaluation, as its last report tells them; empty before the first.
        best_epoch: the epoch of that evaluation; none before the first.
        metrics: of that epoch, or of the last one before there is a best.
        checkpoint: address of the best epoch's checkpoint, relative to the sweep; it is kept for good.
        sha256: of its manifest.
        wall_s: seconds, all attempts together.
        device_s: device seconds, all attempts together.
        updated: time of the last record that counts, in seconds since 1970.
        last: the last record that counts: config, params, host, device, revision, versions.
    """

    trial: str
    configuration: int
    seed: int
    attempt: int
    epochs: int
    state: State
    reason: str
    values: tuple[float, ...]
    best_epoch: int | None
    metrics: Mapping[str, float]
    checkpoint: str | None
    sha256: str | None
    wall_s: float
    device_s: float
    updated: float
    last: Record

    @property
    def params(self) -> Mapping[str, Any]:
        """What the search chose."""
        return self.last.params

    @property
    def config(self) -> Mapping[str, Any]:
        """Every leaf of the run's settings."""
        return self.last.config


def arrange_view(view: View, soon: Sequence[str] = ()) -> tuple[Files, Arranged]:
    """The records of a view that count, and where to read more of them: the columns `soon` of all rows."""
    files, columns = _keys(view, soon)
    return files, arrange(columns, files.times)


def _keys(view: View, soon: Sequence[str]) -> tuple[Files, dict[str, pa.ChunkedArray]]:
    files, table = scan(view, KEYS, soon=soon)
    return files, dict(zip(table.column_names, table.columns, strict=True))


def summarise(view: View) -> list[TrialSummary]:
    """Every trial of a view, in the order of the ids."""
    columns = ("best", "wall_s", "device_s")
    read, found = arrange_view(view, columns)
    number = len(found.trials)
    table = read.columns(columns)
    wall_s, device_s = found.total(table["wall_s"]), found.total(table["device_s"])
    best = best_positions(table["best"], found)
    last = last_of_each(found.owners, found.reports, number)
    anything = np.where(last >= 0, last, np.where(found.starts >= 0, found.starts, found.firsts))
    held = np.unique(np.concatenate([best[best >= 0], anything, found.ends[found.ends >= 0]]))
    records = dict(zip(held.tolist(), from_table(read.details(held)), strict=True)) if number else {}

    summaries = []
    for index, trial in enumerate(found.trials):
        latest, end = records[int(anything[index])], records.get(int(found.ends[index]))
        peak = records.get(int(best[index]))
        reported = last[index] >= 0
        kept = peak or (latest if end and reported else None)  # without a best the last one is kept
        summaries.append(
            TrialSummary(
                trial=trial,
                configuration=latest.configuration,
                seed=latest.seed,
                attempt=int(found.attempts[index]),
                epochs=latest.epoch + 1 if reported else 0,
                state=end.state if end else "running",
                reason=end.reason if end else "",
                values=latest.values if reported else (),
                best_epoch=peak.epoch if peak else None,
                metrics=(peak or latest).metrics,
                checkpoint=kept.checkpoint if kept else None,
                sha256=kept.sha256 if kept else None,
                wall_s=float(wall_s[index]),
                device_s=float(device_s[index]),
                updated=max(latest.time, end.time if end else 0.0),
                last=latest,
            )
        )
    return summaries


def best_positions(column: pa.ChunkedArray, found: Arranged) -> np.ndarray:
    """(T,) position of each trial's best evaluation, whose checkpoint is kept; -1 before there is one.

    Args:
        column: ``best`` of all rows.
        found: of the same rows.
    """
    chosen = np.equal(column.to_numpy()[found.reports], True)
    return last_of_each(found.owners[chosen], found.reports[chosen], len(found.trials))
