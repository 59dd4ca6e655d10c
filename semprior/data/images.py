"""Image files (PNG or BMP, grey or colour, 8 or 16 bit) -> checked grey arrays.

Every function that can meet a fault takes a `FaultHandler`. Readers pass `raise_fault`, which raises the first fault;
the check of a data set passes ``list.append``, which collects them all. A function whose handler does not raise returns
None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np

from semprior.errors import UserError
from semprior.reading.files import only_regular
from semprior.reading.image_file import is_deep, read_image_file

FaultHandler = Callable[[str], None]
"""Called with one line that names a file and its fault."""

SUFFIXES = (".png", ".bmp")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what a file lacks is said by us, in one line


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
        content = read_image_file(path)
    except UserError as error:
        on_fault(str(error))
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


def bit_depth(path: Path) -> int:
    """Bits per channel by a file's header, 8 or 16; 8 for a damaged file, whose fault `decode` finds."""
    try:
        with open(path, "rb", opener=only_regular) as file:
            return 16 if is_deep(file.read(25)) else 8
    except OSError:
        return 8


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
