"""SQLite files that other programs made: whose a file is, before anything is written into it."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from semprior.errors import UserError

_ADDRESS = re.compile(r"sqlite(?:\+\w+)?:///(?P<file>[^?]+)(?:\?.*)?")
"""The address of an SQLite file, as SQLAlchemy has it; an absolute path has a slash of its own."""


def sqlite_file(uri: str) -> Path | None:
    """The file of an address like ``sqlite:///FILE``; None for another address, such as that of a server.

    Raises:
        UserError: it is an address of SQLite without a file.
    """
    found = _ADDRESS.fullmatch(uri)
    if uri.startswith("sqlite") and (found is None or found["file"] == ":memory:"):
        raise UserError(f"--to {uri}: names no file; write sqlite:///FILE")
    return Path(found["file"]) if found is not None else None


def require_tables(file: Path, tables: set[str], whose: str) -> bool:
    """Refuse a file that is not an SQLite database with these tables.

    Args:
        file: path of the file.
        tables: names of some of its tables.
        whose: what a database with these tables is, like ``a database of MLflow``.

    Returns:
        Whether the file exists and holds anything.

    Raises:
        UserError: it holds something else, or lies in a folder that does not exist.
    """
    if not file.parent.is_dir():
        raise UserError(f"{file.parent}: no such folder")
    if not file.exists():
        return False
    if not file.is_file():
        raise UserError(f"{file}: is not {whose}; choose another file")
    if not file.stat().st_size:
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True)) as database:
            found = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise UserError(f"{file}: is not {whose} ({error}); choose another file") from error
    if not tables <= found:
        raise UserError(f"{file}: is not {whose}; choose another file")
    return True
