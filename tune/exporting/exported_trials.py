"""What is exported of a sweep: its trials with their records, and the artefacts of each trial."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from semprior.io.storage import Entry, Storage
from semprior.reading.names import checked_name
from tune.exporting.curve_picture import curve_picture
from tune.store.checkpoints import StoredCheckpoint, fetch_checkpoint
from tune.store.records import IMAGE_SUMS, Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep
from tune.store.trial_summary import TrialSummary

_AT_A_TIME = 200  # trials whose records are in memory


@dataclass(frozen=True)
class Artefact:
    """A file or a folder of a trial.

    Attributes:
        name: of the file or folder.
        identity: a text that is another one when the content is.
        write: writes it at a path that does not exist yet.
    """

    name: str
    identity: str
    write: Callable[[Path], None]


@dataclass(frozen=True)
class ExportedTrial:
    """A trial with what is exported of it.

    Attributes:
        summary: the trial as it stands.
        history: its visible records, in order.
        artefacts: its files and folders.
    """

    summary: TrialSummary
    history: Sequence[Record]
    artefacts: Sequence[Artefact]

    @property
    def reports(self) -> list[Record]:
        """The reports of its epochs, in order."""
        return [record for record in self.history if record.kind == "report"]

    @property
    def faults(self) -> list[Record]:
        """What its attempts broke off by, in order."""
        return [record for record in self.history if record.kind == "fault"]

    @functools.cached_property
    def digest(self) -> str:
        """A text that is another one when anything is that is exported of the trial."""
        identities = [(one.name, one.identity) for one in self.artefacts]
        told = [(r.kind, r.attempt, r.epoch, r.writer, r.time, r.checkpoint) for r in self.history]
        return digest_of([told, identities, self.summary.state, self.summary.reason])


class ExportedSweep:
    """A sweep with what is exported of it. Its trials are read when it is created.

    Args:
        sweep: the sweep.
        store: its store.

    Attributes:
        sweep: the sweep.
        trials: summaries of its trials, sorted by id.
    """

    def __init__(self, sweep: Sweep, store: ResultsStore) -> None:
        self.sweep, self._store = sweep, store
        self.trials = store.trials()

    @property
    def identity(self) -> str:
        """What tells this sweep from every other one, whatever its id."""
        return self.sweep.digest

    def settings(self) -> str:
        """The resolved sweep file, as JSON."""
        return self.sweep.spec.to_json()

    def each(self) -> Iterator[ExportedTrial]:
        """The trials with their records and artefacts, sorted by id."""
        logs = {entry.name: entry for entry in self.sweep.storage.list("logs")}
        for start in range(0, len(self.trials), _AT_A_TIME):
            chunk = self.trials[start : start + _AT_A_TIME]
            histories = self._store.histories([trial.trial for trial in chunk])
            for trial in chunk:
                history = histories.get(trial.trial, [])
                log = logs.get(f"logs/{trial.trial}.log")
                yield ExportedTrial(trial, history, _artefacts(self.sweep, trial, history, log))


def digest_of(content: object) -> str:
    """The SHA-256 of a value, as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def facts(trial: TrialSummary) -> dict[str, Any]:
    """What is told of a trial beside its settings and metrics: how it ended, what it cost, where it ran.

    Texts are empty and numbers None where they are not known.
    """
    last = trial.last
    return {
        "configuration": trial.configuration,
        "seed": trial.seed,
        "attempt": trial.attempt,
        "state": trial.state,
        "reason": trial.reason,
        "epochs": trial.epochs,
        "best_epoch": None if trial.best_epoch is None else trial.best_epoch + 1,
        "wall_s": trial.wall_s,
        "device_s": trial.device_s,
        "host": last.host,
        "device": last.device,
        "precision": last.precision,
        "instructions": last.instructions,
        "revision": last.revision,
        "data_sha256": last.data,
        "checkpoint": trial.checkpoint or "",
        "checkpoint_sha256": trial.sha256 or "",
    }


def _artefacts(sweep: Sweep, trial: TrialSummary, history: Sequence[Record], log: Entry | None) -> Sequence[Artefact]:
    """The settings and a picture of the curves; once the trial has ended, all else that it has left."""
    storage = sweep.storage
    reports = [record for record in history if record.kind == "report"]
    settings = yaml.safe_dump(dict(trial.config), sort_keys=False, allow_unicode=True).encode()
    found = [Artefact("config.yaml", digest_of(dict(trial.config)), lambda path: _write(path, settings))]
    objectives = list(sweep.spec.objective)
    if any(metric in report.metrics for report in reports for metric in objectives):
        title = f"{sweep.id}, trial {trial.trial}"
        drawn = digest_of([(report.epoch, dict(report.metrics)) for report in reports])
        picture = functools.partial(curve_picture, title, reports, objectives)
        found.append(Artefact("curve.png", drawn, lambda path: _write(path, picture())))
    if trial.state == "running":
        return found
    if log is not None:
        found.append(Artefact("log.txt", f"{log.size}", lambda path: _copy(storage, log.name, path)))
    for name, folder in (("tensorboard", f"tensorboard/{trial.trial}"), ("image-sums", f"{IMAGE_SUMS}/{trial.trial}")):
        files = [entry for entry in storage.list(folder, recursive=True) if not entry.is_folder]
        if files:
            sizes = digest_of([(entry.name, entry.size) for entry in files])
            found.append(Artefact(name, sizes, functools.partial(_copy_all, storage, folder, files)))
    if trial.checkpoint is not None and trial.sha256 is not None:
        stored = StoredCheckpoint(trial.checkpoint, trial.sha256)
        identity = f"{trial.checkpoint} {trial.sha256}"
        found.append(Artefact("checkpoint", identity, functools.partial(fetch_checkpoint, storage, stored)))
    return found


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _copy(storage: Storage, name: str, path: Path) -> None:
    """Copy a file of the storage; one that was removed meanwhile is left out."""
    with open(path, "wb") as file, contextlib.suppress(FileNotFoundError):
        for chunk in storage.chunks(name):
            file.write(chunk)


def _copy_all(storage: Storage, folder: str, files: Sequence[Entry], path: Path) -> None:
    for entry in files:
        inside = path / checked_name(entry.name.removeprefix(f"{folder}/"))
        inside.parent.mkdir(parents=True, exist_ok=True)
        _copy(storage, entry.name, inside)
