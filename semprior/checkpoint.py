"""What a run needs to go on and a detector to be deployed, stored so that loading it runs no code.

A checkpoint is a folder: weights in safetensors, arrays in npz, values in JSON, and a manifest with the SHA-256 of
each. It is written beside its place and renamed into it, so that a kill at any moment leaves the previous one whole.
`CheckpointFolder` keeps the last, the one before and the best of a run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from semprior.errors import StorageError, UserError
from semprior.files import sync_folder, usual_rights, write_atomically

if TYPE_CHECKING:  # it is imported where weights are read or written: who names checkpoints does without
    from torch import Tensor

FORMAT = 2  # 1 stored every pseudo-mask as an array of its own; it is still read
MANIFEST, INDEX = "manifest.json", "index.json"
KEPT = ("last", "previous", "best")


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint in memory.

    Attributes:
        tensors: by file: ``student`` and ``modulator`` (what is evaluated), ``training`` (what is trained).
        arrays: pseudo-masks and the like.
        values: everything that JSON can hold: the config, the position, random states.
    """

    tensors: dict[str, dict[str, Tensor]]
    arrays: dict[str, np.ndarray]
    values: dict[str, Any]


def save_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint to `folder`, which appears whole or not at all.

    Raises:
        StorageError: the disk is full or not writable.
    """
    scratch = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        digests = {name: _write(scratch / name, content) for name, content in _files(snapshot)}
        manifest = {"format": FORMAT, "sha256": digests}
        _write(scratch / MANIFEST, json.dumps(manifest, indent=1).encode())
        usual_rights(scratch, 0o777)
        sync_folder(scratch)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(scratch, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise StorageError(f"{folder}: the checkpoint could not be written: {error.strerror or error}") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def load_checkpoint(folder: Path, files: Sequence[str] | None = None) -> Snapshot:
    """Read a checkpoint, or only some of its tensor files (`student` is enough to deploy); the digests are checked.

    Raises:
        UserError: not a checkpoint, damaged, or written by a newer version.
    """
    import safetensors.torch

    digests = _manifest(folder)
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
    """The checkpoints of a run: the last, the one before, and the best.

    Args:
        root: the folder that holds them, each under the name of its epoch, and an index that names the three.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, snapshot: Snapshot, best: bool) -> Path:
        """Write a snapshot as the last one and, if so, as the best; drop what is no longer named."""
        index = self.index()
        name = f"epoch-{snapshot.values['epoch']:04d}"
        if name in index.values():
            # a run that was restored from here wrote it already, to the last bit
            name += "-again" if f"{name}-again" not in index.values() else "-once-more"
        save_checkpoint(self.root / name, snapshot)
        index = {"last": name, "previous": index.get("last", name), "best": index.get("best", name)}
        if best:
            index["best"] = name
        write_atomically(self.root / INDEX, json.dumps(index, indent=1).encode())
        sync_folder(self.root)
        self._prune(index)
        return self.root / name

    def index(self) -> dict[str, str]:
        """Folder names of ``last``, ``previous`` and ``best``; empty before the first.

        Raises:
            UserError: the index is damaged.
        """
        path = self.root / INDEX
        if not path.exists():
            return {}
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            return {which: str(index[which]) for which in KEPT}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged; name a checkpoint beside it instead") from error

    def path(self, which: str) -> Path:
        """The folder of ``last``, ``previous`` or ``best``.

        Raises:
            UserError: there is none yet.
        """
        name = self.index().get(which)
        if name is None:
            raise UserError(f"{self.root}: holds no checkpoint yet")
        return self.root / Path(name).name

    def _prune(self, index: dict[str, str]) -> None:
        for entry in self.root.iterdir():
            if entry.is_dir() and entry.name not in index.values():
                shutil.rmtree(entry, ignore_errors=True)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a user means by a run's folder, its ``checkpoints/best``, or a checkpoint's own folder.

    Raises:
        UserError: there is none.
    """
    if (path / MANIFEST).is_file():
        return path
    if (path / "checkpoints" / INDEX).is_file():
        return CheckpointFolder(path / "checkpoints").path("best")
    if (path / INDEX).is_file():
        return CheckpointFolder(path).path("best")
    if path.name in KEPT and (path.parent / INDEX).is_file():
        return CheckpointFolder(path.parent).path(path.name)
    raise UserError(f"{path}: is neither a run's folder nor a checkpoint")


def _files(snapshot: Snapshot) -> list[tuple[str, bytes]]:
    import safetensors.torch

    files = [
        (f"{name}.safetensors", safetensors.torch.save({k: t.detach().cpu().contiguous() for k, t in held.items()}))
        for name, held in snapshot.tensors.items()
    ]
    packed = BytesIO()
    np.savez(packed, **snapshot.arrays)
    return [*files, ("arrays.npz", packed.getvalue()), ("state.json", json.dumps(snapshot.values, indent=1).encode())]


def _manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        digests, version = dict(manifest["sha256"]), int(manifest["format"])
    except FileNotFoundError as error:
        raise UserError(f"{folder}: is not a checkpoint (no {MANIFEST})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged") from error
    if version > FORMAT:
        raise UserError(f"{path}: was written by a newer version (format {version}); upgrade semprior")
    return digests


def _read(folder: Path, name: str, digests: dict[str, str]) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != digests.get(name):
        raise UserError(f"{path}: its digest does not match the manifest; use the checkpoint before it")
    return content


def _write(path: Path, content: bytes) -> str:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()
