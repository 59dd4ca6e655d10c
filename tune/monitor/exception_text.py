"""Describes an unexpected exception in one line, and recognises it when it is raised again.

What identifies an exception leaves out what varies from one time to the next: numbers, addresses and paths.
"""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import PurePath

MESSAGE_LIMIT = 400  # characters of a message; some of Ray's are pages long
_OUR_PACKAGES = ("semprior", "tune")
_VARIABLE_PARTS = re.compile(r"0x[0-9a-fA-F]+|(?:\w+:/)?/[^\s'\",;:()]+|\b[0-9a-f]{8,}\b|\d+(?:\.\d+)?")


def describe(error: BaseException) -> str:
    """Type, message and place of an exception: ``KeyError: 'x' (tune/session/session.py:90, run_sweep)``."""
    where = raised_at(error)
    return _type_and_message(error) + (f" ({where})" if where else "")


def raised_at(error: BaseException) -> str:
    """Where an exception was raised: our innermost line, followed by that of a library if the library raised it.

    Empty for an exception from another process, which has no traceback.
    """
    frames = [(_short(frame.filename), frame.lineno, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [frame for frame in frames if PurePath(frame[0]).parts[0] in _OUR_PACKAGES]
    shown = list(dict.fromkeys([*ours[-1:], *frames[-1:]]))
    return "; ".join(f"{file}:{line}, {function}" for file, line, function in shown)


def signature(error: BaseException) -> str:
    """What two exceptions of one cause have in common: type, place, and the message without its variable parts."""
    return f"{without_variable_parts(_type_and_message(error))} @ {raised_at(error)}"


def without_variable_parts(text: str) -> str:
    """A message without its numbers, addresses and paths."""
    return _VARIABLE_PARTS.sub("#", text)


def _type_and_message(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MESSAGE_LIMIT].removesuffix(": ")


def _short(file: str) -> str:
    """The path of a file relative to the folder from which Python imports it."""
    roots = sorted((root.rstrip("/") for root in sys.path if root), key=len, reverse=True)
    return next((file.removeprefix(f"{root}/") for root in roots if file.startswith(f"{root}/")), file)
