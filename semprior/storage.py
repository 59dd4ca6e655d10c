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

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from semprior.errors import UserError
from semprior.files import umask, write_atomically

CHUNK = 8 << 20  # bytes that a transfer holds
TIMEOUT = 10.0  # seconds for a connection, and for a silence on it
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


@dataclass(frozen=True)
class Storage:
    """A folder on some filesystem.

    Attributes:
        uri: its address.
        filesystem: that holds it.
        root: its path there.
    """

    uri: str
    filesystem: FileSystem
    root: str

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
        return Storage(join_uri(self.uri, name), self.filesystem, self.path(name))

    def put(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all; folders above it are made.

        Raises:
            UserError: no rights, no bucket, no connection, a full disk.
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
            UserError: as `put`.
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
            UserError: as `put`.
        """
        if self.exists(name):
            raise FileExistsError(name)
        if self.local is None:
            self.put(name, content)
            return
        path = Path(self.path(name))
        scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
        with self._explained(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(scratch, content)
            try:
                os.link(scratch, path)  # unlike a rename, it fails where something is
            finally:
                scratch.unlink()

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: it is not there.
            UserError: no rights, no bucket, no connection.
        """
        with self._explained(name), self.filesystem.open_input_file(self.path(name)) as file:
            return file.read()

    def pieces(self, name: str, size: int = CHUNK) -> Iterator[bytes]:
        """A file's content, piece after piece.

        Raises:
            FileNotFoundError: it is not there.
            UserError: as `read`.
        """
        with self._explained(name), self.filesystem.open_input_stream(self.path(name)) as stream:
            while piece := stream.read(size):
                yield piece

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of this name is there.

        Raises:
            UserError: as `read`.
        """
        with self._explained(name):
            return self.filesystem.get_file_info(self.path(name)).type != FileType.NotFound

    def list(self, folder: str = "", *, recursive: bool = False) -> list[Entry]:
        """What is in a folder, in the order of the names; nothing where there is none. Hidden files are left out.

        Raises:
            UserError: as `read`.
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

    def delete(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            UserError: as `put`.
        """
        try:
            with self._explained(name):
                self.filesystem.delete_file(self.path(name))
        except FileNotFoundError:
            return

    def delete_folder(self, name: str) -> None:
        """Remove a folder and all in it, if it is there.

        Raises:
            UserError: as `put`.
        """
        try:
            with self._explained(name):
                self.filesystem.delete_dir(self.path(name))
        except FileNotFoundError:
            return

    def upload(self, source: Path, name: str, *, last: Sequence[str] = ()) -> None:
        """Copy a folder of this machine to a new folder of the storage.

        In a folder of this machine it appears whole. In a bucket its files appear one by one, those named in `last`
        at the end, so that a reader who looks for these first finds all or nothing.

        Raises:
            UserError: as `put`.
        """
        target = self.path(name)
        if self.local is not None:
            with self._explained(name):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                scratch = Path(tempfile.mkdtemp(prefix=f".{Path(target).name}-", dir=Path(target).parent))
                try:
                    shutil.copytree(source, scratch, dirs_exist_ok=True)
                    scratch.chmod(0o777 & ~umask())
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

    def download(self, name: str, target: Path) -> None:
        """Copy a folder of the storage into `target`, which is made; nothing is written outside it.

        Raises:
            FileNotFoundError: it is not there.
            UserError: as `read`; or a name in it leads out of the folder.
        """
        files = [entry for entry in self.list(name, recursive=True) if not entry.folder]
        if not files:
            raise FileNotFoundError(f"{self.uri}/{name}")
        for entry in files:
            inside = target / checked_name(entry.name.removeprefix(f"{name}/"))
            inside.parent.mkdir(parents=True, exist_ok=True)
            with inside.open("xb") as file:
                file.writelines(self.pieces(entry.name))

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError):
            raise
        except (OSError, pa.ArrowException) as error:
            place = f"{self.uri.partition('?')[0]}/{name}" if name else self.uri.partition("?")[0]
            raise UserError(f"{place}: {explain(error)}") from error


def open_storage(uri: str | Path) -> Storage:
    """The storage at an address; nothing is read or made yet.

    Raises:
        UserError: the address is not understood.
    """
    text = str(uri)
    if "://" not in text:
        path = Path(text).expanduser().absolute()
        return Storage(str(path), LocalFileSystem(), os.path.normpath(path))
    parts = urlsplit(text)
    try:
        if parts.scheme == "file":
            path = os.path.normpath(unquote(parts.path))
            return Storage(path, LocalFileSystem(), path)
        if parts.username or parts.password:
            raise UserError(f"{parts.scheme}://: keys do not belong into an address; AWS_ACCESS_KEY_ID and the like do")
        if parts.scheme == "s3":
            return Storage(text, _s3(text), f"{parts.netloc}/{unquote(parts.path).strip('/')}".rstrip("/"))
        filesystem, root = FileSystem.from_uri(text)
        return Storage(text, filesystem, root.rstrip("/"))
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


def _s3(uri: str) -> FileSystem:
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
