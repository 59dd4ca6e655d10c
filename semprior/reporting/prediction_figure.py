"""Figures of a run's images: from the first pseudo-mask over teacher and student to the true mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from semprior.data.images import encode_png
from semprior.evaluation.inference import student_probabilities, teacher_probabilities
from semprior.io.atomic_files import write_atomically
from semprior.io.foreign_text import visible
from semprior.labels.label_history import SIDE, window_around
from semprior.runtime.device import uses_bf16

if TYPE_CHECKING:
    from semprior.training.trainer import Trainer

COLUMNS = ("input", "first pseudo-mask", "evolved pseudo-mask", "teacher", "student", "truth")
_INCH, _DPI = 1.7, 100
_SHOWN = 4  # images


@dataclass(frozen=True)
class FigureRow:
    """What one row of a figure shows of an image (H,W); a field that is None leaves its place empty.

    Attributes:
        name: of the image.
        image: uint8 grey levels.
        points: (P,2) int, rows of (row, column).
        first: bool, the seed.
        evolved: uint8 soft pseudo-mask; 255 is certain.
        teacher: float32 probability.
        student: float32 probability.
        truth: bool mask.
    """

    name: str
    image: np.ndarray
    points: np.ndarray
    first: np.ndarray | None
    evolved: np.ndarray | None
    teacher: np.ndarray
    student: np.ndarray
    truth: np.ndarray | None


def figure_rows(
    trainer: Trainer, indices: Sequence[int], truths: dict[str, np.ndarray] | None = None
) -> list[FigureRow]:
    """A row for each image, from the present state of a run, which stays unchanged.

    Args:
        trainer: the run, before its first report or between two of them.
        indices: of the images in its training set.
        truths: masks (H,W) bool by image name, for images whose masks the training set lacks.
    """
    scenes = [trainer.training_set.scenes[index] for index in indices]
    images = [scene.image for scene in scenes]
    shared = (trainer.training_set.normalisation, trainer.device, uses_bf16(trainer.config.precision, trainer.device))
    student = student_probabilities(trainer.evaluated.detector, images, *shared)
    teacher = teacher_probabilities(trainer.evaluated, images, trainer.features.whole, *shared)
    rows = []
    for index, scene, guided, bare in zip(indices, scenes, teacher, student, strict=True):
        # A held-out image keeps its seed: masks are refined, or those of the reserve made, for all others alone.
        labels = trainer.config.labels
        changes = labels.refine != "none" or labels.pool != "all"
        refined = changes and index not in trainer.training_set.holdout_indices
        rows.append(
            FigureRow(
                name=scene.name,
                image=scene.image,
                points=scene.points,
                first=trainer.training_set.seeds[index].mask,
                evolved=trainer.pseudo_masks.soft[index] if refined else None,
                teacher=guided,
                student=bare,
                truth=scene.mask if scene.mask is not None else (truths or {}).get(scene.name),
            )
        )
    return rows


def choose_images(trainer: Trainer) -> list[int]:
    """Indices of a few images with targets, half of them held out where possible; the same at every call."""
    chosen: list[int] = []
    held, trained = trainer.training_set.holdout_indices, trainer.training_set.train_indices
    for indices, wanted in ((held, _SHOWN // 2), (trained, _SHOWN)):
        with_targets = [index for index in indices if len(trainer.training_set.scenes[index].points)]
        room = min(wanted, _SHOWN - len(chosen), len(with_targets))
        chosen += [with_targets[place] for place in np.linspace(0, len(with_targets) - 1, room).round().astype(int)]
    return chosen


def draw_figure(rows: Sequence[FigureRow]) -> np.ndarray:
    """Draw a figure, (H,W,3) uint8 RGB: for each row the whole input, then every stage enlarged around the first point.

    A frame in the input marks the enlarged part. A column that no row fills is left out.
    """
    columns = [name for name in COLUMNS if any(_stage(row, name) is not None for row in rows)]
    figure = Figure(figsize=(_INCH * len(columns), _INCH * len(rows) + 0.3), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for axes_of_row, row in zip(grid, rows, strict=True):
        window = _window(row)
        for axes, name in zip(axes_of_row, columns, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            if axes.get_subplotspec().is_first_row():
                axes.set_title(name, fontsize=8)
            stage = _stage(row, name)
            if stage is None:
                axes.set_frame_on(False)
                axes.set_box_aspect(1)  # as large as a window, so that its title is level with the others
            elif name == "input":
                axes.imshow(stage, cmap="gray")
                lines, columns_of_pixels = window
                corner = (columns_of_pixels.start - 0.5, lines.start - 0.5)
                sides = (columns_of_pixels.stop - columns_of_pixels.start, lines.stop - lines.start)
                axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor="tab:red", linewidth=1))
                axes.set_ylabel(visible(row.name), fontsize=7, parse_math=False)
            else:
                axes.imshow(stage[window], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib 3.10 leaves its canvases untyped
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def write_figure(path: Path, rows: Sequence[FigureRow]) -> None:
    """Draw a figure and write it as a PNG."""
    write_atomically(path, encode_png(draw_figure(rows)))


def _stage(row: FigureRow, name: str) -> np.ndarray | None:
    """The picture in a column of a row; masks and probabilities in 0..1."""
    if name == "input":
        return row.image
    stage = {
        "first pseudo-mask": row.first,
        "evolved pseudo-mask": None if row.evolved is None else row.evolved / 255,
        "teacher": row.teacher,
        "student": row.student,
        "truth": row.truth,
    }[name]
    return None if stage is None else np.asarray(stage, np.float32)


def _window(row: FigureRow) -> tuple[slice, slice]:
    """Rows and columns of the part of an image around its first point, or around its middle if it has none."""
    shape = row.image.shape
    return window_around(row.points[0] if len(row.points) else [extent // 2 for extent in shape], shape, SIDE)
