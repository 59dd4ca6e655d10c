"""Summaries of trials: the current state, the best evaluation and the cost; and of all trials, curves and machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tune.store.records import METRIC_PREFIX, Record, State, from_table
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


@dataclass(frozen=True)
class Curves:
    """The visible reports of T trials as columns, V of them, by trial and epoch.

    Attributes:
        trials: ids of the trials, sorted.
        trial: (V,) index of the trial of each report.
        epochs: (V,) its epoch, from 0.
        times: (V,) when it was made, in seconds since 1970.
        metrics: by name, (V,) float64; NaN where a report does not have the metric.
    """

    trials: list[str]
    trial: np.ndarray
    epochs: np.ndarray
    times: np.ndarray
    metrics: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class MachineCost:
    """What the trials of a sweep have cost on one kind of device of one machine.

    Attributes:
        host: name of the machine.
        device: name of the device.
        precision: in which networks ran there.
        trials: number of trials that have trained there.
        epochs: number of epochs that were trained there, also those that were trained anew later.
        wall_s: seconds of all attempts.
        device_s: device seconds of all attempts.
    """

    host: str
    device: str
    precision: str
    trials: int
    epochs: int
    wall_s: float
    device_s: float


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


def read_curves(snapshot: StoreSnapshot, metrics: Sequence[str]) -> Curves:
    """Read some metrics of all visible reports of a snapshot."""
    names = [f"{METRIC_PREFIX}{name}" for name in metrics]
    files, visible = read_visible_records(snapshot, ["time", *names])
    table = files.columns(["time", *names])
    columns = {
        name: table[column].to_numpy()[visible.reports].astype(np.float64)
        for name, column in zip(metrics, names, strict=True)
    }
    times = table["time"].to_numpy()[visible.reports]
    return Curves(visible.trials, visible.report_trials, visible.epochs, times, columns)


def read_costs(snapshot: StoreSnapshot) -> list[MachineCost]:
    """What the trials of a snapshot have cost, by machine and device, the most expensive first."""
    keys, numbers = ["host", "device", "precision"], ["wall_s", "device_s"]
    files, visible = read_visible_records(snapshot, [*keys, *numbers, "kind"])
    table = files.columns([*keys, *numbers, "kind"]).take(visible.distinct)
    table = table.append_column("trial", pa.array(visible.distinct_trials))
    for name in (*keys, "kind"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
    trained = pc.equal(table["kind"], "report")
    table = table.append_column("epoch", pc.cast(trained, pa.int64()))
    spent = table.group_by(keys).aggregate([("wall_s", "sum"), ("device_s", "sum"), ("epoch", "sum")])
    trials = table.filter(trained).group_by(keys).aggregate([("trial", "count_distinct")])
    count = {tuple(row[key] for key in keys): row["trial_count_distinct"] for row in trials.to_pylist()}
    found = [
        MachineCost(
            row["host"],
            row["device"],
            row["precision"],
            count.get(tuple(row[key] for key in keys), 0),
            row["epoch_sum"],
            row["wall_s_sum"],
            row["device_s_sum"],
        )
        for row in spent.to_pylist()
    ]
    return sorted(
        (one for one in found if one.device_s or one.epochs), key=lambda one: (-one.device_s, one.host, one.device)
    )
