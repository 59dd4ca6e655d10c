"""TIFF and JPEG files, checked before Pillow sees them.

Pillow reads whatever the tags of a TIFF point to, however often they point to it, and libjpeg decodes as many scans as
a file has. What passes these checks takes time and memory in proportion to its size and its pixels.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from PIL import Image

from semprior.reading.image_file import ImageFaultError, refuse_large

JPEG = b"\xff\xd8\xff"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_SCANS = 100  # of a progressive JPEG; encoders write about ten
_PIXEL = 4  # bytes that a pixel takes to decode: Pillow stores colours in four channels
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value, by its type in a TIFF."""
_WHOLE = {
    1: "B",
    3: "H",
    4: "I",
    6: "b",
    8: "h",
    9: "i",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}  # how values that are whole numbers are packed
_WIDTH, _HEIGHT, _STRIPS, _SAMPLES, _STRIP_ROWS, _PLANAR = 256, 257, 273, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _PICTURES = 322, 323, 324, 45057
_BELOW = (34665, 34853, 40965)  # tags whose value is the place of further tags: Exif, GPS, interoperability
_KNOWN = (_WIDTH, _HEIGHT, _SAMPLES, _STRIP_ROWS, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _PICTURES, *_BELOW)


def silence_libtiff() -> None:
    """Keep libtiff, which Pillow decodes compressed TIFF files with, from printing complaints to standard error.

    Pillow raises an error for what cannot be read, and has no way to switch the lines off. Where libtiff is not a
    library of its own, as in Pillow's wheels for Windows, they stay.
    """
    with contextlib.suppress(OSError, AttributeError):
        pillow = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]  # its dependencies are searched too
        for setter in (pillow.TIFFSetErrorHandler, pillow.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


@dataclass
class _Tags:
    """The tags of the first page.

    Attributes:
        values: the first value of each tag in `_KNOWN`.
        counts: the number of values of each tag.
        pages: number of pages of the file.
    """

    values: dict[int, int] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    pages: int = 0


def check_tiff(stream: BinaryIO, size: int) -> None:
    """Check the tags of a TIFF file of `size` bytes; the stream is then at its beginning.

    Raises:
        ImageFaultError: the file is truncated or damaged, has several pages, or too many pixels.
    """
    tags = _tags(stream, size)
    if tags.pages > 1:
        raise ImageFaultError(f"a TIFF file of {tags.pages} pages; save each as an image of its own")
    width, height = tags.values.get(_WIDTH, 0), tags.values.get(_HEIGHT, 0)
    if not width or not height:
        raise ImageFaultError("damaged TIFF (its size is missing)")
    refuse_large(width, height, _PIXEL)
    across, down = tags.values.get(_TILE_WIDTH, width), tags.values.get(_TILE_HEIGHT, height)
    refuse_large(across, down, _PIXEL)
    layers = max(tags.values.get(_SAMPLES, 1), 1) if tags.values.get(_PLANAR) == 2 else 1
    strips = -(-height // max(tags.values.get(_STRIP_ROWS, height), 1)) * layers
    tiles = -(-width // max(across, 1)) * -(-height // max(down, 1)) * layers
    if tags.counts.get(_STRIPS, 0) > strips or tags.counts.get(_TILES, 0) > tiles:
        raise ImageFaultError("damaged TIFF (it has more parts than its size needs)")
    stream.seek(0)


def _tags(stream: BinaryIO, size: int) -> _Tags:
    """The tags of the first page; tags and what they point to are together no larger than the file."""
    start = _read(stream, 0, 8)
    order, large = "<" if start[:2] == b"II" else ">", start[2:4] in (b"+\0", b"\0+")
    if start[:4] not in TIFF:
        raise ImageFaultError("damaged TIFF (its header is wrong)")
    wide, entry, inline = ("Q", 20, 8) if large else ("I", 12, 4)
    place = _number(stream, 8 if large else 4, order + wide)
    found, used, below = _Tags(), 0, list[int]()
    while place or below:
        is_page = place != 0
        at = place or below.pop()
        counted = order + ("Q" if large else "H")
        count = _number(stream, at, counted)
        at += struct.calcsize(counted)
        used += entry * count + 1
        if used > size:
            break
        entries = _read(stream, at, entry * count)
        for position in range(0, len(entries), entry):
            tag, kind, number = struct.unpack_from(f"{order}HH{wide}", entries, position)
            length = _SIZES.get(kind, 1) * number
            used += length if length > inline else 0
            if tag in _KNOWN and kind in _WHOLE and number:
                field_at = at + position + entry - inline
                value_at = field_at if length <= inline else _number(stream, field_at, order + wide)
                value = _number(stream, value_at, order + _WHOLE[kind])
                below += [value] if tag in _BELOW else []
                if found.pages == 0 and is_page and found.values.setdefault(tag, value) != value:
                    raise ImageFaultError("damaged TIFF (a tag is given twice)")
            if found.pages == 0 and is_page:
                found.counts[tag] = max(number, found.counts.get(tag, 0))
        if is_page:
            found.pages += 1
            place = _number(stream, at + entry * count, order + wide)
    if used > size:
        raise ImageFaultError("damaged TIFF (its tags are larger than the file)")
    return found


def _number(stream: BinaryIO, place: int, packed: str) -> int:
    (value,) = struct.unpack(packed, _read(stream, place, struct.calcsize(packed)))
    return int(value)


def _read(stream: BinaryIO, place: int, count: int) -> bytes:
    if not 0 <= place < 1 << 63:
        raise ImageFaultError("truncated TIFF")
    stream.seek(place)
    content = stream.read(count)
    if len(content) < count:
        raise ImageFaultError("truncated TIFF")
    return content


def checked_jpeg(content: bytes) -> bytes:
    """A JPEG file with only the segments that its pixels need.

    Raises:
        ImageFaultError: the file is damaged, has several pictures, too many pixels, or too many scans.
    """
    kept, position, scans, pictures, is_gain_map = [content[:2]], 2, 0, 1, False
    for kind, start, end in _segments(content):
        if kind in range(0xC0, 0xD0) and kind not in (0xC4, 0xC8, 0xCC):  # a frame
            if end - start < 10:
                raise ImageFaultError("damaged JPEG (its header is wrong)")
            height, width, channels = struct.unpack_from(">HHB", content, start + 5)
            coefficients = 0 if kind in (0xC0, 0xC1) else 2 * channels  # a progressive file needs those of all pixels
            refuse_large(width, height, _PIXEL + coefficients)
        scans += kind == 0xDA
        data = content[start + 4 : end]
        if kind == 0xE2 and data.startswith(b"MPF\0"):
            pictures = _pictures(data[4:])
        is_gain_map |= kind == 0xE1 and b' hdrgm:Version="' in data
        if kind in (0xE0, 0xEE) or not (0xE0 <= kind <= 0xEF or kind == 0xFE):  # JFIF, Adobe; no text and no profile
            kept.append(content[start:end])
        position = end
    if scans > _MOST_SCANS:
        raise ImageFaultError(f"a JPEG image of {scans} scans; at most {_MOST_SCANS} are read")
    if pictures > 1 and not is_gain_map:
        raise ImageFaultError(f"a JPEG file of {pictures} pages; save each as an image of its own")
    return b"".join((*kept, content[position:]))


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, beginning and end of each segment of a JPEG up to its end; the data of a scan belong to its segment.

    Raises:
        ImageFaultError: a segment has no length, or is longer than the file.
    """
    position = 2
    while position + 4 <= len(content):
        kind = content[position + 1]
        if content[position] != 0xFF or kind in (0x00, 0xFF):
            following = _MARKER.search(content, position)  # what lies between segments is ignored
            if following is None:
                return
            position = following.start()
            continue
        if kind == 0xD9:
            return
        if kind == 0x01 or 0xD0 <= kind <= 0xD8:  # without content
            position += 2
            continue
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if kind == 0xDA:
            following = _MARKER.search(content, end)
            end = len(content) if following is None else following.start()
        if end < position + 4:
            raise ImageFaultError("damaged JPEG (a segment has no length)")
        if end > len(content):
            raise ImageFaultError("truncated JPEG")
        yield kind, position, end
        position = end


_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)


def _pictures(content: bytes) -> int:
    """The number of pictures that the index of a multi-picture file gives; 1 for a damaged index."""
    try:
        return _tags(BytesIO(content), len(content)).values.get(_PICTURES, 1)
    except ImageFaultError:
        return 1
