"""Image files (PNG or BMP, grey or colour, 8 or 16 bit) -> checked grey arrays.

Every function that can meet a fault takes a `FaultHandler`. Readers pass `raise_fault`, which raises the first fault;
the check of a data set passes ``list.append``, which collects them all. A function whose handler does not raise returns
None.
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

FaultHandler = Callable[[str], None]
"""Called with one line that names a file and its fault."""

SUFFIXES = (".png", ".bmp")
_PNG = b"\x89PNG\r\n\x1a\n"


def raise_fault(fault: str) -> NoReturn:
    """The `FaultHandler` of a reader: raises the fault as a `UserError`."""
    raise UserError(fault)


@dataclass(frozen=True)
class IntensityRange:
    """The source grey values that become 0 and 255; the map is linear between them and clips beyond them.

    (0, 255) is the identity and stands for 8-bit data; any other range stands for 16-bit data.
    """

    low: float = 0.0
    high: float = 255.0

    @property
    def bits(self) -> int:
        """Bit depth of the source images, 8 or 16."""
        return 8 if (self.low, self.high) == (0, 255) else 16

    def apply(self, grey: np.ndarray) -> np.ndarray:
        """Map grey values (H,W) uint8 or uint16 to (H,W) uint8."""
        if self.bits == 8:
            return grey
        scaled = (grey.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        mapped: np.ndarray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        return mapped


def stem(name: str) -> str:
    """A file name without ``.png`` or ``.bmp``; other dots belong to the name."""
    return name[:-4] if name.lower().endswith(SUFFIXES) else name


def image_files(folder: Path) -> dict[str, list[Path]]:
    """The PNG and BMP files of a folder, by name without extension; hidden files are left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith("."):
            found.setdefault(stem(path.name), []).append(path)
    return found


def decode(path: Path, on_fault: FaultHandler = raise_fault) -> np.ndarray | None:
    """Decode an image to its grey values.

    Args:
        path: a PNG or BMP file; the content decides which, not the name.
        on_fault: receives the fault of a file that is missing, damaged or truncated.

    Returns:
        (H,W) uint8 or uint16. Colour becomes grey by OpenCV's weights (equal channels keep their value).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        on_fault(f"{path}: cannot be read ({error.strerror})")
        return None
    if fault := _structural_fault(content):
        on_fault(f"{path}: {fault}")
        return None
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        on_fault(f"{path}: not a readable PNG or BMP image of 8 or 16 bit")
        return None
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[2]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY if channels == 3 else cv2.COLOR_BGRA2GRAY)


def _structural_fault(content: bytes) -> str | None:
    """The fault of a damaged or truncated file, if there is one.

    OpenCV may decode half of such an image, and prints to standard error. Pillow finds most damage, but neither a BMP
    that was cut within the padding of its last row nor a PNG without its last checksums.
    """
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
            return f"damaged PNG (wrong checksum of the chunk at byte {position})"
        kinds.append(kind)
        if kind == b"IDAT":
            packed.append(content[position + 8 : position + 8 + length])
        if kind == b"IEND":
            sound = kinds[0] == b"IHDR" and _decompresses(b"".join(packed))
            return None if sound else "damaged PNG (its header is missing or its pixels do not decompress)"
        position += 12 + length
    return "truncated PNG"


def _decompresses(packed: bytes) -> bool:
    decompressor = zlib.decompressobj()
    try:
        decompressor.decompress(packed)
    except zlib.error:
        return False
    return decompressor.eof


def _bmp_fault(content: bytes) -> str | None:
    if len(content) < 38:
        return "truncated BMP"
    offset, header, width, height, _, bits, compression, size = struct.unpack_from("<IIiiHHII", content, 10)
    if header < 40:
        return None  # the OS/2 variant is left to the decoder
    if compression in (0, 3):
        size = (abs(width) * bits + 31) // 32 * 4 * abs(height)
    return "truncated BMP" if offset + size > len(content) else None


def bit_depth(path: Path) -> int:
    """Bits per channel by a file's header, 8 or 16; 8 for a damaged file, whose fault `decode` finds."""
    try:
        with path.open("rb") as file:
            header = file.read(25)
    except OSError:
        return 8
    return 16 if header.startswith(_PNG) and header[24:] == b"\x10" else 8


def intensity_range_of(paths: Iterable[Path], on_fault: FaultHandler = raise_fault) -> IntensityRange:
    """The range of grey values over images: the identity for 8 bit, the lowest and highest value for 16 bit.

    If both depths occur, the range is that of the more frequent one, and `read_image` refuses the others. A pixel
    counts with the median of its 3x3 neighbourhood, so that a hot or dead pixel does not set the range.

    Args:
        paths: the training images.
        on_fault: receives the faults of files that cannot be read.
    """
    depths = {path: bit_depth(path) for path in paths}
    deep = [path for path, depth in depths.items() if depth == 16]
    if 2 * len(deep) <= len(depths):
        return IntensityRange()
    lows, highs = [], []
    for path in deep:
        grey = decode(path, on_fault)
        if grey is not None:
            smooth = cv2.medianBlur(grey, 3)
            lows.append(int(smooth.min()))
            highs.append(int(smooth.max()))
    if not lows:
        return IntensityRange()
    low, high = min(lows), max(highs)
    high = max(high, low + 1)
    return IntensityRange(float(low), float(high if (low, high) != (0, 255) else 256))


def read_image(
    path: Path, intensity: IntensityRange = IntensityRange(), on_fault: FaultHandler = raise_fault
) -> np.ndarray | None:
    """Read an image as the detector takes it.

    Args:
        path: a PNG or BMP file.
        intensity: maps grey values to 0..255; that of the training images, which the checkpoint stores.
        on_fault: receives the fault.

    Returns:
        (H,W) uint8.

    Raises:
        UserError: the file is missing, damaged or truncated, or its depth is not the range's.
    """
    grey = decode(path, on_fault)
    if grey is None:
        return None
    if grey.dtype.itemsize * 8 != intensity.bits:
        depth = grey.dtype.itemsize * 8
        on_fault(f"{path}: {depth}-bit image, where the training images have {intensity.bits} bit")
        return grey.astype(np.uint8)  # only for its size: its points and mask are still checked
    return intensity.apply(grey)


def read_mask(path: Path, on_fault: FaultHandler = raise_fault) -> np.ndarray | None:
    """Read a mask: 0 is background, one other value is target.

    Args:
        path: a PNG or BMP file.
        on_fault: receives the fault of a file that cannot be read or is not two-valued.

    Returns:
        (H,W) bool.
    """
    grey = decode(path, on_fault)
    if grey is None:
        return None
    mask = grey > 0
    if not np.all(grey[mask] == grey.max(initial=0)):
        on_fault(f"{path}: not two-valued; it holds {len(np.unique(grey))} values instead of 0 and one other")
        return None
    return mask


def encode_png(image: np.ndarray) -> bytes:
    """Encode an image, (H,W) uint8 grey or (H,W,3) uint8 RGB, as PNG."""
    flipped = image if image.ndim == 2 else image[..., ::-1]
    succeeded, encoded = cv2.imencode(".png", np.ascontiguousarray(flipped))
    if not succeeded:
        raise ValueError(f"an image of {image.shape} {image.dtype} cannot be written as PNG")
    return encoded.tobytes()
