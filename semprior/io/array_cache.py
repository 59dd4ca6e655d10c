"""Arrays that are computed once per machine and memory-mapped by every process that needs them.

Arrays that depend only on the data and a few settings (decoded images, seeds, statistics) are the same for all runs of
a sweep. The first run that needs them computes them, under a lock; the others wait and then map the same pages::

    CACHE/arrays/KEY/NAME.npy

Arrays are written part by part and always mapped from their files, also without a shared cache: they need not fit into
memory, however many images there are.

A key covers everything that the arrays depend on, so that they never become stale: the data, the settings, a version
constant beside the code that computes them (a change of the results must increase it), and the versions of the
libraries. The files may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from semprior.errors import UserError
from semprior.io.atomic_files import atomic_folder, locked

Arrays = Mapping[str, np.ndarray]

COMPUTED_BY = (
    f"numpy {np.__version__}",
    f"OpenCV {cv2.__version__}",
    *(f"{name} {version(name)}" for name in ("scikit-learn", "scipy")),
)
"""The libraries that compute cached arrays, with their versions."""


def cached_arrays(cache: Path | None, key: str, compute: Callable[[], Iterable[Arrays]]) -> Arrays:
    """The arrays of a key, mapped read-only.

    Args:
        cache: folder that runs share; with None, temporary files hold the arrays for as long as they are used.
        key: the result of `key_of`.
        compute: yields parts of the arrays; parts of one name are concatenated along their first axis.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix="semprior-") as scratch:
            return _store(Path(scratch) / "arrays", compute)  # a mapped file outlives its name
    folder = cache / "arrays" / key
    found = _load(folder)
    if found is not None:
        return found
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / f".{key}.lock"):
        found = _load(folder)
        if found is not None:
            return found
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        return _store(folder, compute)


def key_of(parts: Iterable[object]) -> str:
    """The name of arrays that depend on `parts`.

    Args:
        parts: everything that the arrays depend on, compared by their texts: data, settings, the version constant of
            the code that computes them, and `COMPUTED_BY`.

    Returns:
        40 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{part}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:40]


def _store(folder: Path, compute: Callable[[], Iterable[Arrays]]) -> Arrays:
    """Compute the arrays into a new folder and map them."""
    with atomic_folder(folder) as partial:
        _write(partial, compute())
    found = _load(folder)
    if found is None:
        raise UserError(f"{folder}: the arrays just written there cannot be read")
    return found


def _write(folder: Path, parts: Iterable[Arrays]) -> None:
    """Write parts as they are computed, to ``NAME.npy`` for each name."""
    files: dict[str, BinaryIO] = {}
    lengths: dict[str, int] = {}
    templates: dict[str, np.ndarray] = {}  # an empty array of each name, for its dtype and its other axes
    with ExitStack() as opened:
        for part in parts:
            for name, array in part.items():
                if name not in files:
                    files[name] = opened.enter_context((folder / f"{name}.npy").open("wb"))
                    lengths[name], templates[name] = 0, array[:0]
                    _write_header(files[name], templates[name], 0)
                files[name].write(np.ascontiguousarray(array, templates[name].dtype).data)
                lengths[name] += len(array)
        for name, file in files.items():
            file.seek(0)
            _write_header(file, templates[name], lengths[name])  # numpy leaves space in the header for a longer length


def _write_header(file: BinaryIO, like: np.ndarray, length: int) -> None:
    header = np.lib.format.header_data_from_array_1_0(like)
    np.lib.format.write_array_header_1_0(file, header | {"shape": (length, *like.shape[1:]), "fortran_order": False})


def _load(folder: Path) -> Arrays | None:
    """The arrays of a folder, mapped; None if there is no such folder or a file in it is damaged."""
    if not folder.is_dir():
        return None
    paths = sorted(folder.glob("*.npy"))
    if not all(path.is_file() for path in paths):
        return None
    try:
        return {path.stem: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)) for path in paths}
    except (OSError, ValueError, EOFError):
        return None


def unpack(flat: np.ndarray, shapes: Iterable[tuple[int, ...]]) -> list[np.ndarray]:
    """Split an array (N,) into consecutive views of the given shapes."""
    views, start = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        views.append(flat[start : start + size].reshape(shape))
        start += size
    return views
