"""Image files (PNG, BMP, TIFF, JPEG; grey or colour; 8 bit, 16 bit or float) -> checked grey arrays and masks.

Every function that can meet a fault takes a `FaultHandler`. Readers pass `raise_fault`, which raises the first fault;
the check of a data set passes ``list.append``, which collects them all. A function whose handler does not raise returns
None.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np

from semprior.errors import UserError
from semprior.reading.pixels import bits_per_channel, is_jpeg, palette_hides, read_pixels

FaultHandler = Callable[[str], None]
"""Called with one line that names a file and its fault."""

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")
READABLE = "PNG, BMP, TIFF or JPEG"
MOST_COVERED = 0.5  # share of an image that its targets may cover
_HIDDEN = "its palette shows every index in one colour; save it as grey, 0 and 255"
_DTYPES = {"uint8": 8, "uint16": 16, "float32": 32}


def raise_fault(fault: str) -> NoReturn:
    """The `FaultHandler` of a reader: raises the fault as a `UserError`."""
    raise UserError(fault)


@dataclass(frozen=True)
class IntensityRange:
    """The source grey values that become 0 and 255; the map is linear between them and clips beyond them.

    (0, 255) is the identity and stands for 8-bit data; any other range stands for 16-bit data or, if `floating`, for
    32-bit floating-point data.
    """

    low: float = 0.0
    high: float = 255.0
    floating: bool = False

    @property
    def bits(self) -> int:
        """Bit depth of the source images: 8, 16 or, of floating-point images, 32."""
        if self.floating:
            return 32
        return 8 if (self.low, self.high) == (0, 255) else 16

    def apply(self, grey: np.ndarray) -> np.ndarray:
        """Map grey values (H,W) uint8, uint16 or float32 to (H,W) uint8."""
        if self.bits == 8:
            return grey
        scaled = (grey.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        mapped: np.ndarray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        return mapped

    def stored(self) -> list[float]:
        """The range as a checkpoint stores it; `restored` is the inverse."""
        return [self.low, self.high, *([1.0] if self.floating else [])]

    @classmethod
    def restored(cls, values: Iterable[float]) -> IntensityRange:
        """The range that `stored` returned."""
        low, high, *floating = values
        return cls(low, high, bool(floating))


@dataclass(frozen=True, eq=False)
class MaskReading:
    """A mask and what its reading decided.

    Attributes:
        mask: (H,W) bool; a target pixel is above half of the largest value of the file.
        graded: number of pixels that hold neither 0 nor the largest value.
    """

    mask: np.ndarray
    graded: int


def stem(name: str) -> str:
    """A file name without the suffix of an image, in composed Unicode; other dots belong to the name.

    File systems of macOS decompose accents, while lists are written with composed ones: both name the same image.
    """
    name = unicodedata.normalize("NFC", name)
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def image_files(folder: Path) -> dict[str, list[Path]]:
    """The image files of a folder that can be read, by name without extension; hidden files are left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(SUFFIXES) and not path.name.startswith("."):
            found.setdefault(stem(path.name), []).append(path)
    return found


def decode(path: Path, on_fault: FaultHandler = raise_fault) -> np.ndarray | None:
    """Decode an image to its grey values.

    Args:
        path: a PNG, BMP, TIFF or JPEG file; the content decides which, not the name.
        on_fault: receives the fault of a file that is missing, damaged or truncated, that holds several pictures, or
            whose picture lies in its alpha channel.

    Returns:
        (H,W) uint8, uint16 or float32. Colour becomes grey by OpenCV's weights (equal channels keep their value).
    """
    pixels = _pixels(path, on_fault)
    if pixels is None:
        return None
    if not _varies(pixels) and palette_hides(path):
        on_fault(f"{path}: {_HIDDEN}")
        return None
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 4 and _varies(pixels[..., 3]) and not _varies(pixels[..., :3]):
        on_fault(f"{path}: the picture lies in the alpha channel; save it as grey")
        return None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY if pixels.shape[2] == 3 else cv2.COLOR_BGRA2GRAY)


def _pixels(path: Path, on_fault: FaultHandler) -> np.ndarray | None:
    """The channels of a sound image with one picture: (H,W), (H,W,3) BGR or (H,W,4) BGRA, uint8, uint16 or float32."""
    try:
        return read_pixels(path)
    except UserError as error:
        on_fault(str(error))
        return None


def _varies(values: np.ndarray) -> bool:
    return bool((values != values[:1, :1]).any())


def intensity_range_of(paths: Iterable[Path], on_fault: FaultHandler = raise_fault) -> IntensityRange:
    """The range of grey values over images: the identity for 8 bit, else the lowest and highest value.

    If several depths occur, the range is that of the most frequent one, and `read_image` refuses the others. A pixel
    counts with the median of its 3x3 neighbourhood, so that a hot or dead pixel does not set the range.

    Args:
        paths: the training images.
        on_fault: receives the faults of files that cannot be read.
    """
    depths = {path: bits_per_channel(path) for path in paths}
    count = Counter(depths.values())
    depth = max(sorted(count), key=count.__getitem__, default=8)
    if depth == 8:
        return IntensityRange()
    lows, highs = [], []
    for path in (path for path, bits in depths.items() if bits == depth):
        grey = decode(path, on_fault)
        if grey is not None:
            smooth = cv2.medianBlur(grey, 3)
            lows.append(float(smooth.min()))
            highs.append(float(smooth.max()))
    if not lows:
        return IntensityRange()
    low, high = min(lows), max(highs)
    if depth == 32:
        return IntensityRange(low, high if high > low else low + 1, floating=True)
    high = max(high, low + 1)
    return IntensityRange(low, high if (low, high) != (0, 255) else 256.0)


def read_image(
    path: Path, intensity: IntensityRange = IntensityRange(), on_fault: FaultHandler = raise_fault
) -> np.ndarray | None:
    """Read an image as the detector takes it.

    Args:
        path: a PNG, BMP, TIFF or JPEG file.
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
    depth = _DTYPES[grey.dtype.name]
    if depth != intensity.bits:
        kinds = {8: "8 bit", 16: "16 bit", 32: "32-bit floating-point values"}
        shown = "floating-point" if depth == 32 else f"{depth}-bit"
        on_fault(f"{path}: {shown} image, where the training images have {kinds[intensity.bits]}")
        return grey.astype(np.uint8)  # only for its size: its points and mask are still checked
    return intensity.apply(grey)


def read_mask(path: Path, on_fault: FaultHandler = raise_fault) -> np.ndarray | None:
    """The mask (H,W) bool of `read_mask_as_it_is`."""
    reading = read_mask_as_it_is(path, on_fault)
    return None if reading is None else reading.mask


def read_mask_as_it_is(path: Path, on_fault: FaultHandler = raise_fault) -> MaskReading | None:
    """Read a mask: a pixel is target where it is above half of the largest value of the file.

    For masks of 0 and 255 this is the field's usual "above 127". Colours count with their largest channel, so that no
    colour but black is background.

    Args:
        path: a PNG, BMP, TIFF or JPEG file.
        on_fault: receives the fault of a file that cannot be read, or of a mask that cannot be meant: it covers most
            of the image, whole regions of it lie below half of its largest value (as where values number the targets),
            or its colours say nothing.
    """
    values = read_marks(path, on_fault)
    if values is None:
        return None
    largest = values.max(initial=0)
    mask = values > largest / 2
    graded = int(np.count_nonzero((values != 0) & (values != largest)))
    if mask.mean() > MOST_COVERED:
        on_fault(f"{path}: the mask covers {mask.mean():.0%} of the image; is it inverted? Background must be 0")
        return None
    if graded and not is_jpeg(path) and (low := _regions_below(values, mask)):
        on_fault(
            f"{path}: {low} of its regions {'lies' if low == 1 else 'lie'} wholly below half of its largest value"
            f" {largest:g}; if values number the targets, save it as 0 and 255"
        )
        return None
    return MaskReading(mask, graded)


def read_marks(path: Path, on_fault: FaultHandler = raise_fault, what: str = "mask lies") -> np.ndarray | None:
    """The values (H,W) of a mask or of an image of points: in colours the largest channel, so that only black is 0.

    Args:
        path: a PNG, BMP, TIFF or JPEG file.
        on_fault: receives the fault of a file that cannot be read, or whose colours say nothing.
        what: the values mark, for messages.
    """
    pixels = _pixels(path, on_fault)
    if pixels is None:
        return None
    if pixels.ndim == 3 and pixels.shape[2] == 4 and _varies(pixels[..., 3]):
        visible = pixels[..., :3].max(axis=2) * (pixels[..., 3] > 0)
        if np.any(visible != pixels[..., :3].max(axis=2)) or not _varies(visible):
            on_fault(f"{path}: the {what} in the alpha channel; save it as grey, 0 and 255")
            return None
    values = pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=2)
    if not _varies(values) and palette_hides(path):
        on_fault(f"{path}: {_HIDDEN}")
        return None
    return values


def _regions_below(values: np.ndarray, mask: np.ndarray) -> int:
    """How many 8-connected regions of more than one pixel hold one value and no pixel of the mask."""
    count, labels = cv2.connectedComponents((values > 0).astype(np.uint8), connectivity=8)
    above = np.zeros(count, bool)
    above[labels[mask]] = True
    above[0] = True
    return sum(
        int(np.count_nonzero(labels == label)) > 1 and not _varies(values[labels == label].reshape(-1, 1))
        for label in np.flatnonzero(~above)
    )


def encode_png(image: np.ndarray) -> bytes:
    """Encode an image, (H,W) uint8 grey or (H,W,3) uint8 RGB, as PNG."""
    flipped = image if image.ndim == 2 else image[..., ::-1]
    succeeded, encoded = cv2.imencode(".png", np.ascontiguousarray(flipped))
    if not succeeded:
        raise ValueError(f"an image of {image.shape} {image.dtype} cannot be written as PNG")
    return encoded.tobytes()
