"""Data sets and weights at an address: pushed there once, fetched once by each machine that needs them.

A folder is pushed to an address (a shared folder, ``s3://``, ``gs://``) together with a manifest of every file's size
and SHA-256. The manifest is sent last, so that an address with a manifest is complete, and it never changes: other
content needs another address. A machine fetches the files into its cache, under a lock, and checks every digest. The
cached folder is named for the manifest's own digest, under which later runs find it.

::

    URI/manifest.json            {"schema": 1, "kind": "data", "files": {NAME: {"size": 1, "sha256": "..."}}, ...}
    URI/NAME                     the files
    CACHE/fetched/DIGEST/NAME    the files on a machine that has fetched them

A push or fetch that was cut off continues where it stopped: a file that has arrived whole is not sent again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from semprior.errors import StorageError, UserError
from semprior.io.atomic_files import locked
from semprior.io.cache_folder import cache_folder
from semprior.io.manifest import MANIFEST, download, parse_manifest, require_version, sha256_of
from semprior.io.storage import Storage, open_storage
from semprior.io.transfer_progress import Transfer
from semprior.reading.names import checked_name
from semprior.reading.schema import checked

SCHEMA = 1
_AT_ONCE = 8  # files in transfer: many are small, and each waits for a response
ContentKind = Literal["data", "vfm"]
_CONTENTS = {"data": "a data set", "vfm": "weights of a foundation model"}
_PUSH_COMMANDS = {"data": "`semprior data push DIR {}`", "vfm": "`semprior vfm push NAME {}`"}


@dataclass(frozen=True)
class ManifestEntry:
    """A file in a manifest.

    Attributes:
        size: in bytes.
        sha256: of its content.
    """

    size: int
    sha256: str


class _Stored(TypedDict):
    kind: str
    files: dict[str, ManifestEntry]
    about: dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """The content of an address.

    Attributes:
        kind: ``data`` or ``vfm``.
        files: by their names relative to the address.
        about: further facts, such as whether every training image of a data set has a mask.
    """

    kind: str
    files: Mapping[str, ManifestEntry]
    about: Mapping[str, object]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest; addresses with the same files have the same digest."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        """The content of the manifest's file; equal manifests give equal bytes."""
        files = {name: {"size": entry.size, "sha256": entry.sha256} for name, entry in sorted(self.files.items())}
        content = {"schema": SCHEMA, "kind": self.kind, "about": dict(self.about), "files": files}
        return json.dumps(content, indent=1, sort_keys=True).encode()


def is_address(place: str) -> bool:
    """Whether a place is an address to fetch from, rather than a folder of this machine."""
    return "://" in place


def push(folder: Path, uri: str, kind: ContentKind, transfer: Transfer, **about: object) -> bool:
    """Copy a folder to an address.

    Args:
        folder: to copy, without its hidden files.
        uri: the address.
        kind: what the folder holds.
        transfer: shows the progress.
        about: further entries of the manifest.

    Returns:
        Whether anything was sent; the same content is not sent again.

    Raises:
        UserError: as `files_to_push`; or the address holds other content, or cannot be written.
    """
    storage = open_storage(uri)
    paths = files_to_push(folder)
    transfer.begin(f"reading {folder}", sum(path.stat().st_size for path in paths.values()))
    entries = {name: ManifestEntry(path.stat().st_size, sha256_of(path, transfer.add)) for name, path in paths.items()}
    manifest = Manifest(kind, entries, about)
    transfer.end()
    present = _read_manifest(storage)
    if present is not None:
        if present.digest != manifest.digest:
            raise UserError(f"{uri}: something else is there already; choose another address")
        return False
    # The name of this mark says which content an earlier, unfinished push was sending: its files need not go again.
    mark = f"incomplete-{manifest.digest[:16]}"
    sent = {entry.name: entry.size for entry in storage.list(recursive=True)} if storage.exists(mark) else {}
    storage.put(mark, b"")
    missing = [name for name, entry in entries.items() if sent.get(name) != entry.size]
    missing_size = sum(entries[name].size for name in missing)
    transfer.begin(f"{folder} -> {uri}", manifest.size, done=manifest.size - missing_size)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(lambda name: storage.put_file(name, paths[name], transfer.add), missing))
    storage.put(MANIFEST, manifest.to_json())
    storage.delete(mark)
    transfer.end()
    return True


def read_manifest(uri: str, kind: ContentKind) -> Manifest:
    """The manifest at an address; nothing else is fetched.

    Raises:
        UserError: the address holds nothing, or content of another kind, or cannot be reached.
    """
    manifest = _read_manifest(open_storage(uri))
    if manifest is None:
        raise UserError(f"{uri}: nothing is there; put it there with {_PUSH_COMMANDS[kind].format(uri)}")
    if manifest.kind != kind:
        raise UserError(f"{uri}: holds {_CONTENTS.get(manifest.kind, manifest.kind)}, not {_CONTENTS[kind]}")
    return manifest


def fetch(uri: str, kind: ContentKind, transfer: Transfer) -> Path:
    """The folder of this machine that has the files of an address; one process fetches them while others wait.

    Raises:
        UserError: as `read_manifest`; or a file does not match the manifest, or the disk is full.
    """
    manifest = read_manifest(uri, kind)
    folder = cache_folder() / "fetched" / manifest.digest[:32]
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)

        def on_wait(holder: str) -> None:
            transfer.say(f"{uri}: another process fetches{holder and f' ({holder})'}")

        with locked(folder.with_name(f".{folder.name}.lock"), on_wait):
            if not folder.is_dir():
                partial = folder.with_name(f".{folder.name}")  # a fixed name: the next fetch continues in it
                _fetch_missing(open_storage(uri), manifest, partial, transfer)
                partial.rename(folder)
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: {error.strerror or error}") from error
    return folder


def _fetch_missing(storage: Storage, manifest: Manifest, folder: Path, transfer: Transfer) -> None:
    present = {name for name, entry in manifest.files.items() if _matches(folder / checked_name(name), entry)}
    done = sum(manifest.files[name].size for name in present)
    if shutil.disk_usage(folder.parent).free < manifest.size - done:
        raise StorageError(f"{folder.parent}: too little space for {storage.uri} ({manifest.size / 1e9:.1f} GB)")
    transfer.begin(f"{storage.uri} -> this machine", manifest.size, done=done)
    missing = [name for name in manifest.files if name not in present]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(lambda name: _fetch_file(storage, name, manifest, folder / name, transfer), missing))
    transfer.end()


def _fetch_file(storage: Storage, name: str, manifest: Manifest, path: Path, transfer: Transfer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download(storage, name, path, manifest.files[name].sha256, transfer.add)
    except FileNotFoundError as error:
        raise UserError(f"{storage.uri}/{name}: is missing") from error


def _read_manifest(storage: Storage) -> Manifest | None:
    place = f"{storage.uri}/{MANIFEST}"
    try:
        content = parse_manifest(storage.read(MANIFEST), place)
        require_version(content, "schema", SCHEMA, place)
    except FileNotFoundError:
        return None
    try:
        stored = checked(content, _Stored, place)
    except UserError as error:
        raise UserError(f"{error}; it is damaged, or was not written by `semprior data push`") from error
    if any(entry.size < 0 for entry in stored["files"].values()):
        raise UserError(f"{place}: is damaged; a file cannot have less than 0 bytes")
    return Manifest(stored["kind"], {checked_name(name): e for name, e in stored["files"].items()}, stored["about"])


def files_to_push(folder: Path) -> dict[str, Path]:
    """The files of a folder by their names relative to it, without hidden ones.

    Raises:
        UserError: there is no such folder; or something in it is neither a file nor a folder, or is a link that leads
            out of the folder, whose content nobody meant to publish.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    inside, found = folder.resolve(), {}
    for parent, folders, names in os.walk(folder):  # which does not follow links to folders
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (name for name in (*folders, *names) if not name.startswith(".")):
            path = Path(parent, name)
            if path.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(inside)):
                raise UserError(
                    f"{path}: is a link to {os.readlink(path)}; only links to files of {folder} are pushed, so put the"
                    " content itself there"
                )
            if not path.is_dir():
                if not path.is_file():
                    raise UserError(f"{path}: is neither a file nor a folder")
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def _matches(path: Path, entry: ManifestEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
