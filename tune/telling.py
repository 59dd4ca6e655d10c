"""An exception that nobody foresaw, in one line: its type, its message and its place.

And what of that line is the same when the exception comes again: not the numbers, addresses and paths in its message.
"""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import PurePath

LONGEST = 400  # characters of a message; Ray's go on for pages
_OURS = ("semprior", "tune")
_CHANGES = re.compile(r"0x[0-9a-fA-F]+|(?:\w+:/)?/[^\s'\",;:()]+|\b[0-9a-f]{8,}\b|\d+(?:\.\d+)?")


def told(error: BaseException) -> str:
    """The exception in a line: ``KeyError: 'x' (tune/driver.py:90, run_sweep)``."""
    where = place(error)
    return _words(error) + (f" ({where})" if where else "")


def place(error: BaseException) -> str:
    """Where it was raised: the innermost line of ours, and below it that of a library, if it was one; empty if unknown.

    An exception that came from another process has lost it.
    """
    frames = [(_short(frame.filename), frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [frame for frame in frames if PurePath(frame[0]).parts[0] in _OURS]
    shown = list(dict.fromkeys([*ours[-1:], *frames[-1:]]))
    return "; ".join(f"{file}:{line}, {function}" for file, line, function in shown)


def mark(error: BaseException) -> str:
    """What is equal of two exceptions of one cause: type, place, and the message without what changes."""
    return f"{without_what_changes(_words(error))} @ {place(error)}"


def without_what_changes(text: str) -> str:
    """A message without its numbers, addresses and paths."""
    return _CHANGES.sub("#", text)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST].removesuffix(": ")


def _short(file: str) -> str:
    """A file's path from where Python imports it."""
    roots = sorted((root.rstrip("/") for root in sys.path if root), key=len, reverse=True)
    return next((file.removeprefix(f"{root}/") for root in roots if file.startswith(f"{root}/")), file)
