"""Summaries of trials: the current state, the best evaluation and the cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tune.store.records import Record, State, from_table
from tune.store.snapshot import RecordFiles, StoreSnapshot, scan
from tune.store.visible_records import KEY_COLUMNS, VisibleRecords, find_visible_records, last_positions


@dataclass(frozen=True)
class TrialSummary:
    """The current state of a trial.

    Attributes:
        trial: id of the trial.
        configuration: number of the configuration.
        seed: seed of the run.
        attempt: the highest attempt.
        epochs: number of epochs trained so far.
        state: ``running``, or how the trial ended.
        reason: reason of the end.
        values: the objectives at the best evaluation so far; empty before the first evaluation.
        best_epoch: the epoch of the best evaluation; None before the first evaluation.
        metrics: the metrics of the best epoch; before the first evaluation, of the last epoch.
        checkpoint: address of the checkpoint of the best epoch, relative to the sweep; it is kept permanently.
        sha256: SHA-256 of the manifest of that checkpoint.
        images: address of the terms of the best evaluation, image by image (`Record.images_address`); None if there are
            none.
        wall_s: seconds of all attempts.
        device_s: device seconds of all attempts.
        updated: time of the last visible record, in seconds since 1970.
        last: the last visible record of a start or a report.
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
    images: str | None
    wall_s: float
    device_s: float
    updated: float
    last: Record

    @property
    def params(self) -> Mapping[str, Any]:
        """The leaves that the search chose."""
        return self.last.params

    @property
    def config(self) -> Mapping[str, Any]:
        """All leaves of the configuration."""
        return self.last.config


def read_visible_records(snapshot: StoreSnapshot, preload: Sequence[str] = ()) -> tuple[RecordFiles, VisibleRecords]:
    """Find the visible records of a snapshot.

    Args:
        snapshot: the snapshot.
        preload: columns that the caller will read from the returned files.

    Returns:
        The files of the snapshot, and the positions of their visible records.
    """
    files, table = scan(snapshot, KEY_COLUMNS, preload=preload)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    del table  # so that `find_visible_records` can free the columns one by one
    return files, find_visible_records(columns, files.times)


def summarise_trials(snapshot: StoreSnapshot) -> list[TrialSummary]:
    """Summarise the trials of a snapshot, sorted by id."""
    columns = ("best", "wall_s", "device_s")
    files, visible = read_visible_records(snapshot, columns)
    number = len(visible.trials)
    table = files.columns(columns)
    wall_s, device_s = visible.total(table["wall_s"]), visible.total(table["device_s"])
    best = best_positions(table["best"], visible)
    last_reports = last_positions(visible.report_trials, visible.reports, number)
    latest = np.where(
        last_reports >= 0, last_reports, np.where(visible.starts >= 0, visible.starts, visible.any_record)
    )
    positions = np.unique(np.concatenate([best[best >= 0], latest, visible.ends[visible.ends >= 0]]))
    records = dict(zip(positions.tolist(), from_table(files.rows_at(positions)), strict=True)) if number else {}

    summaries = []
    for index, trial in enumerate(visible.trials):
        last, end = records[int(latest[index])], records.get(int(visible.ends[index]))
        peak = records.get(int(best[index]))
        reported = last_reports[index] >= 0
        retained = peak or (last if end and reported else None)  # without an evaluation, the last checkpoint is kept
        summaries.append(
            TrialSummary(
                trial=trial,
                configuration=last.configuration,
                seed=last.seed,
                attempt=int(visible.attempts[index]),
                epochs=last.epoch + 1 if reported else 0,
                state=end.state if end else "running",
                reason=end.reason if end else "",
                values=last.values if reported else (),
                best_epoch=peak.epoch if peak else None,
                metrics=(peak or last).metrics,
                checkpoint=retained.checkpoint if retained else None,
                sha256=retained.sha256 if retained else None,
                images=peak.images_address if peak else None,
                wall_s=float(wall_s[index]),
                device_s=float(device_s[index]),
                updated=max(last.time, end.time if end else 0.0),
                last=last,
            )
        )
    return summaries


def best_positions(column: pa.ChunkedArray, visible: VisibleRecords) -> np.ndarray:
    """(T,) positions of the best evaluation of each trial, whose checkpoint is kept; -1 before the first evaluation.

    Args:
        column: the column ``best`` of all rows.
        visible: the visible records of the same rows.
    """
    is_best = np.equal(column.to_numpy()[visible.reports], True)
    return last_positions(visible.report_trials[is_best], visible.reports[is_best], len(visible.trials))
