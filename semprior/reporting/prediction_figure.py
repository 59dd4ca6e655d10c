"""Pictures: strips that follow images of a run from their first pseudo-masks to the student."""

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
from semprior.runtime.device import uses_bf16

if TYPE_CHECKING:
    from semprior.training.trainer import Trainer

COLUMNS = ("input", "first pseudo-mask", "evolved pseudo-mask", "teacher", "student", "truth")
_INCH, _DPI = 1.7, 100
_SHOWN = 4  # images
_WINDOW = 64  # side in pixels of what is zoomed to


@dataclass(frozen=True)
class Strip:
    """One row of a picture; each (H,W), what is none is left empty.

    Attributes:
        name: of the image.
        image: uint8 grey.
        points: (P,2) int, rows of (row, column).
        first: bool, the seed.
        evolved: uint8 soft pseudo-mask, 255 is certain.
        teacher: float32 probability.
        student: float32 probability.
        truth: bool.
    """

    name: str
    image: np.ndarray
    points: np.ndarray
    first: np.ndarray | None
    evolved: np.ndarray | None
    teacher: np.ndarray
    student: np.ndarray
    truth: np.ndarray | None


def run_strips(trainer: Trainer, indices: Sequence[int], truths: dict[str, np.ndarray] | None = None) -> list[Strip]:
    """The state of images of a run, between two of its reports; it changes nothing in the run.

    Args:
        trainer: the run.
        indices: of images in its training set.
        truths: masks (H,W) bool by name, for those that the training set was read without.
    """
    scenes = [trainer.training_set.scenes[index] for index in indices]
    images = [scene.image for scene in scenes]
    shared = (trainer.training_set.normalisation, trainer.device, uses_bf16(trainer.config.precision, trainer.device))
    student = student_probabilities(trainer.evaluated.detector, images, *shared)
    teacher = teacher_probabilities(trainer.evaluated, images, trainer.features.whole, *shared)
    strips = []
    for index, scene, guided, bare in zip(indices, scenes, teacher, student, strict=True):
        # a held-out image keeps its seed: labels evolve in training and validation images alone
        evolves = index not in trainer.training_set.holdout_indices
        strips.append(
            Strip(
                name=scene.name,
                image=scene.image,
                points=scene.points,
                first=trainer.training_set.seeds[index].mask,
                evolved=trainer.pseudo_masks.soft[index] if evolves else None,
                teacher=guided,
                student=bare,
                truth=scene.mask if scene.mask is not None else (truths or {}).get(scene.name),
            )
        )
    return strips


def choose_shown(trainer: Trainer) -> list[int]:
    """Indices of images worth watching: with targets, half of them held out where there are any, always the same."""
    chosen: list[int] = []
    held, trained = trainer.training_set.holdout_indices, trainer.training_set.train_indices
    for indices, wanted in ((held, _SHOWN // 2), (trained, _SHOWN)):
        with_targets = [index for index in indices if len(trainer.training_set.scenes[index].points)]
        room = min(wanted, _SHOWN - len(chosen), len(with_targets))
        chosen += [with_targets[place] for place in np.linspace(0, len(with_targets) - 1, room).round().astype(int)]
    return chosen


def draw(strips: Sequence[Strip]) -> np.ndarray:
    """Strips as a picture (H,W,3) uint8 RGB, one a row: the whole input, then every stage zoomed to a window.

    The window lies around the first point and is framed in the input.
    """
    columns = [name for name in COLUMNS if any(_stage(strip, name) is not None for strip in strips)]
    figure = Figure(figsize=(_INCH * len(columns), _INCH * len(strips) + 0.3), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(strips), len(columns), squeeze=False)
    for row, strip in zip(grid, strips, strict=True):
        rows, cols = _window(strip)
        for axes, name in zip(row, columns, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            if axes.get_subplotspec().is_first_row():
                axes.set_title(name, fontsize=8)
            stage = _stage(strip, name)
            if stage is None:
                axes.set_frame_on(False)
                axes.set_box_aspect(1)  # of the size of a window, so that its title stands beside the others
            elif name == "input":
                axes.imshow(stage, cmap="gray")
                corner = (cols.start - 0.5, rows.start - 0.5)
                sides = (cols.stop - cols.start, rows.stop - rows.start)
                axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor="tab:red", linewidth=1))
                axes.set_ylabel(strip.name, fontsize=7)
            else:
                axes.imshow(stage[rows, cols], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_strips(path: Path, strips: Sequence[Strip]) -> None:
    """Write `draw`'s picture as a PNG."""
    write_atomically(path, encode_png(draw(strips)))


def _stage(strip: Strip, name: str) -> np.ndarray | None:
    """What a column shows of a strip; masks and probabilities in 0..1."""
    if name == "input":
        return strip.image
    stage = {
        "first pseudo-mask": strip.first,
        "evolved pseudo-mask": None if strip.evolved is None else strip.evolved / 255,
        "teacher": strip.teacher,
        "student": strip.student,
        "truth": strip.truth,
    }[name]
    return None if stage is None else np.asarray(stage, np.float32)


def _window(strip: Strip) -> tuple[slice, slice]:
    """Rows and columns of the window around the first point, or the middle, inside the image."""
    extents = strip.image.shape
    centre = strip.points[0] if len(strip.points) else [extent // 2 for extent in extents]
    starts = [
        int(np.clip(int(place) - _WINDOW // 2, 0, max(extent - _WINDOW, 0)))
        for place, extent in zip(centre, extents, strict=True)
    ]
    rows, cols = (slice(start, min(start + _WINDOW, extent)) for start, extent in zip(starts, extents, strict=True))
    return rows, cols
