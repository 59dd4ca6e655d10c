"""Names of files and folders that come from outside: from manifests, addresses and commands."""

from __future__ import annotations

import re

from semprior.errors import UserError
from semprior.reading.schema import shown

_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,254}")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


def is_file_name(name: str) -> bool:
    """Whether a text names a file of ours: in no other folder, not hidden, without characters that a shell expands."""
    return _FILE.fullmatch(name) is not None


def is_identifier(name: str) -> bool:
    """Whether a text can be the id of a sweep, which names a folder."""
    return _IDENTIFIER.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """`name`, if it is a relative path that stays inside a storage, such as ``a/b``.

    Raises:
        UserError: it is empty or absolute, has ``..`` in it, or characters that none of our names have.
    """
    if any(part in ("", ".", "..") for part in name.split("/")) or _CONTROL.search(name):
        raise UserError(f"{shown(name)}: is not a name inside a storage")
    return name
