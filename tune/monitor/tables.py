"""Prints rows as a table, JSON or CSV, and formats their cells."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from semprior.errors import UserError
from semprior.io.foreign_text import csv_cell, visible
from semprior.reporting.terminal import cell

FORMATS = ("table", "json", "csv")
_FILE_WIDTH = 250  # columns of a table that goes into a file or a pipe


def check_format(name: str) -> None:
    """Refuse an unknown format.

    Raises:
        UserError: names the known formats.
    """
    if name not in FORMATS:
        raise UserError(f"--format {name}: must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")


def print_table(console: Console, columns: Mapping[str, str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print a table.

    Args:
        console: console to print on; a table that goes elsewhere than to a terminal is not cut to its width.
        columns: alignment by heading, ``left`` or ``right``.
        rows: cells of each row.
        title: line above the table; empty: none.
    """
    table = Table(title=title or None, title_justify="left")
    for heading, side in columns.items():
        table.add_column(cell(heading), justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    (console if console.is_terminal else Console(file=console.file, width=_FILE_WIDTH)).print(table)


def print_rows(rows: Sequence[Mapping[str, Any]], form: str) -> None:
    """Print rows on standard output, as one JSON array or as CSV with a heading of all keys."""
    if form == "json":
        print(json.dumps([dict(row) for row in rows], indent=1))
        return
    keys = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(map(csv_cell, keys))
    writer.writerows([_csv_value(row.get(key)) for key in keys] for row in rows)


def _csv_value(value: object) -> object:
    if isinstance(value, list | dict):
        return json.dumps(value)
    return csv_cell(value) if isinstance(value, str) else value


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The shortest unique ending of each dotted key: ``clusters.count`` is ``count`` if no other key ends so."""
    names: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        for size in range(1, len(parts) + 1):
            tail = ".".join(parts[-size:])
            if sum(other == tail or other.endswith("." + tail) for other in keys) == 1:
                break
        names[key] = tail
    return names


def format_value(value: object) -> str:
    """A short text of a dimension's value; empty for None, where the dimension does not apply."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return visible(",".join(map(str, value))) or "none"
    return visible(str(value))


def format_metric(value: float | None) -> str:
    """A metric with four digits; empty for None."""
    return "" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"
