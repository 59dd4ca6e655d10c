"""The tables of an evaluation on a terminal: the whole split, and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from semprior.deployment.evaluate import Evaluation
from semprior.evaluation.breakdown import Part
from semprior.evaluation.threshold import threshold_in_words
from semprior.io.wording import plural
from semprior.reporting.terminal import cell, say

METRIC_COLUMNS = (("iou", "IoU", 1, 4), ("niou", "nIoU", 1, 4), ("pd", "Pd", 1, 4), ("fa", "Fa (1e-6)", 1, 2))
"""Name, label, factor and digits of the metrics in tables."""


def show_evaluation(evaluation: Evaluation, title: str, by: str | None, console: Console) -> None:
    """Print the metrics of an evaluation and, if `by` is given, those of its parts.

    Args:
        evaluation: of a student or a teacher.
        title: says of what.
        by: what the parts differ in, as in `Evaluation.breakdowns`, or None.
        console: to print on.
    """
    parts = evaluation.breakdowns(by) if by is not None else {}
    table = Table(title=cell(title), title_justify="left")
    for column in ("metric", "value", "standard error"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    found, errors = evaluation.metrics, evaluation.errors
    for name, label, factor, digits in METRIC_COLUMNS:
        table.add_row(label, _fixed(getattr(found, name) * factor, digits), _fixed(errors[name] * factor, digits))
    if (part := evaluation.without_targets) is not None:
        label = f"Fa (1e-6) of {plural(part.metrics.images, 'image')} without targets"
        table.add_row(label, _fixed(part.metrics.fa, 2), _fixed(part.errors["fa"], 2))
    console.print(table)
    remarks = [f"{plural(found.images, 'image')}, {plural(found.targets, 'target')}, split {evaluation.split}"]
    remarks.append(threshold_in_words(evaluation.threshold, chosen=evaluation.threshold_chosen))
    remarks.append(f"convention {evaluation.convention}")
    say(console, ", ".join(remarks))
    for name, own in parts.items():
        console.print()
        console.print(parts_table(own, name))
    if set(parts) - {"subset"}:
        console.print()
        astray = sum(image.astray for image in evaluation.images)
        say(console, f"{astray} predicted pixels belong to no target: only the IoU of the split counts them")


def parts_table(parts: Sequence[Part], by: str) -> Table:
    """A table with a line for each part; the columns are metrics with their standard errors."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)  # narrow enough for 80 columns
    table.add_column(f"by {by}", overflow="fold")
    for column in ("images", "targets", *(label for _, label, _, _ in METRIC_COLUMNS)):
        table.add_column(column, justify="right", overflow="fold")
    for part in parts:
        cells: list[Any] = [cell(part.name or "-"), str(part.metrics.images), str(part.metrics.targets)]
        for name, _, factor, digits in METRIC_COLUMNS:
            cells.append(with_error(getattr(part.metrics, name) * factor, part.errors[name] * factor, digits - 1))
        table.add_row(*cells)
    return table


def with_error(value: float, error: float, digits: int) -> str:
    """``0.712±0.013``; without the error if it is undefined, and a dash if the value is."""
    digits = 0 if abs(value) >= 1000 else digits
    spread = f"±{error:.{digits}f}" if np.isfinite(error) else ""
    return f"{value:.{digits}f}{spread}" if np.isfinite(value) else "-"


def _fixed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"
