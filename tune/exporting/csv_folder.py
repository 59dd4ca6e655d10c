"""A sweep as a folder of CSV files::

DIR/trials.csv             a row for each trial: how it ended, its objectives and metrics, its cost, what was searched
    settings.csv           trial,key,value: all settings of every trial; the value as JSON
    curves.csv             a row for each epoch of each trial, with all of its metrics
    faults.csv             what attempts of trials broke off by
    sweep.json             the resolved sweep file
    artefacts/TRIAL/...    log, picture of the curves, TensorBoard events, image-wise sums, checkpoint
    export.json            which sweep was exported, and which artefacts are here
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow.csv import write_csv as write_csv_table

from semprior.errors import StorageError, UserError
from semprior.io.atomic_files import atomic_folder, write_atomically
from semprior.io.foreign_text import csv_cell
from semprior.reading.files import read_bytes
from semprior.reading.json_text import parse_json
from tune.exporting.exported_trials import ExportedSweep, ExportedTrial, facts

MARK = "export.json"
"""Names the sweep that was exported into a folder, so that another one is not written over it."""


def write_csv(exported: ExportedSweep, folder: Path) -> str:
    """Write a sweep into a folder, which is created. What an earlier export of the same sweep has left is replaced.

    Returns:
        What was done, in a line.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    try:
        return _write(exported, folder)
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: cannot be written ({error.strerror or error})") from error


def _write(exported: ExportedSweep, folder: Path) -> str:
    known = _known_artefacts(exported, folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark: dict[str, Any] = {"sweep": exported.sweep.id, "sweep_sha256": exported.identity, "artefacts": known}
    write_atomically(folder / MARK, _as_json(mark))  # from now on the folder is ours, whatever ends this export
    write_atomically(folder / "sweep.json", exported.settings().encode())
    trials, faults = [], []
    settings, curves = [], []  # as columns: there may be millions of rows
    for trial in exported.each():
        name = trial.summary.trial
        trials.append({"trial": name, **_row(exported, trial)})
        settings.append(_settings(trial))
        curves.append(_curve(trial))
        faults += [
            {"trial": name, "attempt": r.attempt, "epochs": r.epoch, "time": r.time, "reason": r.reason}
            for r in trial.faults
        ]
        identities = {artefact.name: artefact.identity for artefact in trial.artefacts}
        if known.get(name) != identities or not (folder / "artefacts" / name).is_dir():
            known.pop(name, None)
            with atomic_folder(folder / "artefacts" / name, replace=True) as inside:
                for artefact in trial.artefacts:
                    artefact.write(inside / artefact.name)
            known[name] = identities
    write_atomically(folder / "trials.csv", _table(trials, ("trial",)))
    write_atomically(folder / "settings.csv", _joined(settings))
    write_atomically(folder / "curves.csv", _joined(curves))
    write_atomically(folder / "faults.csv", _table(faults, ("trial", "attempt", "epochs", "time", "reason")))
    write_atomically(folder / MARK, _as_json(mark))
    return f"{folder}: {len(trials)} trials of {exported.sweep.id} with {sum(map(len, curves))} epochs, as CSV"


def _known_artefacts(exported: ExportedSweep, folder: Path) -> dict[str, dict[str, str]]:
    """The artefacts that an earlier export has left in the folder, by trial; empty if it is new.

    Raises:
        UserError: the folder is no folder, or holds something else.
    """
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    mark = folder / MARK
    if not folder.is_dir() or not mark.is_file():
        raise UserError(f"{folder}: holds something else than an export of {exported.sweep.id}; choose another folder")
    told = parse_json(read_bytes(mark), dict[str, Any], str(mark))
    if told.get("sweep_sha256") != exported.identity:
        raise UserError(f"{folder}: holds an export of another sweep, {told.get('sweep')}; choose another folder")
    known = told.get("artefacts")
    given = known.items() if isinstance(known, dict) else ()
    return {str(name): one for name, one in given if isinstance(one, dict)}


def _row(exported: ExportedSweep, trial: ExportedTrial) -> dict[str, Any]:
    summary = trial.summary
    objectives = dict(zip(exported.sweep.spec.objective, summary.values, strict=False))
    searched = {f"search/{key}": value for key, value in summary.params.items()}
    best = {f"best/{name}": value for name, value in summary.metrics.items()}
    return facts(summary) | {f"objective/{name}": value for name, value in objectives.items()} | searched | best


def _settings(trial: ExportedTrial) -> pa.Table:
    keys = list(trial.summary.config)
    names = [trial.summary.trial] * len(keys)
    values = [_cell(value) for value in trial.summary.config.values()]
    texts = ["" if value is None else str(value) for value in values]
    return pa.table({"trial": pa.array(names, pa.string()), "key": pa.array(keys, pa.string()), "value": texts})


def _curve(trial: ExportedTrial) -> pa.Table:
    reports = trial.reports
    columns = {
        "trial": pa.array([r.trial for r in reports], pa.string()),
        "epoch": pa.array([r.epoch + 1 for r in reports], pa.int64()),
        "attempt": pa.array([r.attempt for r in reports], pa.int64()),
        "time": pa.array([r.time for r in reports], pa.float64()),
        "wall_s": pa.array([r.wall_s for r in reports], pa.float64()),
        "device_s": pa.array([r.device_s for r in reports], pa.float64()),
        "best": pa.array([r.best for r in reports], pa.bool_()),
    }
    metrics = dict.fromkeys(name for r in reports for name in r.metrics)
    return pa.table(
        columns | {csv_cell(name): pa.array([r.metrics.get(name) for r in reports], pa.float64()) for name in metrics}
    )


def _joined(parts: Sequence[pa.Table]) -> bytes:
    """Tables below each other, as CSV with a heading of all of their columns."""
    stream = io.BytesIO()
    write_csv_table(pa.concat_tables(parts, promote_options="default"), stream)
    return stream.getvalue()


def _table(rows: Sequence[Mapping[str, Any]], first: Iterable[str]) -> bytes:
    """Rows as CSV with a heading of all of their keys, those of `first` before the others."""
    keys = list(dict.fromkeys([*first, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, keys))
    writer.writerows([_cell(row.get(key)) for key in keys] for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _cell(value: object) -> object:
    if isinstance(value, list | tuple | dict):
        return csv_cell(json.dumps(value))
    return csv_cell(value) if isinstance(value, str) else value


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
