"""Checkpoints of trials in the storage of a sweep: ``checkpoints/TRIAL/ATTEMPT/epoch-NNNN``.

They are checkpoint folders of semprior, identified by the SHA-256 of their manifest, which lists the SHA-256 of each
file. Each attempt writes into a folder of its own, so that attempts cannot overwrite each other's checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from semprior.errors import UserError
from semprior.io.checkpoint import MANIFEST, Snapshot, load_checkpoint, save_checkpoint
from semprior.io.storage import CHUNK, Storage
from tune.store.records import kept_checkpoints, visible
from tune.store.results_store import ResultsStore

CHECKPOINTS = "checkpoints"
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""Allowed names of a checkpoint's files, so that a manifest cannot make a pull write outside its folder."""


class DamagedCheckpointError(UserError):
    """A checkpoint is missing, or its content does not match its record."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """The address and the digest of a checkpoint.

    Attributes:
        address: path relative to the sweep.
        sha256: SHA-256 of the manifest.
    """

    address: str
    sha256: str


def put_checkpoint(storage: Storage, trial: str, attempt: int, snapshot: Snapshot) -> StoredCheckpoint:
    """Write a checkpoint of a trial. It is complete when this returns.

    Args:
        storage: the storage of the sweep.
        trial: id of the trial.
        attempt: number of the attempt that writes.
        snapshot: the training state; ``snapshot.values["epoch"]`` becomes part of the folder's name.

    Raises:
        StorageError: the storage or the local disk cannot be written.
    """
    address = f"{CHECKPOINTS}/{trial}/{attempt}/epoch-{snapshot.values['epoch']:04d}"
    if storage.local is not None:
        folder = Path(storage.path(address))
        storage.patiently(lambda: save_checkpoint(folder, snapshot))
        return StoredCheckpoint(address, _digest(folder / MANIFEST))
    with tempfile.TemporaryDirectory(prefix="semprior-checkpoint-") as scratch:
        folder = Path(scratch) / "checkpoint"
        storage.patiently(lambda: save_checkpoint(folder, snapshot))
        storage.upload(folder, address, last=(MANIFEST,))
        return StoredCheckpoint(address, _digest(folder / MANIFEST))


def get_checkpoint(storage: Storage, checkpoint: StoredCheckpoint) -> Snapshot:
    """Read a checkpoint and verify all of its files.

    Raises:
        DamagedCheckpointError: the checkpoint is missing or damaged; the previous one may be intact.
        StorageError: the storage cannot be read.
    """

    def read() -> Snapshot:
        with tempfile.TemporaryDirectory(prefix="semprior-checkpoint-") as scratch:
            folder = Path(scratch) / "checkpoint"
            fetch_checkpoint(storage, checkpoint, folder)
            return load_checkpoint(folder)

    return storage.patiently(read)


def fetch_checkpoint(storage: Storage, checkpoint: StoredCheckpoint, target: Path) -> None:
    """Copy a checkpoint into the new folder `target` and verify all of its files. Writes nothing outside of `target`.

    Raises:
        DamagedCheckpointError: the checkpoint is missing or damaged.
        StorageError: the storage cannot be read.
    """
    location = f"{storage.uri.partition('?')[0]}/{checkpoint.address}"
    try:
        manifest = storage.read(f"{checkpoint.address}/{MANIFEST}")
        if hashlib.sha256(manifest).hexdigest() != checkpoint.sha256:
            raise DamagedCheckpointError(f"{location}/{MANIFEST}: its digest differs from the recorded one")
        target.mkdir(parents=True)
        for name, digest in _file_digests(manifest, location).items():
            if _copy(storage, f"{checkpoint.address}/{name}", target / name) != digest:
                raise DamagedCheckpointError(f"{location}/{name}: its digest does not match the manifest")
        (target / MANIFEST).write_bytes(manifest)
    except FileNotFoundError as error:
        raise DamagedCheckpointError(f"{location}: is missing or incomplete") from error


def remove_checkpoint(storage: Storage, address: str) -> None:
    """Remove a checkpoint. The manifest goes first, so that a partly removed checkpoint is not taken for a whole one.

    Raises:
        UserError: the storage cannot be written.
    """
    storage.delete(f"{address}/{MANIFEST}")
    storage.delete_folder(address)


def _file_digests(manifest: bytes, location: str) -> dict[str, str]:
    try:
        digests = {str(name): str(digest) for name, digest in json.loads(manifest)["sha256"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpointError(f"{location}/{MANIFEST}: is damaged") from error
    for name in digests:
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
            raise DamagedCheckpointError(f"{location}/{MANIFEST}: {name!r} is not an allowed file name")
    return digests


def _copy(storage: Storage, name: str, target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("xb") as file:
        for piece in storage.pieces(name, CHUNK):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class SupersededError(Exception):
    """A higher attempt of the trial has started: this attempt must stop, and its further records do not count."""


def prune(store: ResultsStore, trial: str, attempt: int) -> list[str]:
    """Remove the checkpoints of a trial, including those of lower attempts, that need not be kept any longer.

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
    return removed


def _stored(store: ResultsStore, trial: str, attempt: int) -> dict[str, int]:
    """The addresses of all checkpoints of this attempt and lower ones, each with its attempt."""
    found: dict[str, int] = {}
    for entry in store.storage.list(f"{CHECKPOINTS}/{trial}"):
        number = entry.name.rpartition("/")[2]
        if entry.folder and number.isdecimal() and int(number) <= attempt:
            found |= {inner.name: int(number) for inner in store.storage.list(entry.name) if inner.folder}
    return found
