"""Temporary folders that name their owner by a lock, so that those of killed processes can be told and removed.

A process that is killed leaves its temporary folders. Whether a folder is in use is not told by its age, nor by the
number of a process, which another one may have by now: its owner holds a lock on a file in it, which ends with the
owner, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIXES = ("semprior-", "st-")
"""The beginnings of the names of these folders; the second where a path has to be short."""
_OWNER = ".owner"


@contextmanager
def temporary_folder(prefix: str, parent: str | Path | None = None) -> Iterator[Path]:
    """Yields a new folder, which is removed at the end of the block.

    Args:
        prefix: beginning of its name, which begins with one of `PREFIXES`.
        parent: folder to create it in; None for the user's folder for temporary files.
    """
    if not prefix.startswith(PREFIXES):
        raise ValueError(f"{prefix}: must begin with one of {', '.join(PREFIXES)}")
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    handle = -1
    try:
        handle = os.open(folder / f"{_OWNER}-new", os.O_RDWR | os.O_CREAT, 0o600)
        with contextlib.suppress(OSError):  # without locks, nobody removes the folder of a killed process
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(folder / f"{_OWNER}-new", folder / _OWNER)  # it is never seen without its lock
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


def clear_stale_folders(*parents: str) -> list[Path]:
    """Remove this user's temporary folders whose owners have ended.

    Args:
        parents: folders to look in, besides the user's folder for temporary files.

    Returns:
        The removed folders.
    """
    removed = []
    for parent in {tempfile.gettempdir(), *parents}:
        with contextlib.suppress(OSError):  # a folder that is not there
            for entry in os.scandir(parent):
                if entry.name.startswith(PREFIXES) and _is_stale(Path(entry.path)):
                    shutil.rmtree(entry.path, ignore_errors=True)
                    removed.append(Path(entry.path))
    return removed


def _is_stale(folder: Path) -> bool:
    """Whether a folder is one of this user's whose owner has ended."""
    try:
        if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
            return False
        handle = os.open(folder / _OWNER, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:  # it is none of these folders, or is being made or removed
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
