"""Files of a folder that are not read as images, and which of them are pictures all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from semprior.data.images import READABLE, SUFFIXES, FaultHandler

PICTURES = (
    *(".gif", ".webp", ".jp2", ".jfif", ".jpe", ".pgm", ".ppm", ".pnm", ".pbm", ".exr", ".hdr", ".heic", ".avif"),
    *(".dng", ".raw", ".npy", ".npz", ".mat", ".fits", ".fit", ".dcm", ".sgi", ".tga", ".ico", ".svg", ".pcx"),
)
"""Suffixes of pictures that are not read."""


def unread_files(folder: Path) -> list[Path]:
    """What lies in a folder and is no readable image, hidden files left out."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return [path for path in paths if path.is_dir() or not path.name.lower().endswith(SUFFIXES)]


def refuse_unread_pictures(folder: Path, on_fault: FaultHandler) -> None:
    """Report pictures in a folder that nobody would read: of another format, or in a folder below."""
    unread = unread_files(folder)
    pictures = [path for path in unread if path.suffix.lower() in PICTURES and path.is_file()]
    if pictures:
        on_fault(
            f"{folder}: {counted(pictures)} cannot be read, such as {pictures[0].name}; save them as {READABLE}, or"
            " move them away"
        )
    for below in (path for path in unread if path.is_dir()):
        if any(path.name.lower().endswith((*SUFFIXES, *PICTURES)) for path in below.rglob("*")):
            on_fault(f"{below}: images in folders below are not read; `semprior data import` makes one folder of them")


def counted(paths: Sequence[Path]) -> str:
    """``7 files (4 .gif, 3 .webp)``."""
    return f"{len(paths)} file{'s' if len(paths) > 1 else ''} ({by_suffix(paths)})"


def by_suffix(paths: Iterable[Path]) -> str:
    """``4 .gif, 3 .webp``."""
    counts = Counter("folder" if path.is_dir() else path.suffix.lower() or "no suffix" for path in paths)
    return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
