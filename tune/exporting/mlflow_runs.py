"""A sweep as an experiment of MLflow: a run for each trial, with its settings, curves, facts and artefacts.

    mlflow server --backend-store-uri sqlite:///FILE

MLflow's parameters are the settings of a trial, its metrics their values by epoch; ``best/NAME`` is the value at the
best evaluation. An export is repeated run by run: a run gets the epochs that came later. One whose earlier epochs were
trained anew, by a later attempt, is deleted and made anew, because metrics cannot be changed.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semprior.errors import StorageError, UserError
from semprior.io.foreign_text import visible
from semprior.io.temporary_folders import temporary_folder
from tune.exporting.exported_trials import Artefact, ExportedSweep, ExportedTrial, digest_of, facts
from tune.exporting.sqlite_file import require_tables, sqlite_file
from tune.store.records import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_SWEEP, _TRIAL = "semprior.sweep", "semprior.trial"
_EXPORTED, _ARTEFACTS = "semprior.export", "semprior.artefacts"
"""Tags of a run: the number and the digest of the epochs that it holds, and the identities of its artefacts."""
_TABLES = {"experiments", "runs", "metrics", "params"}
_STATUS = {"completed": "FINISHED", "stopped": "KILLED", "diverged": "FAILED", "failed": "FAILED"}
_AT_ONCE = {"metrics": 1000, "params": 100}  # MLflow's limits of a request
_LONGEST_TAG = 5000  # characters


def write_runs(exported: ExportedSweep, uri: str) -> str:
    """Write a sweep as the experiment of its name.

    Args:
        exported: the sweep.
        uri: MLflow's tracking URI: ``sqlite:///FILE``, or the address of a server.

    Returns:
        What was done, in a line.

    Raises:
        UserError: MLflow is not installed or refuses the URI, the file is not MLflow's, or it has an experiment of this
            name that is not of this sweep.
    """
    # MLflow's own switches, which it reads when it is imported: it reports its use and prints addresses of runs else.
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise UserError("--to mlflow: needs MLflow; install it: pip install 'semprior[mlflow]'") from error
    file = sqlite_file(uri)
    if file is not None:
        require_tables(file, _TABLES, "an SQLite file of MLflow")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)  # it tells of each table that it creates
    try:
        client = MlflowClient(tracking_uri=uri)
        experiment = _experiment(client, exported, uri, file)
        runs = _runs(client, experiment)
        epochs = 0
        for trial in exported.each():
            _write_run(client, experiment, trial, runs.get(trial.summary.trial))
            epochs += len(trial.reports)
    except MlflowException as error:
        raise StorageError(f"--to mlflow:{uri}: {visible(' '.join(str(error).split()))}") from error
    except OSError as error:
        raise StorageError(f"{error.filename or uri}: cannot be written ({error.strerror or error})") from error
    look = f"; look: mlflow server --backend-store-uri {uri}" if file is not None else ""
    return f"{uri}: {len(exported.trials)} trials of {exported.sweep.id} with {epochs} epochs{look}"


def _experiment(client: MlflowClient, exported: ExportedSweep, uri: str, file: Path | None) -> str:
    """The id of the experiment, which is created if there is none.

    Raises:
        UserError: the experiment of this name is not of this sweep, or was deleted.
    """
    name = exported.sweep.id
    found = client.get_experiment_by_name(name)
    if found is None:
        place = Path(f"{file}.artifacts").absolute().as_uri() if file is not None else None
        tags = {_SWEEP: exported.identity, "sweep.json": exported.settings()[:_LONGEST_TAG]}
        return str(client.create_experiment(name, artifact_location=place, tags=tags))
    if found.tags.get(_SWEEP) != exported.identity:
        raise UserError(f"--to mlflow:{uri}: has an experiment {name} that is not of this sweep; choose another place")
    if found.lifecycle_stage != "active":
        raise UserError(f"--to mlflow:{uri}: its experiment {name} was deleted; restore it, or choose another place")
    return str(found.experiment_id)


def _runs(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """The runs that an earlier export has left, by trial."""
    found: dict[str, Run] = {}
    token: str | None = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        found |= {run.data.tags[_TRIAL]: run for run in page if _TRIAL in run.data.tags}
        token = page.token
        if not token:
            return found


def _write_run(client: MlflowClient, experiment: str, trial: ExportedTrial, run: Run | None) -> None:
    from mlflow.entities import RunTag

    summary, reports = trial.summary, trial.reports
    known = 0
    if run is not None:
        known = _held(run, trial)
        if known < 0:
            client.delete_run(run.info.run_id)
            run = None
    if run is None:
        known, begun = 0, trial.history[0].time if trial.history else summary.updated
        run = client.create_run(experiment, _milliseconds(begun), {_TRIAL: summary.trial}, summary.trial)
        _log_settings(client, run.info.run_id, trial)
    metrics = [metric for report in reports[known:] for metric in _metrics(report, "")]
    if summary.best_epoch is not None:
        metrics += [
            m for report in reports[known:] if report.epoch == summary.best_epoch for m in _metrics(report, "best/")
        ]
    for start in range(0, len(metrics), _AT_ONCE["metrics"]):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + _AT_ONCE["metrics"]])
    told = {**facts(summary), "searched": ", ".join(summary.params)}
    told["mlflow.note.content"] = "\n".join(f"attempt {fault.attempt}: {fault.reason}" for fault in trial.faults)
    tags = {name: "" if value is None else str(value)[:_LONGEST_TAG] for name, value in told.items()}
    tags |= {_EXPORTED: _held_mark(trial, len(reports)), _ARTEFACTS: _artefacts(client, run, trial.artefacts)}
    client.log_batch(run.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    if summary.state == "running":
        client.update_run(run.info.run_id, status="RUNNING")
    else:
        client.set_terminated(run.info.run_id, _STATUS[summary.state], _milliseconds(summary.updated))


def _held(run: Run, trial: ExportedTrial) -> int:
    """The number of epochs that a run holds already; -1 if they are not the first ones of the trial."""
    mark = run.data.tags.get(_EXPORTED, "")
    number = mark.partition(" ")[0]
    if not number:  # an export that was cut off: MLflow keeps equal metrics once
        return 0
    held = int(number) if number.isdecimal() else -1
    return held if 0 <= held <= len(trial.reports) and mark == _held_mark(trial, held) else -1


def _held_mark(trial: ExportedTrial, number: int) -> str:
    told = [(r.attempt, r.epoch, r.writer, r.time) for r in trial.reports[:number]]
    return f"{number} {digest_of([dict(trial.summary.config), told])}"


def _log_settings(client: MlflowClient, run: str, trial: ExportedTrial) -> None:
    from mlflow.entities import Param

    settings = [
        Param(key, value if isinstance(value, str) else json.dumps(value))
        for key, value in trial.summary.config.items()
    ]
    for start in range(0, len(settings), _AT_ONCE["params"]):
        client.log_batch(run, params=settings[start : start + _AT_ONCE["params"]])


def _metrics(report: Record, prefix: str) -> list[Metric]:
    from mlflow.entities import Metric

    at = _milliseconds(report.time)
    finite = {name: value for name, value in report.metrics.items() if math.isfinite(value)}
    return [Metric(f"{prefix}{name}", value, at, report.epoch + 1) for name, value in finite.items()]


def _artefacts(client: MlflowClient, run: Run, artefacts: Sequence[Artefact]) -> str:
    """Log the artefacts that are new or have changed; the identities of all, for the tag."""
    lines = [line.partition(" ") for line in run.data.tags.get(_ARTEFACTS, "").splitlines()]
    known = {name: identity for name, _, identity in lines}
    told = {artefact.name: digest_of(artefact.identity) for artefact in artefacts}
    with temporary_folder("semprior-export-") as scratch:
        for artefact in artefacts:
            if known.get(artefact.name) == told[artefact.name]:
                continue
            path = scratch / artefact.name
            artefact.write(path)
            if path.is_dir():
                client.log_artifacts(run.info.run_id, str(path), artefact.name)
            else:
                client.log_artifact(run.info.run_id, str(path))
    return "\n".join(f"{name} {identity}" for name, identity in told.items())


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
