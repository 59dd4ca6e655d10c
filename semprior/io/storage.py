"""Storage of data sets, weights and sweeps: a folder or a bucket, behind one small set of operations.

An address is a path (``./runs``, ``file:///data/runs``), ``s3://BUCKET/PATH``, ``gs://BUCKET/PATH``, or any other that
pyarrow knows. Files appear whole or not at all: they are written beside their place and renamed into it, or, in a
bucket, sent by one upload.

The keys of S3 come from where AWS tools take them, never from the address. The variable ``AWS_ENDPOINT_URL_S3`` or
``AWS_ENDPOINT_URL`` names a server other than Amazon's, and so does
``s3://BUCKET/PATH?endpoint_override=http://HOST:PORT``; for ``gs://``, only ``?endpoint_override=`` does.

Example::

    storage = open_storage("s3://sweeps/demo")
    storage.put("sweep.json", b"{}")
    [entry.name for entry in storage.list()]
"""

from __future__ import annotations

import errno
import functools
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from semprior.errors import StorageError, UserError
from semprior.io.atomic_files import atomic_folder, put_if_absent, write_atomically
from semprior.reading.files import NOT_REGULAR, only_regular
from semprior.reading.names import checked_name

P = ParamSpec("P")
T = TypeVar("T")
CHUNK = 8 << 20  # bytes of a file that a transfer holds in memory
TIMEOUT = 10.0  # seconds to connect to S3; three times as long for a response
PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between two attempts of an operation
OBJECT_STORES = ("s3", "gcs", "abfs")  # an upload becomes visible when it is complete, so that no rename is needed


@dataclass(frozen=True)
class Entry:
    """A file or folder in a listing.

    Attributes:
        name: relative to the storage.
        size: in bytes; 0 for a folder.
        modified: when it was last written; None if the storage does not tell.
        is_folder: whether it is a folder.
    """

    name: str
    size: int
    modified: datetime | None
    is_folder: bool


def _retried(operation: Callable[Concatenate[Storage, P], T]) -> Callable[Concatenate[Storage, P], T]:
    @functools.wraps(operation)
    def with_retries(self: Storage, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.retry(lambda: operation(self, *args, **kwargs))

    return with_retries


@dataclass(frozen=True)
class Storage:
    """A folder on a filesystem.

    Attributes:
        uri: its address.
        filesystem: that holds it.
        root: its path on the filesystem.
        patience: seconds for which an operation that fails is retried before it raises.
    """

    uri: str
    filesystem: FileSystem
    root: str
    patience: float = 0.0

    @property
    def local(self) -> Path | None:
        """The folder, if it is on this machine; else None."""
        return Path(self.root) if isinstance(self.filesystem, LocalFileSystem) else None

    def path(self, name: str) -> str:
        """The path of a name on the filesystem.

        Raises:
            UserError: the name leads out of the storage.
        """
        return f"{self.root}/{checked_name(name)}" if name else self.root

    def child(self, name: str) -> Storage:
        """The storage of a folder inside this one."""
        return replace(self, uri=join_uri(self.uri, name), root=self.path(name))

    @_retried
    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; folders above it are created.

        Raises:
            StorageError: access is denied, the bucket does not exist, there is no connection, or the disk is full.
        """
        if self.local is None:
            with self._new_file(name) as stream:
                stream.write(content)
            return
        path = Path(self.path(name))
        with self._explained(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)

    def put_file(self, name: str, source: Path, progress: Callable[[int], None] = lambda count: None) -> None:
        """Copy a file of this machine in chunks, whole or not at all; folders above it are created.

        Args:
            name: of the copy.
            source: the file.
            progress: called with the number of bytes of each chunk.

        Raises:
            StorageError: as `put`.
        """
        with open(source, "rb", opener=only_regular) as file, self._new_file(name) as stream:
            while chunk := file.read(CHUNK):
                stream.write(chunk)
                progress(len(chunk))

    @contextmanager
    def _new_file(self, name: str) -> Iterator[pa.NativeFile]:
        """Yields a stream; what was written to it is the file's content when the block ends without an exception."""
        path = self.path(name)
        folder, _, last = path.rpartition("/")
        direct = self.filesystem.type_name in OBJECT_STORES
        target = path if direct else f"{folder}/.{last}-{uuid.uuid4().hex}"
        with self._explained(name):
            if not direct:
                self.filesystem.create_dir(folder, recursive=True)
            with self.filesystem.open_output_stream(target) as stream:
                yield stream
            if not direct:
                self.filesystem.move(target, path)

    def create(self, name: str, content: bytes) -> None:
        """Write a file that must not exist yet.

        In a folder of this machine only one of several processes can succeed. In a bucket a lookup precedes the upload:
        two processes that look at the same moment may both succeed, and the later one's content stays.

        Raises:
            FileExistsError: the file exists.
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

    @_retried
    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: access is denied, the bucket does not exist, or there is no connection.
        """
        with self._explained(name), self.open_file(name) as file:
            return bytes(file.read())

    def open_file(self, name: str) -> pa.NativeFile:
        """Open a file for reading.

        Raises:
            OSError: there is no such file, or it is a FIFO or a device, which might keep its reader waiting for ever.
        """
        self._refuse_irregular(name)
        return self.filesystem.open_input_file(self.path(name))

    def _refuse_irregular(self, name: str) -> None:
        path = self.path(name)
        if self.local is not None and not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.ENXIO, NOT_REGULAR, path)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of a file, at most `CHUNK` bytes at a time.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: as `read`.
        """
        with self._explained(name):
            self._refuse_irregular(name)
        with self._explained(name), self.filesystem.open_input_stream(self.path(name)) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    @_retried
    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of this name.

        Raises:
            StorageError: as `read`.
        """
        with self._explained(name):
            return bool(self.filesystem.get_file_info(self.path(name)).type != FileType.NotFound)

    @_retried
    def list(self, folder: str = "", *, recursive: bool = False) -> list[Entry]:
        """The content of a folder without hidden files, sorted by name; empty if there is no such folder.

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

    @_retried
    def delete(self, name: str) -> None:
        """Delete a file, if it exists.

        Raises:
            StorageError: as `put`.
        """
        try:
            with self._explained(name):
                self.filesystem.delete_file(self.path(name))
        except FileNotFoundError:
            return

    @_retried
    def delete_folder(self, name: str) -> None:
        """Delete a folder with its content, if it exists.

        Raises:
            StorageError: as `put`.
        """
        try:
            with self._explained(name):
                self.filesystem.delete_dir(self.path(name))
        except FileNotFoundError:
            return

    @_retried
    def upload(self, source: Path, name: str, *, last: Sequence[str] = ()) -> None:
        """Copy a folder of this machine to a new folder of the storage.

        On this machine the copy appears whole. In a bucket its files appear one by one, those named in `last` at the
        end: a reader who looks for these first finds a complete folder or none.

        Raises:
            StorageError: as `put`.
        """
        if self.local is not None:
            with atomic_folder(Path(self.path(name))) as scratch:
                shutil.copytree(source, scratch, dirs_exist_ok=True)
            return
        files = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*")) if path.is_file()}
        for inside in sorted(files, key=lambda inside: inside in last):
            self.put_file(f"{name}/{inside}", files[inside])

    def retry(self, operation: Callable[[], T]) -> T:
        """The result of `operation`, which is repeated while it raises a `StorageError` and the patience lasts.

        The operation must be one that may run twice, as all of a storage but `create`, `put_file` and `chunks` are.
        """
        until, pause = time.monotonic() + self.patience, PAUSE
        while True:
            try:
                return operation()
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
            place = "/".join([self.uri.partition("?")[0], *([name] if name else [])])
            raise StorageError(f"{place}: {explain(error)}") from error


def open_storage(uri: str | Path, patience: float = 0.0) -> Storage:
    """The storage at an address; nothing is read or created yet.

    Args:
        uri: the address.
        patience: seconds for which an operation that fails is retried.

    Raises:
        UserError: the address is not understood.
    """
    text = str(uri)
    if re.match(r"(file|s3|gs|gcs|abfs):(?!//)", text, re.IGNORECASE):
        raise UserError(
            f"{text}: write {text.partition(':')[0]}:// for an address, or ./{text} for a folder of this name"
        )
    if "://" not in text:
        folder = Path(text).expanduser().absolute()
        return Storage(str(folder), LocalFileSystem(), os.path.normpath(folder), patience)
    try:
        parts = urlsplit(text)
        if parts.username or parts.password:
            raise UserError(
                f"{parts.scheme}://: keys do not belong in an address; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if parts.fragment or re.search(r"[\x00-\x1f\x7f]", text):  # `urlsplit` would name another place without them
            raise UserError(f"{text}: '#' and control characters do not belong in an address; write %23, %09 and so on")
        if parts.scheme == "file":
            if parts.netloc not in ("", "localhost") or not parts.path or parts.query:
                raise UserError(f"{text}: names no folder of this machine; write file:///FOLDER, or the folder itself")
            path = os.path.normpath(unquote(parts.path))
            return Storage(path, LocalFileSystem(), path, patience)
        if parts.scheme == "s3":
            root = f"{parts.netloc}/{unquote(parts.path).strip('/')}".rstrip("/")
            return Storage(text, s3_filesystem(text), root, patience)
        filesystem, root = FileSystem.from_uri(text)
        return Storage(text, filesystem, root.rstrip("/"), patience)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{text}: {explain(error)}") from error


def join_uri(uri: str | Path, *names: str) -> str:
    """The address of a name inside a storage: ``s3://bucket/runs/demo?region=x`` of ``demo``."""
    head, mark, query = str(uri).partition("?") if "://" in str(uri) else (str(uri), "", "")
    return "/".join([head.rstrip("/"), *names]) + mark + query


def explain(error: Exception) -> str:
    """The fault of a storage in one line, with the way out where it is known."""
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


def s3_filesystem(uri: str) -> FileSystem:
    """The filesystem of ``s3://BUCKET/PATH?QUERY``. Only the region of a bucket at Amazon takes a request.

    Raises:
        UserError: the address names no bucket, or its query has an unknown key.
        OSError: the region cannot be looked up.
    """
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    parts = urlsplit(uri)
    if not parts.netloc:
        raise UserError(f"{uri}: names no bucket; write s3://BUCKET/PATH")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    unknown = query.keys() - {"endpoint_override", "region", "scheme", "anonymous"}
    if unknown:
        raise UserError(f"{uri}: '{sorted(unknown)[0]}' is not understood; endpoint_override, region, scheme are")
    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    endpoint = query.get("endpoint_override") or next((os.environ[v] for v in variables if os.environ.get(v)), "")
    scheme, mark, host = endpoint.partition("://")
    region = query.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        region = "us-east-1" if endpoint else resolve_s3_region(parts.netloc)
    return S3FileSystem(
        region=region,
        anonymous=query.get("anonymous", "").lower() in ("1", "true"),
        scheme=query.get("scheme") or (scheme if mark else "https"),
        endpoint_override=(host if mark else endpoint).rstrip("/") or None,
        background_writes=False,
        connect_timeout=TIMEOUT,
        request_timeout=TIMEOUT * 3,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=4),
        allow_delayed_open=True,  # a small file is one request
    )
