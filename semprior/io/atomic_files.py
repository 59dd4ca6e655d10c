"""Files that appear whole or not at all, and locks that processes wait for."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from semprior.errors import StorageError, UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it into it, so that a kill at any moment leaves the old one whole.

    Raises:
        OSError: the disk is full, or the folder cannot be written; names the file.
    """
    with naming(path):
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                os.fchmod(file.fileno(), 0o666 & ~umask())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        finally:
            Path(scratch).unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within the context an error of the disk names `path`; that of a write to an open file names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within the context this process alone holds the lock that a file stands for; it is made, and stays.

    Args:
        path: of the file.
        waiting: called if another process holds the lock, which is waited for.
    """
    with path.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def umask() -> int:
    """The process's file mode mask."""
    current = os.umask(0)
    os.umask(current)
    return current


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Fill a hidden folder beside a new one; at the end it takes its name, on any exception it goes.

    Args:
        folder: that does not exist; folders above it are made.

    Raises:
        UserError: it exists.
        StorageError: it cannot be made, or the disk is full.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists already; move it away or choose another place")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield partial
            partial.chmod(0o777 & ~umask())
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror})") from error
