"""Files whose content is verified as far as it is read: each block of 64 KiB has a SHA-256.

A reader of a large file needs parts of it. A digest of the whole would make it read everything, so that every block has
a digest of its own. Who reads the file keeps the digests where they are verified themselves.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from semprior.io.manifest import DamagedError

BLOCK = 1 << 16  # bytes
_DIGEST = 32  # bytes of a SHA-256
_REQUESTS = 16  # parts that `CheckedFile.prefetch` reads at a time

ReadAt = Callable[[int, int], bytes]
"""Reads a number of bytes of a file from a position; may be called from several threads."""


def block_digests(content: bytes | memoryview) -> bytes:
    """The SHA-256 of each block of `content`, one after the other."""
    view = memoryview(content)
    return b"".join(hashlib.sha256(view[start : start + BLOCK]).digest() for start in range(0, len(view), BLOCK))


class CheckedFile(io.RawIOBase):
    """A file to read, whose blocks are verified before anything of them is returned.

    Args:
        read_at: reads the file.
        size: number of bytes that have digests; they come first.
        digests: of `block_digests`.
        tail: the rest of the file, which is verified already.

    Raises:
        DamagedError: the digests are not as many as the blocks.
    """

    def __init__(self, read_at: ReadAt, size: int, digests: bytes, tail: bytes) -> None:
        super().__init__()
        if len(digests) != _DIGEST * -(-size // BLOCK):
            raise DamagedError("is damaged; it has fewer or more digests than blocks")
        self._read_at, self._size, self._digests, self._tail = read_at, size, digests, tail
        self._held: list[tuple[int, bytes]] = []  # verified parts, each with its first byte's position
        self._prefetched = False
        self._position = 0

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Read parts of the file at once, several at a time, and hold them for `read`.

        Args:
            ranges: first byte and number of bytes of each part.

        Raises:
            DamagedError: a block is damaged.
        """
        joined: list[tuple[int, int]] = []
        for first, count in sorted(ranges):
            low, high = _aligned(first, count, self._size)
            if joined and low <= joined[-1][1]:
                joined[-1] = joined[-1][0], max(high, joined[-1][1])
            else:
                joined.append((low, high))
        with ThreadPoolExecutor(_REQUESTS) as pool:
            self._held = list(pool.map(lambda part: (part[0], self._verified(*part)), joined))
        self._prefetched = True

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes; fewer at the end of the file.

        Raises:
            DamagedError: a block is damaged.
        """
        end = self._size + len(self._tail)
        stop = end if size is None or size < 0 else min(end, self._position + size)
        first, self._position = self._position, max(stop, self._position)
        found = self._part(first, min(stop, self._size)) if first < self._size else b""
        if stop > self._size:
            found += self._tail[max(0, first - self._size) : stop - self._size]
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size + len(self._tail)}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def _part(self, first: int, stop: int) -> bytes:
        for start, content in self._held:
            if start <= first and stop <= start + len(content):
                return content[first - start : stop - start]
        low, high = _aligned(first, stop - first, self._size)
        content = self._verified(low, high)
        if not self._prefetched:
            self._held = [(low, content)]  # the next read is often of the same block
        return content[first - low : stop - low]

    def _verified(self, low: int, high: int) -> bytes:
        content = self._read_at(high - low, low)
        found, number = block_digests(content), low // BLOCK * _DIGEST
        if len(content) != high - low or found != self._digests[number : number + len(found)]:
            raise DamagedError("is damaged; a part of it does not match its SHA-256")
        return content


def _aligned(first: int, count: int, size: int) -> tuple[int, int]:
    """The blocks that hold a part: their first byte and the byte after their last."""
    return first // BLOCK * BLOCK, min(size, -(-(first + count) // BLOCK) * BLOCK)
