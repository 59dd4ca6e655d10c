"""Opening regular files, and reading whole ones up to a size.

A FIFO in the place of a file blocks whoever opens it, and a device may never end. All files of ours are therefore
opened with `only_regular`, which neither waits nor opens anything else.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
from pathlib import Path

from semprior.errors import UserError

LARGEST_TEXT = 1 << 26  # bytes of a text or JSON file
NOT_REGULAR = "is not a regular file"


def only_regular(path: str, flags: int) -> int:
    """The `opener` of `open` for regular files: ``open(path, "rb", opener=only_regular)``.

    Raises:
        OSError: the path cannot be opened, or is a FIFO, a device, a socket or a folder.
    """
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)  # a FIFO would wait for its other end
    except OSError as error:
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads, or a socket
            raise OSError(errno.ENXIO, NOT_REGULAR, path) from error
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.ENXIO, NOT_REGULAR, path)
    return handle


def read_bytes(path: Path, limit: int = LARGEST_TEXT) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        UserError: the file cannot be read, is not a regular file, or is larger.
    """
    try:
        with open(path, "rb", opener=only_regular) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise UserError(f"{path}: holds {size / 1e6:.0f} MB; at most {limit / 1e6:.0f} MB are read")
            return file.read(limit)
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_utf8(path: Path, limit: int = LARGEST_TEXT) -> str:
    """The content of a UTF-8 text file, without a byte order mark.

    Raises:
        UserError: as `read_bytes`; or the content is not UTF-8.
    """
    return as_text(read_bytes(path, limit), str(path))


def read_foreign_text(path: Path, limit: int = LARGEST_TEXT) -> str:
    """The content of a text file of another tool: UTF-8, with or without a byte order mark, or UTF-16 with one.

    Raises:
        UserError: as `read_bytes`; or the content is neither.
    """
    content = read_bytes(path, limit)
    if not content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return as_text(content, str(path))
    try:
        return content.decode("utf-16")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as text: is not UTF-16") from error


def as_text(content: bytes, place: str) -> str:
    """Decode UTF-8, without a byte order mark.

    Raises:
        UserError: the content is not UTF-8; the message names the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{place}:{line}: cannot be read as text: is not UTF-8") from error
