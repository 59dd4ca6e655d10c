"""Arrays that are made once on a machine and mapped by every process that needs them.

What depends on the data and a few settings alone (decoded images, seeds, statistics) is the same for every run of a
sweep. The first run that needs it makes it, under a lock; the others wait and then map the same pages of memory::

    CACHE/shelf/KEY/NAME.npy

They are written as they are made and mapped from where they lie, also by the run that made them and where nothing is
shared: however many images there are, none of them has to fit into memory.

A key names everything that the arrays depend on, the code that makes them included, so nothing is ever out of date;
what is no longer used may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from semprior.data.folders import appearing
from semprior.errors import UserError
from semprior.files import locked

Arrays = Mapping[str, np.ndarray]


def shelved(cache: Path | None, key: str, make: Callable[[], Iterable[Arrays]]) -> Arrays:
    """The arrays of a key, mapped read-only.

    Args:
        cache: folder of what may be shared; none: make them, and keep them for as long as they are used.
        key: from `key_of`.
        make: gives them in parts; those of one name are laid end to end, along their first axis.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="semprior-") as scratch:
            return _kept(Path(scratch) / "shelf", make)  # what is mapped stays after its name is gone
    folder = cache / "shelf" / key
    found = _mapped(folder)
    if found is not None:
        return found
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{key}.lock"):
        found = _mapped(folder)
        if found is not None:
            return found
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        return _kept(folder, make)


def key_of(parts: Iterable[object], code: Iterable[Path] = ()) -> str:
    """A name for what depends on `parts`, told by their texts, and on the content of the files `code`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\0".encode(errors="surrogateescape"))
    for path in code:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:40]


def _kept(folder: Path, make: Callable[[], Iterable[Arrays]]) -> Arrays:
    """Make the arrays in a new folder, and map them."""
    with appearing(folder) as partial:
        _write(partial, make())
    found = _mapped(folder)
    if found is None:
        raise UserError(f"{folder}: what was just written there cannot be read")
    return found


def _write(folder: Path, parts: Iterable[Arrays]) -> None:
    """Write parts as they come, ``NAME.npy`` for each name."""
    files: dict[str, BinaryIO] = {}
    lengths: dict[str, int] = {}
    shapes: dict[str, np.ndarray] = {}  # an array of each name, for its type and its other axes
    with ExitStack() as opened:
        for part in parts:
            for name, array in part.items():
                if name not in files:
                    files[name] = opened.enter_context((folder / f"{name}.npy").open("wb"))
                    lengths[name], shapes[name] = 0, array[:0]
                    _write_header(files[name], shapes[name], 0)
                files[name].write(np.ascontiguousarray(array, shapes[name].dtype).data)
                lengths[name] += len(array)
        for name, file in files.items():
            file.seek(0)
            _write_header(file, shapes[name], lengths[name])  # numpy leaves room for the length to grow


def _write_header(file: BinaryIO, like: np.ndarray, length: int) -> None:
    header = np.lib.format.header_data_from_array_1_0(like)
    np.lib.format.write_array_header_1_0(file, header | {"shape": (length, *like.shape[1:]), "fortran_order": False})


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


def unpack(flat: np.ndarray, shapes: Iterable[tuple[int, ...]]) -> list[np.ndarray]:
    """Arrays of these shapes that lie end to end, as views."""
    found, start = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        found.append(flat[start : start + size].reshape(shape))
        start += size
    return found
