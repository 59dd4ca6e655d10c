"""Where data sets, weights and sweeps are kept: a folder, or a bucket, behind one small set of operations.

An address is a path (``./runs``, ``file:///data/runs``), ``s3://BUCKET/PATH``, ``gs://BUCKET/PATH``, or any other that
pyarrow knows. Files appear whole or not at all: written beside their place and renamed into it, or, in a bucket, by
one upload. Nothing here changes a file that is there.

S3 takes its keys from where AWS tools take them, never from the address. A server other than Amazon's is named by the
variable ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, or by ``s3://BUCKET/PATH?endpoint_override=http://HOST:PORT``;
for ``gs://``, by ``?endpoint_override=``.

Example::

    storage = open_storage("s3://sweeps/demo")
    storage.put("sweep.json", b"{}")
    [entry.name for entry in storage.list()]
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from semprior.errors import StorageError, UserError
from semprior.files import put_if_absent, usual_rights, write_atomically
from semprior.s3 import s3_filesystem

P, T = ParamSpec("P"), TypeVar("T")
CHUNK = 8 << 20  # bytes that a transfer holds
PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two tries of a patient storage
OBJECT_STORES = ("s3", "gcs", "abfs")  # an upload there is seen when it is complete, so that nothing need be renamed


@dataclass(frozen=True)
class Entry:
    """What a listing says of a file or folder.

    Attributes:
        name: relative to the storage.
        size: in bytes; 0 for a folder.
        changed: when it was last written; none where the storage does not say.
        folder: whether it is one.
    """

    name: str
    size: int
    changed: datetime | None
    folder: bool


def _patient(operation: Callable[Concatenate[Storage, P], T]) -> Callable[Concatenate[Storage, P], T]:
    @functools.wraps(operation)
    def tried(self: Storage, *given: P.args, **named: P.kwargs) -> T:
        return self.patiently(lambda: operation(self, *given, **named))

    return tried


@dataclass(frozen=True)
class Storage:
    """A folder on some filesystem.

    Attributes:
        uri: its address.
        filesystem: that holds it.
        root: its path there.
        patience: seconds for which an operation that fails is tried again, before it raises.
    """

    uri: str
    filesystem: FileSystem
    root: str
    patience: float = 0.0

    @property
    def local(self) -> Path | None:
        """The folder, where it is one of this machine's."""
        return Path(self.root) if isinstance(self.filesystem, LocalFileSystem) else None

    def path(self, name: str) -> str:
        """A name's path on the filesystem.

        Raises:
            UserError: the name leads out of the storage.
        """
        return f"{self.root}/{checked_name(name)}" if name else self.root

    def child(self, name: str) -> Storage:
        """A folder in this one."""
        return replace(self, uri=join_uri(self.uri, name), root=self.path(name))

    @_patient
    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; folders above it are made.

        Raises:
            StorageError: no rights, no bucket, no connection, a full disk.
        """
        path = self.path(name)
        with self._explained(name):
            if self.local is not None:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(Path(path), content)
            elif self.filesystem.type_name in OBJECT_STORES:
                with self.filesystem.open_output_stream(path) as stream:
                    stream.write(content)
            else:
                self.filesystem.create_dir(path.rpartition("/")[0], recursive=True)
                scratch = f"{path.rpartition('/')[0]}/.{uuid.uuid4().hex}"
                with self.filesystem.open_output_stream(scratch) as stream:
                    stream.write(content)
                self.filesystem.move(scratch, path)

    def put_file(self, name: str, source: Path, sent: Callable[[int], None]) -> None:
        """Copy a file of this machine, whole or not at all, piece after piece; folders above it are made.

        Args:
            name: it gets.
            source: the file.
            sent: is told the bytes of each piece.

        Raises:
            StorageError: as `put`.
        """
        path = self.path(name)
        folder, _, last = path.rpartition("/")
        direct = self.filesystem.type_name in OBJECT_STORES
        target = path if direct else f"{folder}/.{last}-{uuid.uuid4().hex}"
        with self._explained(name):
            if not direct:
                self.filesystem.create_dir(folder, recursive=True)
            with source.open("rb") as file, self.filesystem.open_output_stream(target) as stream:
                while piece := file.read(CHUNK):
                    stream.write(piece)
                    sent(len(piece))
            if not direct:
                self.filesystem.move(target, path)

    def create(self, name: str, content: bytes) -> None:
        """Write a file that must not be there yet.

        In a folder of this machine only one of several processes can succeed. In a bucket that is looked up before:
        two that ask within the same moment may both succeed, and the later one's content stays.

        Raises:
            FileExistsError: it is there.
            StorageError: as `put`.
        """
        if self.exists(name):
            raise FileExistsError(name)
        if self.local is None:
            self.put(name, content)
            return
        path = Path(self.path(name))
        with self._explained(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            put_if_absent(path, content)

    @_patient
    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: no rights, no bucket, no connection.
        """
        with self._explained(name), self.filesystem.open_input_file(self.path(name)) as file:
            return file.read()

    def pieces(self, name: str, size: int = CHUNK) -> Iterator[bytes]:
        """A file's content, piece after piece.

        Raises:
            FileNotFoundError: it is not there.
            StorageError: as `read`.
        """
        with self._explained(name), self.filesystem.open_input_stream(self.path(name)) as stream:
            while piece := stream.read(size):
                yield piece

    @_patient
    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of this name is there.

        Raises:
            StorageError: as `read`.
        """
        with self._explained(name):
            return self.filesystem.get_file_info(self.path(name)).type != FileType.NotFound

    @_patient
    def list(self, folder: str = "", *, recursive: bool = False) -> list[Entry]:
        """What is in a folder, in the order of the names; nothing where there is none. Hidden files are left out.

        Raises:
            StorageError: as `read`.
        """
        selector = FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        with self._explained(folder):
            found = self.filesystem.get_file_info(selector)
        start = len(self.root) + 1
        entries = [
            Entry(info.path[start:], info.size or 0, info.mtime, info.type == FileType.Directory)
            for info in found
            if not info.base_name.startswith(".")
        ]
        return sorted(entries, key=lambda entry: entry.name)

    @_patient
    def delete(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            StorageError: as `put`.
        """
        try:
            with self._explained(name):
                self.filesystem.delete_file(self.path(name))
        except FileNotFoundError:
            return

    @_patient
    def delete_folder(self, name: str) -> None:
        """Remove a folder and all in it, if it is there.

        Raises:
            StorageError: as `put`.
        """
        try:
            with self._explained(name):
                self.filesystem.delete_dir(self.path(name))
        except FileNotFoundError:
            return

    @_patient
    def upload(self, source: Path, name: str, *, last: Sequence[str] = ()) -> None:
        """Copy a folder of this machine to a new folder of the storage.

        In a folder of this machine it appears whole. In a bucket its files appear one by one, those named in `last`
        at the end, so that a reader who looks for these first finds all or nothing.

        Raises:
            StorageError: as `put`.
        """
        target = self.path(name)
        if self.local is not None:
            with self._explained(name):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                scratch = Path(tempfile.mkdtemp(prefix=f".{Path(target).name}-", dir=Path(target).parent))
                try:
                    shutil.copytree(source, scratch, dirs_exist_ok=True)
                    usual_rights(scratch, 0o777)
                    scratch.rename(target)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
            return
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        for path in sorted(files, key=lambda path: path.relative_to(source).as_posix() in last):
            with self._explained(name), path.open("rb") as file:
                inside = f"{target}/{path.relative_to(source).as_posix()}"
                if self.filesystem.type_name not in OBJECT_STORES:
                    self.filesystem.create_dir(inside.rpartition("/")[0], recursive=True)
                with self.filesystem.open_output_stream(inside) as stream:
                    shutil.copyfileobj(file, stream, CHUNK)

    def patiently(self, do: Callable[[], T]) -> T:
        """What `do` returns; while it raises a `StorageError` it is done again, as long as the patience lasts.

        For work that may be done twice, as all operations of a storage but `create`, `put_file` and `pieces` are.
        """
        until, pause = time.monotonic() + self.patience, PAUSE
        while True:
            try:
                return do()
            except StorageError:
                if time.monotonic() >= until:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except (OSError, pa.ArrowException) as error:
            place = f"{self.uri.partition('?')[0]}/{name}" if name else self.uri.partition("?")[0]
            raise StorageError(f"{place}: {explain(error)}") from error


def open_storage(uri: str | Path, patience: float = 0.0) -> Storage:
    """The storage at an address; nothing is read or made yet.

    Args:
        uri: its address.
        patience: of the storage, in seconds.

    Raises:
        UserError: the address is not understood.
    """
    text = str(uri)
    if "://" not in text:
        path = Path(text).expanduser().absolute()
        return Storage(str(path), LocalFileSystem(), os.path.normpath(path), patience)
    parts = urlsplit(text)
    try:
        if parts.scheme == "file":
            path = os.path.normpath(unquote(parts.path))
            return Storage(path, LocalFileSystem(), path, patience)
        if parts.username or parts.password:
            raise UserError(f"{parts.scheme}://: keys do not belong into an address; AWS_ACCESS_KEY_ID and the like do")
        if parts.scheme == "s3":
            return Storage(
                text, s3_filesystem(text), f"{parts.netloc}/{unquote(parts.path).strip('/')}".rstrip("/"), patience
            )
        filesystem, root = FileSystem.from_uri(text)
        return Storage(text, filesystem, root.rstrip("/"), patience)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{text}: {explain(error)}") from error


def join_uri(uri: str | Path, *names: str) -> str:
    """The address of something inside a storage: ``s3://bucket/runs?region=x`` and ``demo``."""
    head, mark, query = str(uri).partition("?") if "://" in str(uri) else (str(uri), "", "")
    return "/".join([head.rstrip("/"), *names]) + mark + query


def checked_name(name: str) -> str:
    """A relative name that stays inside; ``a/b``.

    Raises:
        UserError: it is absolute, empty, climbs, or holds what no name of ours has.
    """
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", name):
        raise UserError(f"{name!r}: is not a name inside a storage")
    return name


def explain(error: Exception) -> str:
    """What went wrong with a storage, in one line and in words that help."""
    text = " ".join(str(error).split())
    for pattern, words in REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return words
    if isinstance(error, OSError) and error.strerror and "AWS" not in text:
        return error.strerror
    return text or type(error).__name__


REASONS = (
    (r"NO_SUCH_BUCKET|bucket does not exist", "there is no such bucket; make it first, or name another"),
    (
        r"ACCESS_DENIED|Access ?Denied|FORBIDDEN|HTTP status 403|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH",
        "access is denied; check the keys (AWS_ACCESS_KEY_ID, AWS_PROFILE, or the machine's role) and their rights",
    ),
    (
        r"NETWORK_CONNECTION|curlCode|could ?n.t connect|could not resolve|timed? ?out",
        "the server cannot be reached; check AWS_ENDPOINT_URL, the address and the network",
    ),
    (r"No space left|Disk quota", "the disk is full"),
)
