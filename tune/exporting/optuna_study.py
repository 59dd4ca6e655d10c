"""A sweep as an Optuna study in an SQLite file, which `optuna-dashboard` displays::

    optuna-dashboard sqlite:///FILE --artifact-dir FILE.artifacts

A trial of the study is a configuration, as the search saw it; its runs, with their seeds or folds, are attributes. The
files of the runs, pictures of their curves among them, are artefacts of the trial. Checkpoints stay in the storage of
the sweep, whose addresses and digests are among the attributes.

Optuna's finished trials cannot be changed. A sweep that has gone on since its last export is therefore written anew, in
the place of the study of that name.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial

from semprior.errors import StorageError, UserError
from semprior.io.temporary_folders import temporary_folder
from tune.exporting.exported_trials import ExportedSweep, ExportedTrial, digest_of, facts
from tune.exporting.sqlite_file import require_tables, sqlite_file
from tune.search.history import History
from tune.search.search import Search
from tune.store.records import Record

_SWEEP, _DIGEST = "semprior.sweep", "semprior.export"
"""Attributes of a study: which sweep it is of, and the digest of what was exported, once that is complete."""
_TABLES = {"studies", "trials", "trial_params", "study_user_attributes"}
_NOT_UPLOADED = ("checkpoint", "tensorboard", "image-sums")
"""Artefacts that the dashboard could not show."""


def write_study(exported: ExportedSweep, uri: str) -> str:
    """Write a sweep as a study of its name into an SQLite file, which may hold other studies.

    Args:
        exported: the sweep.
        uri: ``sqlite:///FILE``.

    Returns:
        What was done, in a line.

    Raises:
        UserError: the address is another one, the file is not Optuna's or has a study of this name that is not of this
            sweep, or it cannot be written.
    """
    file = sqlite_file(uri)
    if file is None:
        raise UserError(f"--to optuna:{uri}: must be optuna:sqlite:///FILE")
    require_tables(file, _TABLES, "an SQLite file of Optuna")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _write(exported, uri, Path(f"{file}.artifacts"))
    except (StorageInternalError, RuntimeError) as error:  # Optuna's: a locked database, one of another version
        raise StorageError(f"{file}: cannot be written ({' '.join(str(error).split())})") from error
    except OSError as error:
        raise StorageError(f"{error.filename or file}: cannot be written ({error.strerror or error})") from error


def _write(exported: ExportedSweep, uri: str, folder: Path) -> str:
    storage = RDBStorage(uri)
    name = exported.sweep.id
    by_configuration: dict[int, list[ExportedTrial]] = defaultdict(list)
    curves: dict[str, list[Record]] = {}
    for trial in exported.each():
        by_configuration[trial.summary.configuration].append(trial)
        curves[trial.summary.trial] = trial.reports
    digest = digest_of([trial.digest for trials in by_configuration.values() for trial in trials])
    done = f"{uri}: {len(by_configuration)} configurations of {name} with {len(exported.trials)} trials"
    look = f"look: optuna-dashboard {uri} --artifact-dir {folder}"
    if _removed_if_old(storage, name, exported.identity, digest, folder):
        return f"{done}, as they were exported before; {look}"
    search = Search(exported.sweep.spec)
    search.rebuild(exported.trials, curves)
    study = optuna.create_study(storage=storage, study_name=name, directions=search.history.directions)
    study.set_user_attr(_SWEEP, exported.identity)
    study.set_metric_names(list(exported.sweep.spec.objective))
    study.set_user_attr("sweep.json", exported.sweep.spec.model_dump(mode="json", by_alias=True))
    folder.mkdir(exist_ok=True)
    artefacts = FileSystemArtifactStore(str(folder))
    for number, trials in sorted(by_configuration.items()):
        study.add_trial(_frozen(search.history, number, trials, _uploaded(trials, artefacts)))
    study.set_user_attr(_DIGEST, digest)
    return f"{done}; {look}"


def _removed_if_old(storage: RDBStorage, name: str, identity: str, digest: str, folder: Path) -> bool:
    """Remove an earlier export of the sweep with its artefacts, unless it is what would be exported now.

    Returns:
        Whether it is, and remains.

    Raises:
        UserError: the study is not one of this sweep.
    """
    if name not in optuna.get_all_study_names(storage):
        return False
    study = optuna.load_study(study_name=name, storage=storage)
    if study.user_attrs.get(_SWEEP) != identity:
        raise UserError(f"{storage.url}: has a study {name} that is not of this sweep; choose another file")
    if study.user_attrs.get(_DIGEST) == digest:
        return True
    artefacts = FileSystemArtifactStore(str(folder))
    owners: list[optuna.Study | FrozenTrial] = [study, *study.get_trials(deepcopy=False)]
    for owner in owners:
        for artefact in get_all_artifact_meta(owner, storage=storage):
            try:
                artefacts.remove(artefact.artifact_id)
            except ArtifactNotFound:
                continue
    optuna.delete_study(study_name=name, storage=storage)
    return False


def _frozen(history: History, number: int, trials: Sequence[ExportedTrial], uploaded: Mapping[str, Any]) -> FrozenTrial:
    """The trial of a configuration, with its times, settings, runs and the attributes of its artefacts."""
    frozen = copy.copy(history.frozen(number))
    times = [record.time for trial in trials for record in trial.history]
    frozen.datetime_start = datetime.fromtimestamp(min(times))
    frozen.datetime_complete = datetime.fromtimestamp(max(times)) if frozen.state.is_finished() else None
    runs = [{"trial": one.summary.trial, **facts(one.summary), "metrics": dict(one.summary.metrics)} for one in trials]
    frozen.user_attrs = {**frozen.user_attrs, "settings": dict(trials[0].summary.config), "runs": runs}
    frozen.system_attrs = {**frozen.system_attrs, **uploaded}
    return frozen


def _uploaded(trials: Sequence[ExportedTrial], artefacts: FileSystemArtifactStore) -> dict[str, Any]:
    """Upload the files of the runs of a configuration; the attributes by which its trial has them.

    Optuna lets no finished trial have further artefacts, so that a trial that is thrown away gets them.
    """
    trial = optuna.create_study(storage=InMemoryStorage()).ask()
    with temporary_folder("semprior-export-") as scratch:
        for run in trials:
            for artefact in run.artefacts:
                if artefact.name not in _NOT_UPLOADED:
                    path = scratch / f"{run.summary.trial}-{artefact.name}"
                    artefact.write(path)
                    upload_artifact(artifact_store=artefacts, file_path=str(path), study_or_trial=trial)
    (holder,) = trial.study.get_trials(deepcopy=False)
    return dict(holder.system_attrs)
