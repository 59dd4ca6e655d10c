"""Files that appear whole or not at all, and locks that processes wait for."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np


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
