"""Checkpoints, from which a run continues and a detector is deployed; loading one runs no code.

A checkpoint is a folder: weights in safetensors, arrays in npz, values in JSON, and a manifest with the SHA-256 of
each file. It is written beside its place and renamed into it, so that a kill at any moment leaves the previous one
whole. `CheckpointFolder` retains the last, the previous and the best checkpoint of a run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semprior.errors import UserError
from semprior.io.atomic_files import atomic_folder, sync_folder, write_atomically
from semprior.io.manifest import MANIFEST, file_digests, parse_manifest, require_version
from semprior.reading.files import read_bytes
from semprior.reading.json_text import parse_json, read_json
from semprior.reading.names import is_file_name
from semprior.reading.tensors import parse_arrays, parse_tensors, require_finite

if TYPE_CHECKING:  # torch is imported where weights are read or written: code that only names checkpoints does without
    from torch import Tensor

FORMAT = 2
INDEX = "index.json"
_LARGEST = 1 << 32  # bytes of a file
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
        UserError: weights are not finite; nothing is written.
        StorageError: the disk is full or not writable.
    """
    for name, tensors in snapshot.tensors.items():
        require_finite(tensors, f"{folder / name}.safetensors")
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
        UserError: the folder is not a checkpoint, is damaged, has weights that are not finite, or was written by
            another version.
    """
    digests = _read_manifest(folder)
    values = parse_json(_read(folder, "state.json", digests), dict[str, Any], str(folder / "state.json"))
    names = [name.removesuffix(".safetensors") for name in digests if name.endswith(".safetensors")]
    tensors = {}
    for name in names if files is None else files:
        file = f"{name}.safetensors"
        tensors[name] = parse_tensors(_read(folder, file, digests), str(folder / file))
    arrays = {}
    if files is None:
        arrays = parse_arrays(_read(folder, "arrays.npz", digests), str(folder / "arrays.npz"))
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
            index = read_json(path, dict[str, str])
        except UserError as error:
            raise UserError(f"{error}; name a checkpoint beside it instead") from error
        names = (*RETAINED, *((BEST_TEACHER,) if BEST_TEACHER in index else ()))
        if not all(is_file_name(index.get(which, "")) for which in names):
            raise UserError(f"{path}: is damaged; name a checkpoint beside it instead")
        return {which: index[which] for which in names}

    def path(self, which: str) -> Path:
        """The folder of ``last``, ``previous``, ``best`` or ``best-teacher``.

        Raises:
            UserError: the run has no checkpoint yet.
        """
        name = self.index().get(which)
        if name is None:
            raise UserError(f"{self.root}: holds no checkpoint yet")
        return self.root / name

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
    if (path / "checkpoints").is_dir() and (path / "config.yaml").is_file():
        command = f"semprior train --out {shlex.quote(str(path))} --resume"
        raise UserError(f"{path}: the run has no checkpoint yet; continue it with: {command}")
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
    if not path.exists():
        raise UserError(f"{folder}: is not a checkpoint (no {MANIFEST})")
    manifest = parse_manifest(read_bytes(path), str(path))
    require_version(manifest, "format", FORMAT, str(path))
    return file_digests(manifest, str(path))


def _read(folder: Path, name: str, digests: dict[str, str]) -> bytes:
    path = folder / name
    content = read_bytes(path, _LARGEST)
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
