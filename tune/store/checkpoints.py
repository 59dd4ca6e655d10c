"""Checkpoints of trials in the storage of a sweep: ``checkpoints/TRIAL/ATTEMPT/epoch-NNNN``; what of a trial is kept.

Those of the short runs before a trial (`semprior.training.crossfit`) lie in ``crossfit/TRIAL/ATTEMPT/epoch-NNNN`` until
the trial has an epoch of its own. No record names them, so that they are listed.

Checkpoints are checkpoint folders of semprior, identified by the SHA-256 of their manifest, which lists the SHA-256 of
each file. Each attempt writes into a folder of its own, so that attempts cannot overwrite each other's checkpoints.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semprior.io.checkpoint import Snapshot, load_checkpoint, save_checkpoint
from semprior.io.manifest import MANIFEST, DamagedError, download, file_digests, parse_manifest, sha256_of
from semprior.io.storage import Storage
from semprior.io.temporary_folders import temporary_folder
from tune.store.records import IMAGE_SUMS, Record, kept_checkpoints, kept_images, visible
from tune.store.results_store import ResultsStore

CHECKPOINTS = "checkpoints"
SHORT_RUNS = "crossfit"
_KEPT_SHORT = 2  # checkpoints of short runs: the last one, and the one before, should it be damaged


@dataclass(frozen=True)
class StoredCheckpoint:
    """The address and the digest of a checkpoint.

    Attributes:
        address: path relative to the sweep.
        sha256: SHA-256 of the manifest.
    """

    address: str
    sha256: str


def put_checkpoint(
    storage: Storage, trial: str, attempt: int, snapshot: Snapshot, folder_of: str = CHECKPOINTS
) -> StoredCheckpoint:
    """Write a checkpoint of a trial. It is complete when this returns.

    Args:
        storage: the storage of the sweep.
        trial: id of the trial.
        attempt: number of the attempt that writes.
        snapshot: the training state; ``snapshot.values["epoch"]`` becomes part of the folder's name.
        folder_of: `CHECKPOINTS`, or `SHORT_RUNS` for the state of a short run.

    Raises:
        StorageError: the storage or the local disk cannot be written.
    """
    address = f"{folder_of}/{trial}/{attempt}/epoch-{snapshot.values['epoch']:04d}"
    if storage.local is not None:
        folder = Path(storage.path(address))
        storage.retry(lambda: save_checkpoint(folder, snapshot))
        return StoredCheckpoint(address, sha256_of(folder / MANIFEST))
    with temporary_folder("semprior-checkpoint-") as scratch:
        folder = scratch / "checkpoint"
        storage.retry(lambda: save_checkpoint(folder, snapshot))
        storage.upload(folder, address, last=(MANIFEST,))
        return StoredCheckpoint(address, sha256_of(folder / MANIFEST))


def get_checkpoint(storage: Storage, checkpoint: StoredCheckpoint) -> Snapshot:
    """Read a checkpoint and verify all of its files.

    Raises:
        DamagedError: the checkpoint is missing or damaged; the previous one may be intact.
        StorageError: the storage cannot be read.
    """

    def read() -> Snapshot:
        with temporary_folder("semprior-checkpoint-") as scratch:
            folder = scratch / "checkpoint"
            fetch_checkpoint(storage, checkpoint, folder)
            return load_checkpoint(folder)

    return storage.retry(read)


def fetch_checkpoint(storage: Storage, checkpoint: StoredCheckpoint, target: Path) -> None:
    """Copy a checkpoint into the new folder `target` and verify all of its files. Writes nothing outside of `target`.

    Raises:
        DamagedError: it is not there, or damaged.
        StorageError: the storage cannot be read.
    """
    place = f"{storage.uri.partition('?')[0]}/{checkpoint.address}"
    where = f"{place}/{MANIFEST}"
    try:
        manifest = storage.read(f"{checkpoint.address}/{MANIFEST}")
        if hashlib.sha256(manifest).hexdigest() != checkpoint.sha256:
            raise DamagedError(f"{where}: its digest is not the one recorded")
        target.mkdir(parents=True)
        for name, digest in file_digests(parse_manifest(manifest, where), where).items():
            download(storage, f"{checkpoint.address}/{name}", target / name, digest)
        (target / MANIFEST).write_bytes(manifest)
    except FileNotFoundError as error:
        raise DamagedError(f"{place}: is not there, or not whole") from error


def remove_checkpoint(storage: Storage, address: str) -> None:
    """Remove a checkpoint. The manifest goes first, so that a partly removed checkpoint is not taken for a whole one.

    Raises:
        UserError: the storage cannot be written.
    """
    storage.delete(f"{address}/{MANIFEST}")
    storage.delete_folder(address)


def short_checkpoints(storage: Storage, trial: str) -> list[StoredCheckpoint]:
    """The checkpoints of the short runs before a trial, the newest first: of the last attempt, at the last epoch.

    Raises:
        StorageError: the storage cannot be read.
    """
    found: list[tuple[int, int, StoredCheckpoint]] = []
    for folder in storage.list(f"{SHORT_RUNS}/{trial}"):
        attempt = folder.name.rpartition("/")[2]
        if not folder.is_folder or not attempt.isdecimal():
            continue
        for entry in storage.list(folder.name):
            epoch = entry.name.rpartition("/epoch-")[2]
            if not epoch.isdecimal():
                continue
            try:
                digest = hashlib.sha256(storage.read(f"{entry.name}/{MANIFEST}")).hexdigest()
            except FileNotFoundError:  # it is being written, or removed
                continue
            found.append((int(attempt), int(epoch), StoredCheckpoint(entry.name, digest)))
    return [checkpoint for _, _, checkpoint in sorted(found, key=lambda one: one[:2], reverse=True)]


def put_short_checkpoint(storage: Storage, trial: str, attempt: int, snapshot: Snapshot) -> None:
    """Write a checkpoint of the short runs before a trial, and remove those that it makes superfluous.

    Raises:
        StorageError: the storage or the local disk cannot be written.
    """
    put_checkpoint(storage, trial, attempt, snapshot, SHORT_RUNS)
    for checkpoint in short_checkpoints(storage, trial)[_KEPT_SHORT:]:
        remove_checkpoint(storage, checkpoint.address)


def remove_short_checkpoints(storage: Storage, trial: str) -> None:
    """Remove what the short runs before a trial left, once the trial has an epoch of its own.

    Raises:
        StorageError: the storage cannot be written.
    """
    if storage.exists(f"{SHORT_RUNS}/{trial}"):
        storage.delete_folder(f"{SHORT_RUNS}/{trial}")


class SupersededError(Exception):
    """A higher attempt of the trial has started: this attempt must stop, and its further records do not count."""


def prune(store: ResultsStore, trial: str, attempt: int) -> list[str]:
    """Remove checkpoints and terms by image of a trial, also of lower attempts, that need not be kept any longer.

    Rank 0 of the trial calls this after each record that it appends, and so does the process that appends the end.

    Args:
        store: the store of the sweep.
        trial: id of the trial.
        attempt: number of the attempt that calls.

    Returns:
        The addresses of the removed checkpoints.

    Raises:
        SupersededError: a higher attempt has started; nothing was removed.
        UserError: the storage cannot be read or written.
    """
    records = store.records([trial]).get(trial, [])
    if any(record.attempt > attempt for record in records):
        raise SupersededError(f"trial {trial}: attempt {attempt} was superseded by a higher one")
    history = visible(records)
    kept = kept_checkpoints(history)
    stored = _stored(store, trial, attempt)
    if not any(record.kind == "end" for record in history):
        recorded = {record.checkpoint for record in records}
        kept |= {address for address, n in stored.items() if n == attempt and address not in recorded}  # being written
    removed = [address for address in stored if address not in kept]
    for address in removed:
        remove_checkpoint(store.storage, address)
    _prune_images(store, trial, attempt, records)
    if store.storage.local is not None:
        _remove_cut_off(Path(store.storage.path(f"{CHECKPOINTS}/{trial}")), attempt)
    return removed


def _prune_images(store: ResultsStore, trial: str, attempt: int, records: Sequence[Record]) -> None:
    """Remove the terms by image of this attempt and lower ones that need not be kept."""
    history = visible(records)
    kept, recorded = kept_images(history), {record.images_address for record in records}
    ended = any(record.kind == "end" for record in history)
    for entry in store.storage.list(f"{IMAGE_SUMS}/{trial}"):
        number = entry.name.rpartition("/")[2].partition("-")[0]
        if not number.isdecimal() or int(number) > attempt or entry.name in kept:
            continue
        being_written = not ended and int(number) == attempt and entry.name not in recorded
        if not being_written:
            store.storage.delete(entry.name)


def _remove_cut_off(folder: Path, attempt: int) -> None:
    """Remove the hidden folders in which lower attempts of a trial were writing checkpoints when they were killed."""
    for cut_off in folder.glob("*/.epoch-*"):
        if cut_off.parent.name.isdecimal() and int(cut_off.parent.name) < attempt:
            shutil.rmtree(cut_off, ignore_errors=True)


def _stored(store: ResultsStore, trial: str, attempt: int) -> dict[str, int]:
    """The addresses of all checkpoints of this attempt and lower ones, each with its attempt."""
    found: dict[str, int] = {}
    for entry in store.storage.list(f"{CHECKPOINTS}/{trial}"):
        number = entry.name.rpartition("/")[2]
        if entry.is_folder and number.isdecimal() and int(number) <= attempt:
            found |= {inner.name: int(number) for inner in store.storage.list(entry.name) if inner.is_folder}
    return found
