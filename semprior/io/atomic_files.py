"""Files and folders that appear whole or not at all, and locks that processes wait for.

Some file systems (of networks, containers, memory cards) lack locks, hard links or permissions. Each of these has a
replacement here, which all machines that use the same folder agree on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock

from semprior.errors import StorageError, UserError
from semprior.reading.files import only_regular

_NOT_SUPPORTED = frozenset(
    {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENOLCK, errno.EMLINK, errno.EXDEV}
)
"""The errors by which a file system refuses an operation that it lacks."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it, so that a kill at any moment leaves the old or the new one whole.

    Raises:
        OSError: the disk is full, or the folder cannot be written; the error names the file.
    """
    with naming(path):
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                usual_rights(scratch, 0o666)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        finally:
            Path(scratch).unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An `OSError` of the block names `path`; that of a write to an open file names no file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path, on_wait: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Hold an exclusive lock on a file during the block; the file is created and stays.

    If the file system has no locks, a second file beside it, ``.NAME.held``, exists while the lock is held. It names
    its process; if that process died on the same machine, the lock is free.

    Args:
        path: of the file.
        on_wait: called before waiting for another process that holds the lock, with a description of the process, or
            an empty text if it is unknown.

    Raises:
        OSError: the file cannot be created; the error names it.
    """
    with ExitStack() as stack:
        with naming(path):
            handle = stack.enter_context(open(path, "ab", opener=only_regular))
        if not _flock(handle.fileno(), path, on_wait):
            stack.enter_context(_soft_lock(path.with_name(f".{path.name}.held"), on_wait))
        yield


def _flock(handle: int, path: Path, on_wait: Callable[[str], None]) -> bool:
    """Lock an open file; return False if the file system has no locks."""
    for operation in (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX):
        try:
            fcntl.flock(handle, operation)
            return True
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                return False
            raise OSError(error.errno, error.strerror, str(path)) from error
        on_wait("")
    raise AssertionError("the second call blocks until it succeeds")


@contextmanager
def _soft_lock(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    lock = filelock.SoftFileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        on_wait(
            f"process {lock.pid or 'of an unknown number'}, see {path}, which may be deleted if that process is gone"
        )
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def put_if_absent(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet, whole or not at all; of several processes only one succeeds.

    Raises:
        FileExistsError: the file exists.
        OSError: the disk is full, or the folder cannot be written; the error names the file.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        scratch = Path(folder) / path.name
        write_atomically(scratch, content)
        try:
            os.link(scratch, path)  # unlike a rename, it fails if the file exists
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise OSError(error.errno, error.strerror, str(path)) from error
            with locked(path.with_name(f".{path.name}.lock")):
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
                os.replace(scratch, path)


def usual_rights(path: str | Path, mode: int) -> None:
    """Give a temporary file or folder the usual permissions, if the file system has permissions.

    Args:
        path: of the file or folder.
        mode: the permissions before the process's umask is applied.
    """
    try:
        os.chmod(path, mode & ~umask())
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, if the file system supports it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(handle)


def umask() -> int:
    """The umask of this process."""
    current = os.umask(0)
    os.umask(current)
    return current


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to; the file written there replaces `path` at the end of the block.

    If the block raises, `path` is unchanged. For content that is in memory, use `write_atomically`.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        scratch = Path(folder) / path.name
        yield scratch
        os.replace(scratch, path)


@contextmanager
def atomic_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields a hidden folder beside `folder` to fill; it takes that name at the end of the block.

    If the block raises, the hidden folder is removed. Folders above it are created. The names in the folder are on the
    disk when this returns; their contents are if the block has flushed them.

    Args:
        folder: to create.
        replace: whether a folder of this name is removed first.

    Raises:
        UserError: the folder exists and may not be replaced.
        StorageError: the folder cannot be written, or the disk is full.
    """
    if not replace and folder.exists():
        raise UserError(f"{folder}: exists already; move it away or choose another place")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield scratch
            usual_rights(scratch, 0o777)
            sync_folder(scratch)
            if replace and folder.exists():
                shutil.rmtree(folder)
            os.replace(scratch, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror or error})") from error
