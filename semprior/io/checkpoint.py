"""Checkpoints, from which a run continues and a detector is deployed; loading one runs no code.

A checkpoint is a folder: weights in safetensors, arrays in npz, values in JSON, and a manifest with the SHA-256 of
each file. It is written beside its place and renamed into it, so that a kill at any moment leaves the previous one
whole. `CheckpointFolder` retains the last, the previous and the best checkpoint of a run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from semprior.errors import UserError
from semprior.io.atomic_files import atomic_folder, sync_folder, write_atomically
from semprior.io.manifest import MANIFEST, file_digests, parse_manifest, require_version

if TYPE_CHECKING:  # torch is imported where weights are read or written: code that only names checkpoints does without
    from torch import Tensor

FORMAT = 2
INDEX = "index.json"
RETAINED = ("last", "previous", "best")
BEST_TEACHER = "best-teacher"  # retained, too, where the teacher has a best epoch of its own


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint in memory.

    Attributes:
        tensors: by file: ``student`` and ``modulator`` (evaluated weights), ``training`` (weights in training).
        arrays: by name, such as the pseudo-masks.
        values: everything that JSON can hold: the config, the position in the run, random states.
    """

    tensors: dict[str, dict[str, Tensor]]
    arrays: dict[str, np.ndarray]
    values: dict[str, Any]


def save_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint to `folder`, which appears whole or not at all; one that is there is replaced.

    Raises:
        StorageError: the disk is full or not writable.
    """
    with atomic_folder(folder, replace=True) as scratch:
        digests = {name: _write(scratch / name, content) for name, content in _files(snapshot)}
        manifest = {"format": FORMAT, "sha256": digests}
        _write(scratch / MANIFEST, json.dumps(manifest, indent=1).encode())


def load_checkpoint(folder: Path, files: Sequence[str] | None = None) -> Snapshot:
    """Read a checkpoint and check its digests.

    Args:
        folder: of the checkpoint.
        files: the tensor files to read (``student`` is enough to deploy); None reads all, and the arrays.

    Raises:
        UserError: the folder is not a checkpoint, is damaged, or was written by another version.
    """
    import safetensors.torch

    digests = _read_manifest(folder)
    values = json.loads(_read(folder, "state.json", digests))
    names = [name.removesuffix(".safetensors") for name in digests if name.endswith(".safetensors")]
    tensors = {}
    for name in names if files is None else files:
        try:
            tensors[name] = safetensors.torch.load(_read(folder, f"{name}.safetensors", digests))
        except SafetensorError as error:
            raise UserError(f"{folder / name}.safetensors: is damaged: {error}") from error
    arrays = {}
    if files is None:
        with np.load(BytesIO(_read(folder, "arrays.npz", digests)), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    return Snapshot(tensors, arrays, values)


class CheckpointFolder:
    """The checkpoints of a run: the last, the previous and the best one, and with the preset ``paper`` the teacher's.

    Args:
        root: the folder that holds them, each named for its epoch, and an index that names these.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, snapshot: Snapshot, best: bool, best_teacher: bool = False) -> Path:
        """Write a snapshot as the last checkpoint; delete those that the index no longer names.

        Args:
            snapshot: after ``snapshot.values["epoch"]`` epochs.
            best: whether it is the best one so far.
            best_teacher: whether it is the teacher's own best.

        Returns:
            The folder of the checkpoint.
        """
        index = self.index()
        name = f"epoch-{snapshot.values['epoch']:04d}"
        if name in index.values():
            # A run that was restored from here has written this epoch before, to the last bit.
            name += "-again" if f"{name}-again" not in index.values() else "-once-more"
        save_checkpoint(self.root / name, snapshot)
        index = index | {"last": name, "previous": index.get("last", name), "best": index.get("best", name)}
        if best:
            index["best"] = name
        if best_teacher:
            index[BEST_TEACHER] = name
        write_atomically(self.root / INDEX, json.dumps(index, indent=1).encode())
        sync_folder(self.root)
        self._prune(index)
        return self.root / name

    def index(self) -> dict[str, str]:
        """The folder names of ``last``, ``previous``, ``best`` and maybe ``best-teacher``; empty before the first one.

        Raises:
            UserError: the index is damaged.
        """
        path = self.root / INDEX
        if not path.exists():
            return {}
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            own = (BEST_TEACHER,) if BEST_TEACHER in index else ()
            return {which: str(index[which]) for which in (*RETAINED, *own)}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged; name a checkpoint beside it instead") from error

    def path(self, which: str) -> Path:
        """The folder of ``last``, ``previous``, ``best`` or ``best-teacher``.

        Raises:
            UserError: the run has no checkpoint yet.
        """
        name = self.index().get(which)
        if name is None:
            raise UserError(f"{self.root}: holds no checkpoint yet")
        return self.root / Path(name).name

    def _prune(self, index: dict[str, str]) -> None:
        for entry in self.root.iterdir():
            if entry.is_dir() and entry.name not in index.values():
                shutil.rmtree(entry, ignore_errors=True)


def find_checkpoint(path: Path, *, teacher: bool = False) -> Path:
    """The checkpoint that a path names: a run's folder, its ``checkpoints/best``, or a checkpoint's own folder.

    Args:
        path: of one of these.
        teacher: for a run's folder, take the teacher's own best where there is one.

    Raises:
        UserError: the path leads to no checkpoint.
    """
    if (path / MANIFEST).is_file():
        return path
    for root in (path / "checkpoints", path):
        if (root / INDEX).is_file():
            folder = CheckpointFolder(root)
            return folder.path(BEST_TEACHER if teacher and BEST_TEACHER in folder.index() else "best")
    if path.name in (*RETAINED, BEST_TEACHER) and (path.parent / INDEX).is_file():
        return CheckpointFolder(path.parent).path(path.name)
    raise UserError(f"{path}: is neither a run's folder nor a checkpoint")


def _files(snapshot: Snapshot) -> list[tuple[str, bytes]]:
    import safetensors.torch

    files = [
        (f"{name}.safetensors", safetensors.torch.save({k: t.detach().cpu().contiguous() for k, t in tensors.items()}))
        for name, tensors in snapshot.tensors.items()
    ]
    return [
        *files,
        ("arrays.npz", _npz(snapshot.arrays)),
        ("state.json", json.dumps(snapshot.values, indent=1).encode()),
    ]


def _npz(arrays: Mapping[str, Any]) -> bytes:
    packed = BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def _read_manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        manifest = parse_manifest(path.read_bytes(), str(path))
    except FileNotFoundError as error:
        raise UserError(f"{folder}: is not a checkpoint (no {MANIFEST})") from error
    require_version(manifest, "format", FORMAT, str(path))
    return file_digests(manifest, str(path))


def _read(folder: Path, name: str, digests: dict[str, str]) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != digests.get(name):
        raise UserError(f"{path}: its digest does not match the manifest; use the previous checkpoint")
    return content


def _write(path: Path, content: bytes) -> str:
    """Write a new file to the disk and return its SHA-256."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()
