"""Folders of files that are put somewhere once, and fetched once by each machine that needs them.

A data set, or the weights of a foundation model, is pushed to an address (a shared folder, ``s3://``, ``gs://``) with a
manifest: every file's size and SHA-256. The manifest goes last, so that what is there is complete, and never changes:
another content needs another address. A machine fetches into its cache, under a lock, checks every digest and goes by
the manifest's own digest from then on; the next one who asks, or the next run, finds it there.

::

    URI/manifest.json            {"schema": 1, "kind": "data", "files": {NAME: {"size": 1, "sha256": "..."}}, ...}
    URI/NAME                     the files as they were
    CACHE/fetched/DIGEST/NAME    on a machine that has them

Both sides go on where they were cut off: a file that is there whole is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from semprior.cache import cache_folder
from semprior.data.layout import all_masked, find_layout
from semprior.errors import StorageError, UserError
from semprior.files import locked
from semprior.storage import CHUNK, Storage, checked_name, open_storage
from semprior.transfer import Transfer

MANIFEST = "manifest.json"
SCHEMA = 1
_AT_ONCE = 8  # files on their way: many are small, and each waits for an answer
Kind = Literal["data", "vfm"]
_WHAT = {"data": "a data set", "vfm": "weights of a foundation model"}
_HOW = {"data": "`semprior data push DIR {}`", "vfm": "`semprior vfm push NAME {}`"}


@dataclass(frozen=True)
class Part:
    """What a manifest says of a file.

    Attributes:
        size: in bytes.
        sha256: of its content.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What lies at an address.

    Attributes:
        kind: ``data`` or ``vfm``.
        files: by their names relative to the address.
        about: what else is known, like whether every training image of a data set has a mask.
    """

    kind: str
    files: Mapping[str, Part]
    about: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(part.size for part in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 of the content; two addresses with the same files have the same."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        """The file, byte for byte the same for the same content."""
        files = {name: {"size": part.size, "sha256": part.sha256} for name, part in sorted(self.files.items())}
        content = {"schema": SCHEMA, "kind": self.kind, "about": dict(self.about), "files": files}
        return json.dumps(content, indent=1, sort_keys=True).encode()


def is_address(place: str) -> bool:
    """Whether a place is one to fetch from, rather than a folder of this machine."""
    return "://" in place


def push(folder: Path, uri: str, kind: Kind, transfer: Transfer, **about: Any) -> bool:  # noqa: ANN401
    """Put a folder at an address.

    Args:
        folder: whose files go, hidden ones left out.
        uri: the address.
        kind: what it is.
        transfer: shows how far it is.
        about: goes into the manifest.

    Returns:
        Whether anything was sent; what is there already is not sent again.

    Raises:
        UserError: something else is there, or it cannot be written.
    """
    storage = open_storage(uri)
    paths = _files(folder)
    transfer.begin(f"reading {folder}", sum(path.stat().st_size for path in paths.values()))
    parts = {name: Part(path.stat().st_size, _digest(path, transfer)) for name, path in paths.items()}
    manifest = Manifest(kind, parts, about)
    transfer.end()
    there = _read_manifest(storage)
    if there is not None:
        if there.digest != manifest.digest:
            raise UserError(f"{uri}: something else is there already; choose another address")
        return False
    # The name of this mark says which content an earlier, unfinished push was sending: its files need not go again.
    mark = f"incomplete-{manifest.digest[:16]}"
    sent = {entry.name: entry.size for entry in storage.list(recursive=True)} if storage.exists(mark) else {}
    storage.put(mark, b"")
    left = [name for name, part in parts.items() if sent.get(name) != part.size]
    transfer.begin(f"{folder} -> {uri}", manifest.size, done=manifest.size - sum(parts[name].size for name in left))
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(lambda name: storage.put_file(name, paths[name], transfer.add), left))
    storage.put(MANIFEST, manifest.to_json())
    storage.delete(mark)
    transfer.end()
    return True


def look(uri: str, kind: Kind) -> Manifest:
    """What lies at an address; nothing is fetched.

    Raises:
        UserError: nothing does, or something else; or it cannot be reached.
    """
    manifest = _read_manifest(open_storage(uri))
    if manifest is None:
        raise UserError(f"{uri}: nothing is there; put it there with {_HOW[kind].format(uri)}")
    if manifest.kind != kind:
        raise UserError(f"{uri}: holds {_WHAT.get(manifest.kind, manifest.kind)}, not {_WHAT[kind]}")
    return manifest


def fetch(uri: str, kind: Kind, transfer: Transfer) -> Path:
    """The files of an address on this machine; fetched by one process, once, while others wait for it.

    Raises:
        UserError: as `look`; or a file is not what the manifest says, or the disk is full.
    """
    manifest = look(uri, kind)
    folder = cache_folder() / "fetched" / manifest.digest[:32]
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)

        def saying(holder: str) -> None:
            transfer.say(f"{uri}: another process fetches{holder and f' ({holder})'}")

        with locked(folder.with_name(f".{folder.name}.lock"), saying):
            if not folder.is_dir():
                partial = folder.with_name(f".{folder.name}")
                _fetch(open_storage(uri), manifest, partial, transfer)
                partial.rename(folder)
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: {error.strerror or error}") from error
    return folder


def _fetch(storage: Storage, manifest: Manifest, folder: Path, transfer: Transfer) -> None:
    have = {name for name, part in manifest.files.items() if _whole(folder / checked_name(name), part)}
    done = sum(manifest.files[name].size for name in have)
    if shutil.disk_usage(folder.parent).free < manifest.size - done:
        raise StorageError(f"{folder.parent}: too little space for {storage.uri} ({manifest.size / 1e9:.1f} GB)")
    transfer.begin(f"{storage.uri} -> this machine", manifest.size, done=done)
    left = [name for name in manifest.files if name not in have]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(lambda name: _fetch_file(storage, name, manifest.files[name], folder / name, transfer), left))
    transfer.end()


def _fetch_file(storage: Storage, name: str, part: Part, path: Path, transfer: Transfer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for piece in storage.pieces(name):
                digest.update(piece)
                file.write(piece)
                transfer.add(len(piece))
    except FileNotFoundError as error:
        raise UserError(f"{storage.uri}/{name}: is gone") from error
    if digest.hexdigest() != part.sha256:
        path.unlink()
        raise UserError(f"{storage.uri}/{name}: is damaged (its SHA-256 is not the manifest's)")


def _read_manifest(storage: Storage) -> Manifest | None:
    where = f"{storage.uri}/{MANIFEST}"
    try:
        content = json.loads(storage.read(MANIFEST))
        if content["schema"] > SCHEMA:
            raise UserError(f"{where}: was written by a newer version (schema {content['schema']}); update semprior")
        files = {checked_name(name): Part(int(part["size"]), part["sha256"]) for name, part in content["files"].items()}
        return Manifest(content["kind"], files, content["about"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: is damaged, or not of `semprior data push`") from error


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if not any(part.startswith(".") for part in name.split("/"))}


def _digest(path: Path, transfer: Transfer) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            transfer.add(len(piece))
    return digest.hexdigest()


def _whole(path: Path, part: Part) -> bool:
    if not path.is_file() or path.stat().st_size != part.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == part.sha256


def local_data(place: str | Path, console: Console | None = None) -> Path:
    """The folder of a data set: the place itself, or what was fetched from an address.

    Raises:
        UserError: as `fetch`.
    """
    if not is_address(str(place)):
        return Path(place)
    return fetch(str(place), "data", Transfer(console or Console(stderr=True)))


def push_data(folder: Path, uri: str, console: Console) -> bool:
    """Put a data set at an address; whether anything was sent.

    Raises:
        UserError: it is no data set, or as `push`.
    """
    layout = find_layout(folder)
    masks = "train" in layout.splits and all_masked(layout, "train")  # one to evaluate on may have a test split alone
    return push(folder, uri, "data", Transfer(console), masks=masks)
