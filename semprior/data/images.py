"""Image files: PNG or BMP, grey or colour, 8 or 16 bit -> checked grey arrays.

Every function that can meet a fault takes a `Report`: the readers pass `fail`, which raises the first one, and the
check of a data set passes ``list.append``, which gathers them all. So there is one place for each fault. A function
whose report did not raise returns None.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np

from semprior.errors import UserError

Report = Callable[[str], None]
"""Takes one line that names a file and its fault."""

SUFFIXES = (".png", ".bmp")
_PNG = b"\x89PNG\r\n\x1a\n"


def fail(fault: str) -> NoReturn:
    """The `Report` of a reader: raise the fault."""
    raise UserError(fault)


@dataclass(frozen=True)
class IntensityRange:
    """Source grey values that become 0 and 255; between them the map is linear, beyond them it clips.

    (0, 255) is the identity and means 8-bit data; any other range means 16-bit data.
    """

    low: float = 0.0
    high: float = 255.0

    @property
    def bits(self) -> int:
        """Of the source images: 8 or 16."""
        return 8 if (self.low, self.high) == (0, 255) else 16

    def apply(self, grey: np.ndarray) -> np.ndarray:
        """Grey values (H,W) uint8 or uint16 -> (H,W) uint8."""
        if self.bits == 8:
            return grey
        scaled = (grey.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def stem(name: str) -> str:
    """A name without ``.png`` or ``.bmp``; other dots belong to the name."""
    return name[:-4] if name.lower().endswith(SUFFIXES) else name


def image_files(folder: Path) -> dict[str, list[Path]]:
    """The PNG and BMP files of a folder by name without extension; hidden files are left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith("."):
            found.setdefault(stem(path.name), []).append(path)
    return found


def decode(path: Path, report: Report = fail) -> np.ndarray | None:
    """Decode an image to its grey values.

    Args:
        path: of a PNG or BMP file; what it is is told by its content.
        report: takes the fault of a file that is missing, broken or cut short.

    Returns:
        (H,W) uint8 or uint16. Colour becomes grey by OpenCV's weights (equal channels keep their value).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return report(f"{path}: cannot be read ({error.strerror})")
    if fault := _structural_fault(content):
        return report(f"{path}: {fault}")
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return report(f"{path}: not a readable PNG or BMP image of 8 or 16 bit")
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[2]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY if channels == 3 else cv2.COLOR_BGRA2GRAY)


def _structural_fault(content: bytes) -> str | None:
    """What is wrong with the frame of a file. OpenCV alone may return half a picture and print to standard error."""
    if content.startswith(_PNG):
        return _png_fault(content)
    if content.startswith(b"BM"):
        return _bmp_fault(content)
    return "the file is empty" if not content else "neither a PNG nor a BMP image"


def _png_fault(content: bytes) -> str | None:
    position, kinds, packed = len(_PNG), [], []
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if position + 12 + length > len(content):
            break
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        if zlib.crc32(content[position + 4 : position + 8 + length]) != checksum:
            return f"damaged PNG (checksum of its part at byte {position})"
        kinds.append(kind)
        if kind == b"IDAT":
            packed.append(content[position + 8 : position + 8 + length])
        if kind == b"IEND":
            sound = kinds[0] == b"IHDR" and _unpacks(b"".join(packed))
            return None if sound else "damaged PNG (its header is missing or its pixels do not unpack)"
        position += 12 + length
    return "truncated PNG"


def _unpacks(packed: bytes) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(packed)
    except zlib.error:
        return False
    return unpacker.eof


def _bmp_fault(content: bytes) -> str | None:
    if len(content) < 38:
        return "truncated BMP"
    offset, header, width, height, _, bits, compression, size = struct.unpack_from("<IIiiHHII", content, 10)
    if header < 40:
        return None  # the OS/2 variant: left to the decoder
    if compression in (0, 3):
        size = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    return "truncated BMP" if offset + size > len(content) else None


def bit_depth(path: Path) -> int:
    """Bits a channel from a file's header, 8 or 16; 8 where the file cannot tell (`decode` reports its fault)."""
    try:
        with path.open("rb") as file:
            header = file.read(25)
    except OSError:
        return 8
    return 16 if header.startswith(_PNG) and header[24:] == b"\x10" else 8


def range_of(paths: Iterable[Path], report: Report = fail) -> IntensityRange:
    """The range of grey values over images: the identity for 8 bit, their lowest and highest value for 16 bit.

    Where both depths occur, the range is for the more frequent one, and `read_image` refuses the rest. A pixel counts
    with the median of its 3x3 neighbourhood, so that a hot or dead pixel does not set the range.

    Args:
        paths: of the training images.
        report: takes the faults of files that cannot be read.
    """
    depths = {path: bit_depth(path) for path in paths}
    deep = [path for path, depth in depths.items() if depth == 16]
    if 2 * len(deep) <= len(depths):
        return IntensityRange()
    lows, highs = [], []
    for path in deep:
        grey = decode(path, report)
        if grey is not None:
            smooth = cv2.medianBlur(grey, 3)
            lows.append(int(smooth.min()))
            highs.append(int(smooth.max()))
    if not lows:
        return IntensityRange()
    low, high = min(lows), max(highs)
    high = max(high, low + 1)
    return IntensityRange(float(low), float(high if (low, high) != (0, 255) else 256))


def read_image(path: Path, intensity: IntensityRange = IntensityRange(), report: Report = fail) -> np.ndarray | None:
    """Read an image as the detector takes it.

    Args:
        path: of a PNG or BMP file.
        intensity: how its grey values become 0..255; from the training images, kept in the checkpoint.
        report: takes the fault; by default it is raised.

    Returns:
        (H,W) uint8.

    Raises:
        UserError: the file is missing, broken, cut short, or of another depth than the range is for.
    """
    grey = decode(path, report)
    if grey is None:
        return None
    if grey.dtype.itemsize * 8 != intensity.bits:
        depth = grey.dtype.itemsize * 8
        report(f"{path}: {depth}-bit image, where the training images have {intensity.bits} bit")
        return grey.astype(np.uint8)  # of a picture's size: its points and mask are checked all the same
    return intensity.apply(grey)


def read_mask(path: Path, report: Report = fail) -> np.ndarray | None:
    """Read a mask: 0 is background, one other value is target.

    Args:
        path: of a PNG or BMP file.
        report: takes the fault of a file that cannot be read or is not two-valued.

    Returns:
        (H,W) bool.
    """
    grey = decode(path, report)
    if grey is None:
        return None
    mask = grey > 0
    if not np.all(grey[mask] == grey.max(initial=0)):
        return report(f"{path}: not two-valued; it holds {len(np.unique(grey))} values instead of 0 and one other")
    return mask


def encode_png(picture: np.ndarray) -> bytes:
    """A picture as PNG: (H,W) uint8 grey or (H,W,3) uint8 RGB."""
    flipped = picture if picture.ndim == 2 else picture[..., ::-1]
    fine, encoded = cv2.imencode(".png", np.ascontiguousarray(flipped))
    if not fine:
        raise ValueError(f"a picture of {picture.shape} {picture.dtype} cannot be written as PNG")
    return encoded.tobytes()
