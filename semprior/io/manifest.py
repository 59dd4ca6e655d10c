"""Folders of files with a manifest, ``manifest.json``, that names the SHA-256 of every file.

The manifest is written last and removed first, so that a folder with a manifest is whole. Checkpoints and pushed data
sets are such folders; `semprior.io.checkpoint` and `semprior.io.push_fetch` add further entries to their manifests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semprior.errors import UserError
from semprior.reading.files import only_regular
from semprior.reading.json_text import parse_json
from semprior.reading.schema import checked, shown

if TYPE_CHECKING:  # pyarrow is imported where a storage is opened: a checkpoint on this machine does without
    from semprior.io.storage import Storage

MANIFEST = "manifest.json"
_CHUNK = 8 << 20  # bytes that are read at a time
CHECKPOINT_FILES = frozenset(
    {"student.safetensors", "modulator.safetensors", "training.safetensors", "arrays.npz", "state.json"}
)
"""The files of a checkpoint beside its manifest. No other is fetched: a module, say, would run where it lies."""

Progress = Callable[[int], None]
"""Called with the number of bytes of each chunk that was read or copied."""


class DamagedError(UserError):
    """A manifest or a file that it lists is missing or was changed."""


def parse_manifest(content: bytes, place: str) -> dict[str, Any]:
    """The manifest in `content`, which was read from `place`.

    Raises:
        DamagedError: it is not a JSON object.
    """
    try:
        return parse_json(content, dict[str, Any], place)
    except UserError as error:
        raise DamagedError(_as_damage(error)) from error


def require_version(manifest: Mapping[str, Any], key: str, supported: int, place: str) -> None:
    """Refuse a manifest of another version than the one that this code writes.

    Raises:
        DamagedError: it has no version.
        UserError: it was written by another version of semprior.
    """
    version = manifest.get(key)
    if type(version) is not int:
        raise DamagedError(f"{place}: is damaged")
    if version > supported:
        raise UserError(f"{place}: was written by a newer version ({key} {shown(version)}); upgrade semprior")
    if version < supported:
        raise UserError(f"{place}: was written by an older version ({key} {version}), which this one cannot read")


def file_digests(manifest: Mapping[str, Any], place: str) -> dict[str, str]:
    """The SHA-256 of each file of a checkpoint, by name.

    Raises:
        DamagedError: the manifest has no digests, or lists a file that checkpoints do not have.
    """
    try:
        digests = checked(manifest.get("sha256"), dict[str, str], f"{place}: sha256")
    except UserError as error:
        raise DamagedError(_as_damage(error)) from error
    for name in digests:
        if name not in CHECKPOINT_FILES:
            raise DamagedError(f"{place}: {shown(name)} is not the name of a checkpoint's file")
    return digests


def _as_damage(error: UserError) -> str:
    return str(error) if "is damaged" in str(error) else f"{error}: the file is damaged"


def sha256_of(path: Path, progress: Progress = lambda count: None) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=only_regular) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def download(storage: Storage, name: str, target: Path, sha256: str, progress: Progress = lambda count: None) -> None:
    """Copy a file of a storage to this machine and check its content; a damaged copy is deleted.

    Raises:
        FileNotFoundError: the storage has no such file.
        DamagedError: its SHA-256 is another one.
        StorageError: the storage cannot be read.
    """
    digest = hashlib.sha256()
    with open(target, "wb", opener=only_regular) as file:
        for chunk in storage.chunks(name):
            digest.update(chunk)
            file.write(chunk)
            progress(len(chunk))
    if digest.hexdigest() != sha256:
        target.unlink()
        place = f"{storage.uri.partition('?')[0]}/{name}"
        raise DamagedError(f"{place}: is damaged; its digest does not match the manifest")
