"""Files that appear whole or not at all, and locks that processes wait for.

Not every file system can do all that Linux can: those of networks, of containers and of memory cards lack locks, hard
links or rights. Each has its replacement here, which every machine that uses the same folder comes to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import filelock
import numpy as np

_NOT_SUPPORTED = frozenset(
    {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENOLCK, errno.EMLINK, errno.EXDEV}
)
"""What file systems answer to what they cannot do."""


def encode_png(picture: np.ndarray) -> bytes:
    """A picture as PNG: (H,W) uint8 grey or (H,W,3) uint8 RGB."""
    flipped = picture if picture.ndim == 2 else picture[..., ::-1]
    fine, encoded = cv2.imencode(".png", np.ascontiguousarray(flipped))
    if not fine:
        raise ValueError(f"a picture of {picture.shape} {picture.dtype} cannot be written as PNG")
    return encoded.tobytes()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it into it, so that a kill at any moment leaves the old one whole.

    Raises:
        OSError: the disk is full, or the folder cannot be written; names the file.
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
    """Within the context an error of the disk names `path`; that of a write to an open file names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def locked(path: Path, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Within the context this process alone holds the lock that a file stands for; it is made, and stays.

    Where the file system has no locks, a second file beside it, ``.NAME.held``, is there for as long as the lock is
    held. It names its process; if that one died on the same machine, the lock is free.

    Args:
        path: of the file.
        waiting: called if another process holds the lock, with its name as far as that is known (else nothing), before
            it is waited for.

    Raises:
        OSError: the file cannot be made; names it.
    """
    with ExitStack() as held:
        with naming(path):
            handle = held.enter_context(path.open("ab"))
        if not _flock(handle.fileno(), path, waiting):
            held.enter_context(_marked(path.with_name(f".{path.name}.held"), waiting))
        yield


def _flock(handle: int, path: Path, waiting: Callable[[str], None]) -> bool:
    """Lock an open file; whether the file system can."""
    for how in (fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX):
        try:
            fcntl.flock(handle, how)
            return True
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                return False
            raise OSError(error.errno, error.strerror, str(path)) from error
        waiting("")
    raise AssertionError("the second call waits")


@contextmanager
def _marked(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    lock = filelock.SoftFileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        waiting(
            f"process {lock.pid or 'of an unknown number'}, see {path}, which can be deleted if that process is gone"
        )
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()


def put_if_absent(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet, whole; of several processes only one succeeds.

    Raises:
        FileExistsError: it is there.
        OSError: the disk is full, or the folder cannot be written; names the file.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        scratch = Path(folder) / path.name
        write_atomically(scratch, content)
        try:
            os.link(scratch, path)  # unlike a rename, it fails where something is
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
    """Give a file or folder that was made for its owner alone the rights of any other, if the file system has rights.

    Args:
        path: of it.
        mode: before the process's mask is taken off.
    """
    try:
        os.chmod(path, mode & ~umask())
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the file system knows of such."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(handle)


def umask() -> int:
    """The process's file mode mask."""
    current = os.umask(0)
    os.umask(current)
    return current
