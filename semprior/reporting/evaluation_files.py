"""The files of an evaluation: its curve of Pd against Fa as a table and a picture, and a table with a row an image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from semprior.data.images import encode_png
from semprior.deployment.evaluate import Evaluation
from semprior.errors import UserError
from semprior.evaluation.breakdown import EvaluatedImage
from semprior.evaluation.curve import CurvePoint
from semprior.io.atomic_files import write_atomically
from semprior.io.foreign_text import csv_cell, visible

RATES = ("iou", "niou", "pd", "fa")
CURVE_COLUMNS = ("threshold", *(f"{name}{suffix}" for name in RATES for suffix in ("", "_se")))
IMAGE_COLUMNS = (
    *("name", "subset", "width", "height", "targets", "matched", "intersection", "union", "iou"),
    *("false_pixels", "fa", "astray", "sizes", "contrasts", "kinds"),
)
_FAINT = 0.05  # least Fa in 1e-6 on the axis of the picture, which is logarithmic


def check_file(path: Path, option: str) -> None:
    """Check that a table can be written, before anything is computed.

    Raises:
        UserError: the name does not end in ``.csv``, or its folder does not exist.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"{option} {path}: the name must end in .csv")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: no folder {path.parent}")
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder")


def write_curve(evaluation: Evaluation, path: Path, title: str) -> Path:
    """Write the curve as a table and, beside it, as a PNG.

    Args:
        evaluation: with its curve.
        path: of the table, which ends in ``.csv``.
        title: of the picture.

    Returns:
        The path of the picture.
    """
    rows = []
    for point in evaluation.curve:
        pairs = [(getattr(point.metrics, name), point.errors[name]) for name in RATES]
        rows.append([f"{point.threshold:g}", *(_cell(value) for pair in pairs for value in pair)])
    picture = path.with_suffix(".png")
    write_atomically(path, _table(CURVE_COLUMNS, rows))
    write_atomically(picture, encode_png(draw_curve(evaluation.curve, evaluation.threshold, title)))
    return picture


def write_images(images: Sequence[EvaluatedImage], path: Path) -> None:
    """Write a table with a row for each image; sizes, contrasts and kinds are those of its targets, in their order."""
    write_atomically(path, _table(IMAGE_COLUMNS, (_image_row(image) for image in images)))


def _image_row(image: EvaluatedImage) -> list[object]:
    counts, traits = image.counts, [target.traits for target in image.targets]
    return [
        *(csv_cell(image.name), csv_cell(image.subset or ""), image.shape[1], image.shape[0]),
        *(counts.targets, counts.matched, counts.intersection, counts.union),
        _cell(counts.intersection / counts.union if counts.union else float("nan")),
        *(counts.false_pixels, _cell(1e6 * counts.false_pixels / counts.pixels), image.astray),
        " ".join(str(target.size) for target in traits),
        " ".join(f"{target.contrast:.1f}" for target in traits),
        " ".join(target.kind for target in traits),
    ]


def draw_curve(curve: Sequence[CurvePoint], threshold: float, title: str) -> np.ndarray:
    """A picture of Pd against Fa with standard errors, (H,W,3) uint8 RGB.

    Args:
        curve: of an evaluation.
        threshold: that is marked, if the curve has it.
        title: of the picture.
    """
    figure = Figure(figsize=(5.2, 3.8), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    fa = np.maximum([point.metrics.fa for point in curve], _FAINT)
    pd = np.array([point.metrics.pd for point in curve])
    errors = {name: np.nan_to_num([point.errors[name] for point in curve]) for name in ("fa", "pd")}
    below = np.minimum(errors["fa"], fa - _FAINT)
    axes.errorbar(
        fa, pd, xerr=[below, errors["fa"]], yerr=errors["pd"], fmt="o-", markersize=3, linewidth=1, elinewidth=0.5
    )
    for point, x, y in zip(curve, fa, pd, strict=True):
        if point.threshold == threshold:
            axes.plot([x], [y], "o", color="tab:red", markersize=6, label=f"threshold {threshold:g}")
            axes.legend(loc="lower right", fontsize=8)
    axes.set(xscale="log", xlabel="Fa, 1e-6 of all pixels", ylabel="Pd", ylim=(-0.02, 1.02))
    axes.set_title(visible(title), fontsize=9, parse_math=False)
    axes.grid(alpha=0.3)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib 3.10 leaves its canvases untyped
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode(errors="surrogateescape")


def _cell(value: float) -> str:
    """A rate; empty if it is undefined."""
    return f"{value:.6g}" if np.isfinite(value) else ""
