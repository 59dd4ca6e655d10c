"""A growing file of feature maps on disk, shared by every process that trains with the same frozen model.

A folder holds `features.bin`, the half-precision features of one image after the other, and `index.jsonl`, a line per
image with position, shape and checksum. Processes only append to them, under a file lock, to the data first. A process
that is killed leaves at most a tail that no line of the index names, and readers with the file mapped are never
disturbed. An entry whose line or data fails its checksum counts as missing, and a later entry of the same name replaces
it.
"""

import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from semprior.errors import StorageError, UserError
from semprior.io.atomic_files import locked
from semprior.reading.files import only_regular, read_bytes
from semprior.reading.json_text import parse_json

Array = np.ndarray
_ITEM = np.dtype("<f2")
_LARGEST_INDEX = 1 << 30  # bytes; a line has some 100
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """Position of one image's features: `rows x cols` tokens of `channels` numbers from byte `start` on."""

    name: str
    start: int
    rows: int
    cols: int
    channels: int
    crc: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.rows * self.cols * self.channels * _ITEM.itemsize


class FeatureStore:
    """Feature maps by name in one folder; hold `locked()` to read the index or to append.

    Args:
        folder: created if it does not exist.

    Raises:
        UserError: the folder cannot be created or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "features.bin"
        self._index = folder / "index.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"feature bank: {folder}: cannot be made ({error.strerror})") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock; waiting for another process that holds it is logged."""

        def say(holder: str) -> None:
            _log.info(
                "feature bank: waiting for another process that fills %s%s", self.folder, holder and f" ({holder})"
            )

        self._open(self.folder / "lock", "ab").close()
        with locked(self.folder / "lock", say):
            yield

    def entries(self, names: Sequence[str]) -> tuple[dict[str, Entry], list[str]]:
        """The undamaged entries among `names`, and the names of the damaged ones.

        Every byte is read and compared with its checksum (about a second per 2 GB), which also brings the features
        into the page cache.
        """
        wanted = set(names)
        lines, bad_lines = self._lines()
        found = {name: entry for name, entry in lines.items() if name in wanted}
        data = self.open()
        intact = {name: entry for name, entry in found.items() if _is_intact(data, entry)}
        damaged = sorted(found.keys() - intact.keys())
        if bad_lines:
            _log.warning("feature bank: %s: %d damaged lines are ignored", self._index, bad_lines)
        return intact, damaged

    def append(self, features: Mapping[str, Array]) -> dict[str, Entry]:
        """Append float16 features (rows, cols, channels), and return their entries once they are on disk.

        Raises:
            StorageError: the disk is full or the folder cannot be written; earlier entries are unharmed.
        """
        if not features:
            return {}
        entries: dict[str, Entry] = {}
        try:  # includes closing the files, which tries again to write what could not be written
            with self._open(self._data, "ab") as data:
                place = data.seek(0, os.SEEK_END)
                place += -place % 64  # an incomplete tail leaves odd sizes
                data.truncate(place)
                for name, array in features.items():
                    raw = np.ascontiguousarray(array, dtype=_ITEM)
                    rows, cols, channels = raw.shape
                    entries[name] = Entry(name, place, rows, cols, channels, zlib.crc32(raw.data))
                    data.write(raw.data)
                    place += raw.nbytes
                _sync(data)
                with self._open(self._index, "ab+") as index:
                    lines = "".join(_line(entry) for entry in entries.values()).encode()
                    index.write(b"" if _ends_with_newline(index) else b"\n")
                    index.write(lines)
                    _sync(index)
        except OSError as error:
            raise StorageError(
                f"feature bank: {self.folder}: cannot be written ({error.strerror}); "
                "free some space or lower vfm.bank_gb"
            ) from error
        return entries

    def open(self) -> Array:
        """The data file, mapped read-only, as a flat float16 array (empty if there is none)."""
        items = self._data.stat().st_size // _ITEM.itemsize if self._data.is_file() else 0
        if not items:
            return np.empty(0, dtype=_ITEM)
        return np.memmap(self._data, dtype=_ITEM, mode="r", shape=(items,))

    def _lines(self) -> tuple[dict[str, Entry], int]:
        """Entries by name, from the last line of each name, and the number of lines that fail their checksum."""
        found: dict[str, Entry] = {}
        bad = 0
        if not self._index.is_file():
            return found, bad
        for line in read_bytes(self._index, _LARGEST_INDEX).splitlines():
            entry = _parse(line)
            if entry is not None:
                found[entry.name] = entry
            elif line:
                bad += 1
        return found, bad

    def _open(self, path: Path, mode: Literal["ab", "ab+"]) -> BinaryIO:
        try:
            return open(path, mode, opener=only_regular)
        except OSError as error:
            raise UserError(f"feature bank: {path}: cannot be opened ({error.strerror})") from error


def view(data: Array, entry: Entry) -> Array:
    """One image's features (rows, cols, channels) as a view of the mapped file."""
    start = entry.start // _ITEM.itemsize
    return data[start : start + entry.size // _ITEM.itemsize].reshape(entry.rows, entry.cols, entry.channels)


def _is_intact(data: Array, entry: Entry) -> bool:
    return entry.start + entry.size <= data.nbytes and zlib.crc32(view(data, entry).data) == entry.crc


def _line(entry: Entry) -> str:
    body = json.dumps(asdict(entry), separators=(",", ":"))
    return f"{zlib.crc32(body.encode()):08x} {body}\n"


def _parse(line: bytes) -> Entry | None:
    crc, _, body = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(body):
        return None
    try:
        entry = parse_json(body, Entry, "a line of the index")
    except UserError:
        return None
    sides = (entry.rows, entry.cols, entry.channels)
    return entry if entry.start >= 0 and not entry.start % _ITEM.itemsize and min(sides) > 0 else None


def _ends_with_newline(handle: BinaryIO) -> bool:
    if handle.seek(0, os.SEEK_END) == 0:
        return True
    handle.seek(-1, os.SEEK_END)
    return handle.read(1) == b"\n"


def _sync(handle: BinaryIO) -> None:
    handle.flush()
    os.fsync(handle.fileno())
