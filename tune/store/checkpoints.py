"""Checkpoints of trials in the storage of a sweep: ``checkpoints/TRIAL/ATTEMPT/epoch-NNNN``.

They are semprior's own checkpoint folders, told apart by the SHA-256 of their manifest, which holds that of each file.
Every attempt writes under its own number, so that none can overwrite what another one has written.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from semprior.io.checkpoint import Snapshot, load_checkpoint, save_checkpoint
from semprior.io.manifest import MANIFEST, DamagedError, download, file_digests, parse_manifest, sha256_of
from semprior.io.storage import Storage
from tune.store.records import visible
from tune.store.results_store import ResultsStore
from tune.store.retention import kept_checkpoints

FOLDER = "checkpoints"


@dataclass(frozen=True)
class StoredCheckpoint:
    """Where a checkpoint is, and which one it is.

    Attributes:
        address: relative to the sweep.
        sha256: of its manifest.
    """

    address: str
    sha256: str


def put_checkpoint(storage: Storage, trial: str, attempt: int, snapshot: Snapshot) -> StoredCheckpoint:
    """Write a checkpoint of a trial; it is there, whole, when this returns.

    Args:
        storage: of the sweep.
        trial: its id.
        attempt: that writes.
        snapshot: after ``snapshot.values["epoch"]`` epochs, which give the folder its name.

    Raises:
        StorageError: the storage, or the disk, cannot be written.
    """
    address = f"{FOLDER}/{trial}/{attempt}/epoch-{snapshot.values['epoch']:04d}"
    if storage.local is not None:
        folder = Path(storage.path(address))
        storage.retry(lambda: save_checkpoint(folder, snapshot))
        return StoredCheckpoint(address, sha256_of(folder / MANIFEST))
    with tempfile.TemporaryDirectory(prefix="semprior-checkpoint-") as scratch:
        folder = Path(scratch) / "checkpoint"
        storage.retry(lambda: save_checkpoint(folder, snapshot))
        storage.upload(folder, address, last=(MANIFEST,))
        return StoredCheckpoint(address, sha256_of(folder / MANIFEST))


def get_checkpoint(storage: Storage, checkpoint: StoredCheckpoint) -> Snapshot:
    """Read a checkpoint, every byte of it checked.

    Raises:
        DamagedError: it is not there, or damaged; the one before may do.
        StorageError: the storage cannot be read.
    """

    def fetched() -> Snapshot:
        with tempfile.TemporaryDirectory(prefix="semprior-checkpoint-") as scratch:
            folder = Path(scratch) / "checkpoint"
            fetch_checkpoint(storage, checkpoint, folder)
            return load_checkpoint(folder)

    return storage.retry(fetched)


def fetch_checkpoint(storage: Storage, checkpoint: StoredCheckpoint, target: Path) -> None:
    """Copy a checkpoint into the new folder `target`, every byte of it checked; nothing is written outside.

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
    """Remove a checkpoint, its manifest first, so that what a kill leaves of it is not taken for one.

    Raises:
        UserError: the storage cannot be written.
    """
    storage.delete(f"{address}/{MANIFEST}")
    storage.delete_folder(address)


class SupersededError(Exception):
    """A higher attempt of the trial has started; this one has to stop, and what it writes no longer counts."""


def prune(store: ResultsStore, trial: str, attempt: int) -> list[str]:
    """Remove the checkpoints of a trial that are no longer kept; what lower attempts left behind, too.

    To be called when a record has been appended: by the trial's rank 0, and by whoever appends an end.

    Args:
        store: of the sweep.
        trial: its id.
        attempt: of the caller.

    Returns:
        The addresses that were removed.

    Raises:
        SupersededError: a higher attempt has started; nothing was removed.
        UserError: the storage cannot be read or written.
    """
    records = store.records([trial]).get(trial, [])
    if any(record.attempt > attempt for record in records):
        raise SupersededError(f"trial {trial}: attempt {attempt} was followed by another")
    history = visible(records)
    kept = kept_checkpoints(history)
    stored = _stored(store, trial, attempt)
    if not any(record.kind == "end" for record in history):
        told = {record.checkpoint for record in records}
        kept |= {address for address, of in stored.items() if of == attempt and address not in told}  # being written
    removed = [address for address in stored if address not in kept]
    for address in removed:
        remove_checkpoint(store.storage, address)
    return removed


def _stored(store: ResultsStore, trial: str, attempt: int) -> dict[str, int]:
    """Addresses of all checkpoints of this attempt and lower ones, and the attempt of each."""
    found = {}
    for entry in store.storage.list(f"{FOLDER}/{trial}"):
        number = entry.name.rpartition("/")[2]
        if entry.is_folder and number.isdecimal() and int(number) <= attempt:
            found |= {inner.name: int(number) for inner in store.storage.list(entry.name) if inner.is_folder}
    return found
