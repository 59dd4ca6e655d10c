"""PNG and BMP files, checked before a decoder sees them.

A decoder may return half of a damaged image, allocates what a header announces, and prints lines of its own to standard
error. What passes these checks is whole, is not larger than its header says, and gives libpng nothing to remark on.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

MOST_PIXELS = 1 << 26
"""An image has at most 67 million pixels, such as 8192 x 8192, whatever the size of its file."""
LARGEST = 1 << 28  # bytes, compressed or not
PNG = b"\x89PNG\r\n\x1a\n"
_PART = 1 << 20  # bytes that are decompressed at a time
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the colour type of a PNG
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3  # the colour type whose pixels are indices
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)  # of an interlaced PNG: first column and row, distance between columns and between rows


class ImageFaultError(Exception):
    """What is wrong with the content of an image file."""


def checked_png(content: bytes) -> bytes:
    """A PNG file with only the chunks that its pixels need.

    Raises:
        ImageFaultError: the file is truncated or damaged, an animation, or has too many pixels.
    """
    chunks = list(_chunks(content))
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise ImageFaultError("damaged PNG (its header is missing)")
    if any(kind == b"acTL" for kind, _ in chunks):
        raise ImageFaultError("an animated PNG; save each picture as an image of its own")
    width, height, depth, colour, compression, filtering, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if not width or not height or depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlaced > 1:
        raise ImageFaultError("damaged PNG (its header is wrong)")
    refuse_large(width, height, -(-depth * _CHANNELS[colour] // 8))
    kept: list[tuple[bytes, bytes | memoryview]] = [chunks[0]]
    if colour == _PALETTE:
        palette = bytes(next((data for kind, data in chunks if kind == b"PLTE"), b""))
        if not palette or len(palette) % 3:
            raise ImageFaultError("damaged PNG (its palette is missing)")
        size = 3 << depth
        kept.append((b"PLTE", palette[:size].ljust(size, b"\0")))  # every index has a colour
    if transparent := _transparency(chunks, depth, colour):
        kept.append((b"tRNS", transparent))
    if all(kind in (b"IDAT", b"IEND") for kind, _ in chunks[1:]):
        kept = []  # there is nothing to leave out, and no need for a copy
    packed = [data for kind, data in chunks if kind == b"IDAT"]
    if not _unpacks(packed, _rows(width, height, depth * _CHANNELS[colour], interlaced == 1)):
        raise ImageFaultError("damaged PNG (its pixels do not decompress to the size in its header)")
    if not kept:
        return content
    kept += [*((b"IDAT", data) for data in packed), (b"IEND", b"")]
    return PNG + b"".join(_chunk(kind, data) for kind, data in kept)


def is_deep(header: bytes) -> bool:
    """Whether the first 25 bytes of a file are those of a PNG with 16 bits per channel."""
    return header.startswith(PNG) and header[24:25] == b"\x10"


def _transparency(chunks: list[tuple[bytes, memoryview]], depth: int, colour: int) -> bytes:
    """The content of a sound chunk of transparent colours; empty if there is none."""
    given = bytes(next((data for kind, data in chunks if kind == b"tRNS"), b""))
    if colour == _PALETTE:
        return given[: 1 << depth]
    channels = {0: 1, 2: 3}.get(colour, 0)
    sound = len(given) == 2 * channels and all(sample < 1 << depth for sample in struct.unpack(f">{channels}H", given))
    return given if sound else b""


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and data of each chunk up to the end of the image; what follows it is ignored."""
    view, position = memoryview(content), len(PNG)
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if end > len(content):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            raise ImageFaultError(f"damaged PNG (wrong checksum of the chunk at byte {position})")
        yield kind, view[position + 8 : end - 4]
        if kind == b"IEND":
            return
        position = end
    raise ImageFaultError("truncated PNG")


def _chunk(kind: bytes, data: bytes | memoryview) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))


def _rows(width: int, height: int, bits: int, interlaced: bool) -> list[tuple[int, int]]:
    """Number of rows of each pass, and bytes of a row, which begins with the number of its filter."""
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sides = [(-(-(height - y) // down), -(-(width - x) // across)) for x, y, across, down in passes]
    return [(rows, 1 + (columns * bits + 7) // 8) for rows, columns in sides if rows > 0 and columns > 0]


def _unpacks(packed: list[memoryview], rows: list[tuple[int, int]]) -> bool:
    """Whether data decompresses to exactly these rows, of which a few are in memory at a time, with known filters."""
    size, found = sum(count * length for count, length in rows), 0
    try:
        for part, is_last in _decompressed(packed):
            found += len(part)
            if found > size or not _filters_known(part, found - len(part), rows):
                return False
            if is_last:
                return found == size
    except zlib.error:
        return False
    return False


def _decompressed(packed: list[memoryview]) -> Iterator[tuple[bytes, bool]]:
    """Parts of the decompressed data, and whether a part is the last one; none is if the data are truncated."""
    decompressor = zlib.decompressobj()
    for data in packed:
        part: bytes | memoryview = data
        while part:
            yield decompressor.decompress(part, _PART), decompressor.eof
            part = decompressor.unconsumed_tail
    while not decompressor.eof and (part := decompressor.decompress(b"", _PART)):
        yield part, decompressor.eof


def _filters_known(part: bytes, start: int, rows: list[tuple[int, int]]) -> bool:
    """Whether the rows that begin in a part, which itself begins at byte `start`, have one of the five filters."""
    first = 0
    for count, length in rows:
        end = first + count * length
        begin = max(start, first + -(-(start - first) // length) * length) - start
        if start < end and first < start + len(part) and max(part[begin : end - start : length], default=0) > 4:
            return False
        first = end
    return True


def check_bmp(content: bytes) -> None:
    """Check a BMP file.

    Raises:
        ImageFaultError: the file is truncated, or has too many pixels.
    """
    if len(content) < 38:
        raise ImageFaultError("truncated BMP")
    offset, header, width, height, _, bits, compression, size = struct.unpack_from("<IIiiHHII", content, 10)
    if header < 40:  # the OS/2 variant
        width, height = struct.unpack_from("<HH", content, 18)
        (bits,), compression = struct.unpack_from("<H", content, 24), 0
    refuse_large(abs(width), abs(height), -(-bits // 8))
    if compression in (0, 3):
        size = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    if offset + size > len(content):
        raise ImageFaultError("truncated BMP")


def refuse_large(width: int, height: int, pixel: int) -> None:
    """Refuse an image whose header announces too much; `pixel` is the number of bytes that a pixel takes to decode.

    Raises:
        ImageFaultError: as described.
    """
    most = min(MOST_PIXELS, LARGEST // max(1, pixel))
    if width * height > most:
        raise ImageFaultError(f"{width}x{height} pixels; at most {most / 1e6:.0f} million of this kind are read")
