"""A picture of the curves of a trial, for programs that show pictures."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from semprior.evaluation.image_sums import TEACHER
from semprior.io.foreign_text import visible
from tune.store.records import Record

_HOLDOUT = "holdout/"
_WIDTH, _HEIGHT, _DPI = 7.0, 3.0, 100  # inches, pixels an inch
_LINES = (("#0072b2", "-", "student"), ("#d55e00", "--", "teacher"))  # told apart without colours, too


def curve_picture(title: str, reports: Sequence[Record], objectives: Sequence[str]) -> bytes:
    """A PNG of the first objective of student and teacher by epoch, and of the losses.

    Args:
        title: of the picture.
        reports: of the epochs of the trial, in order.
        objectives: names of the objectives of the sweep.
    """
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(visible(title), fontsize=10, parse_math=False)
    values, losses = figure.subplots(1, 2)
    first = objectives[0]
    lines = [(first, *_LINES[0])]
    if first.startswith(_HOLDOUT) and TEACHER not in first:
        lines.append((f"{_HOLDOUT}{TEACHER}{first.removeprefix(_HOLDOUT)}", *_LINES[1]))
    for metric, colour, style, label in lines:
        told = [(report.epoch + 1, report.metrics[metric]) for report in reports if metric in report.metrics]
        if told:
            values.plot(*zip(*told, strict=True), style, color=colour, label=label, marker=".")
    for (metric, label), (colour, style, _) in zip(
        (("inner_loss", "inner"), ("outer_loss", "outer")), _LINES, strict=True
    ):
        told = [(report.epoch + 1, report.metrics[metric]) for report in reports if metric in report.metrics]
        if told:
            losses.plot(*zip(*told, strict=True), style, color=colour, label=label)
    for axes, label in ((values, first), (losses, "loss")):
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    content = BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
