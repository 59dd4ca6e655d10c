"""Arrays that are made once on a machine and mapped by every process that needs them.

What depends on the data and a few settings alone (decoded images, seeds, statistics) is the same for every run of a
sweep. The first run that needs it makes it, under a lock; the others wait and then map the same pages of memory::

    CACHE/shelf/KEY/NAME.npy

A key names everything that the arrays depend on, the code that makes them included, so nothing is ever out of date;
what is no longer used may be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from semprior.data.folders import appearing

Arrays = Mapping[str, np.ndarray]


def shelved(cache: Path | None, key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays of a key, read-only where they were on the shelf.

    Args:
        cache: folder of what may be shared; none: make them, and keep nothing.
        key: from `key_of`.
        make: makes them, each of at least one element or kept as none at all.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    if cache is None:
        return make()
    folder = cache / "shelf" / key
    found = _mapped(folder)
    if found is not None:
        return found
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{key}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _mapped(folder)
        if found is not None:
            return found
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        made = make()
        with appearing(folder) as partial:
            for name, array in made.items():
                np.save(partial / f"{name}.npy", array, allow_pickle=False)
        return made


def key_of(parts: Iterable[object], code: Iterable[Path] = ()) -> str:
    """A name for what depends on `parts`, told by their texts, and on the content of the files `code`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\0".encode())
    for path in code:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:40]


def _mapped(folder: Path) -> Arrays | None:
    """What lies in a folder; none if there is none, or a file of it is not what was written."""
    if not folder.is_dir():
        return None
    try:
        return {
            path.stem: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            for path in sorted(folder.glob("*.npy"))
        }
    except (OSError, ValueError, EOFError):
        return None


def pack(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Arrays of one type, end to end."""
    held = [np.ascontiguousarray(array).reshape(-1) for array in arrays]
    return np.concatenate(held) if held else np.zeros(0, np.uint8)


def unpack(flat: np.ndarray, shapes: Iterable[tuple[int, ...]]) -> list[np.ndarray]:
    """What `pack` packed, as views."""
    found, start = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        found.append(flat[start : start + size].reshape(shape))
        start += size
    return found
