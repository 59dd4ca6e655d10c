"""Rows as a table, JSON or CSV, and how their cells are written."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from semprior.errors import UserError

FORMATS = ("table", "json", "csv")
_WIDE = 250  # columns for a table that goes into a file or a pipe


def check_format(name: str) -> None:
    """Refuse a format that is not known."""
    if name not in FORMATS:
        raise UserError(f"--format {name}: must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")


def print_table(console: Console, columns: Mapping[str, str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table.

    Args:
        console: to print it on; where it is no terminal nothing is cut to its width.
        columns: by heading, ``left`` or ``right``.
        rows: the cells.
        title: above it.
    """
    table = Table(title=title or None, title_justify="left")
    for heading, side in columns.items():
        table.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    (console if console.is_terminal else Console(file=console.file, width=_WIDE)).print(table)


def print_rows(rows: Sequence[Mapping[str, Any]], form: str) -> None:
    """Rows on standard output, as one JSON array or as CSV with the first row's keys for a heading."""
    if form == "json":
        print(json.dumps([dict(row) for row in rows], indent=1))
        return
    keys = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(sys.stdout, keys, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()}
        )


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key's shortest ending that no other shares: ``clusters.count`` is ``count`` if alone with it."""
    names: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        for size in range(1, len(parts) + 1):
            tail = ".".join(parts[-size:])
            if sum(other == tail or other.endswith("." + tail) for other in keys) == 1:
                break
        names[key] = tail
    return names


def text(value: Any) -> str:  # noqa: ANN401
    """A value of a dimension, short; nothing where it does not apply."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def number(value: float | None) -> str:
    """A metric with four digits; nothing where there is none."""
    return "" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
