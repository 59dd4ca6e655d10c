"""Image files (PNG, BMP, TIFF, JPEG) -> the pixels of their one picture."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from semprior.errors import UserError
from semprior.reading.files import only_regular, read_bytes
from semprior.reading.image_file import LARGEST, PNG, ImageFaultError, check_bmp, checked_png, is_deep
from semprior.reading.tiff_jpeg import JPEG, TIFF, check_tiff, checked_jpeg, silence_libtiff

_DTYPES = ("uint8", "uint16", "float32")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what a file lacks is said by us, in one line
silence_libtiff()
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_pixels(path: Path) -> np.ndarray:
    """The pixels of an image file; its content decides on the format, not its name.

    Returns:
        (H,W), (H,W,3) BGR or (H,W,4) BGRA, uint8, uint16 or float32.

    Raises:
        UserError: the file cannot be read, is in another format, is truncated or damaged, has too many pixels, several
            pictures, or values that are not finite.
    """
    content = read_bytes(path, LARGEST)
    try:
        if content.startswith(JPEG):
            return _by_pillow(checked_jpeg(content), "JPEG")
        if content.startswith(TIFF):
            check_tiff(BytesIO(content), len(content))
            return _by_pillow(content, "TIFF")
        return _by_opencv(_png_or_bmp(content))
    except ImageFaultError as fault:
        damaged = str(fault).startswith(("damaged ", "truncated ", "the file is empty"))
        way_out = "; copy the file again" if damaged and "unknown" not in str(fault) else ""
        raise UserError(f"{path}: {fault}{way_out}") from fault


def bits_per_channel(path: Path) -> int:
    """Bits per channel by the header of a file: 8, 16 or 32 (float); 8 for a file that cannot be read."""
    try:
        with open(path, "rb", opener=only_regular) as file:
            header = file.read(25)
            if not header.startswith(TIFF):
                return 16 if is_deep(header) else 8
            check_tiff(file, os.fstat(file.fileno()).st_size)
            with Image.open(file, formats=["TIFF"]) as image:
                return 32 if image.mode == "F" else 16 if image.mode.startswith("I;16") else 8
    except Exception:  # whatever a decoder may raise on bytes that anybody wrote; `read_pixels` tells the fault
        return 8


def is_jpeg(path: Path) -> bool:
    """Whether a file that `read_pixels` reads is a JPEG image, by its content."""
    try:
        with open(path, "rb", opener=only_regular) as file:
            return file.read(len(JPEG)) == JPEG
    except OSError:
        return False


def palette_hides(path: Path) -> bool:
    """Whether an image that `read_pixels` reads has a palette, and indices of it that differ."""
    try:
        content = read_bytes(path, LARGEST)
        if content.startswith(TIFF):
            check_tiff(BytesIO(content), len(content))
        elif not content.startswith(JPEG):
            content = _png_or_bmp(content)
        with Image.open(BytesIO(content), formats=["PNG", "BMP", "TIFF"]) as image:
            indices = np.asarray(image) if image.mode == "P" else np.zeros((1, 1))
            return bool((indices != indices[:1, :1]).any())
    except Exception:  # whatever a decoder may raise on bytes that another decoder has read
        return False


def _png_or_bmp(content: bytes) -> bytes:
    if content.startswith(PNG):
        return checked_png(content)
    if content.startswith(b"BM"):
        check_bmp(content)
        return content
    if content.startswith((b"GIF8", b"RIFF")):
        raise ImageFaultError("a GIF or WebP image, which may be animated; save each picture as PNG")
    raise ImageFaultError("neither a PNG, BMP, TIFF nor JPEG image" if content else "the file is empty")


def _by_opencv(content: bytes) -> np.ndarray:
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ImageFaultError("not a readable PNG or BMP image of 8 or 16 bit")
    return pixels


def _by_pillow(content: bytes, kind: str) -> np.ndarray:
    """The channels of a TIFF or JPEG file; OpenCV would print the complaints of its decoders to standard error."""
    try:
        pixels, mode = _opened(content, kind)
    except Exception as error:  # whatever a decoder may raise on bytes that anybody wrote
        truncated = "truncated" in str(error) or "end of file" in str(error)
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its text names an object in memory
            reason = "its values may be of 64 bits; save it as 8 bit, 16 bit or 32-bit float"
        raise ImageFaultError(
            f"{'truncated' if truncated else 'damaged or unknown kind of'} {kind} ({reason})"
        ) from error
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if mode == "CMYK" or pixels.dtype.name not in _DTYPES or not (pixels.ndim == 2 or pixels.shape[2] in (3, 4)):
        raise ImageFaultError(f"a {kind} image of mode {mode}; save it as 8 bit, 16 bit or float, grey or RGB")
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise ImageFaultError("holds values that are not finite")
    if pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)


def _opened(content: bytes, kind: str) -> tuple[np.ndarray, str]:
    """The pixels of a file as Pillow gives them, and its mode."""
    with Image.open(BytesIO(content), formats=[kind]) as image:
        mode = image.mode
        channels = {"1": "L", "P": "RGBA" if "transparency" in image.info else "RGB", "LA": "RGBA"}
        return np.asarray(image.convert(channels[mode]) if mode in channels else image), mode
