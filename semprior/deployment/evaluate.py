"""Scores a checkpoint against the masks of a split (method, section 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semprior.config.schema import Config
from semprior.data.layout import find_layout, read_scenes
from semprior.deployment.load_model import LoadedTeacher, Student
from semprior.evaluation.metrics import THRESHOLD, Metrics, bootstrap_errors, count_image, empty_union_of, summarise


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one split.

    Attributes:
        metrics: IoU, nIoU and Pd in 0..1, Fa in 1e-6, and the numbers of images and targets.
        errors: bootstrap standard errors of ``iou``, ``niou``, ``pd``, ``fa``, resampling images.
        split: name of the split.
    """

    metrics: Metrics
    errors: dict[str, float]
    split: str

    def flat(self) -> dict[str, float | int | str | None]:
        """``iou, niou, pd, fa, images, targets, split`` for JSON; an undefined rate is None."""
        found = self.metrics
        rates = {name: _number(getattr(found, name)) for name in ("iou", "niou", "pd", "fa")}
        return {**rates, "images": int(found.images), "targets": int(found.targets), "split": self.split}


def evaluate(model: Student | LoadedTeacher, data: Path, split: str = "test") -> Evaluation:
    """Run a student or a teacher on a split and score it at the original size.

    Images are read with the intensity range of the training. In nIoU, the preset ``paper`` counts an image without any
    predicted or true target as 0; otherwise such an image is left out.

    Args:
        model: from `load_model.load_student` or `load_model.load_teacher`.
        data: root of the data set, which needs masks.
        split: name of the split.

    Raises:
        UserError: the data set has a fault or lacks masks.
    """
    scenes = read_scenes(find_layout(data), split, model.info.intensity, masks="required")
    truths = [scene.mask for scene in scenes if scene.mask is not None]
    probabilities = model.probabilities([scene.image for scene in scenes])
    metrics, errors = score(probabilities, truths, model.info.config)
    return Evaluation(metrics, errors, split)


def score(
    probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray], config: Config
) -> tuple[Metrics, dict[str, float]]:
    """Metrics of probabilities (H,W) float against masks (H,W) bool, and their bootstrap standard errors."""
    counts = [count_image(p > THRESHOLD, truth) for p, truth in zip(probabilities, truths, strict=True)]
    empty_union = empty_union_of(config.preset)
    return summarise(counts, empty_union=empty_union), bootstrap_errors(counts, empty_union=empty_union)


def show(evaluation: Evaluation, title: str, write: Callable[[object], None]) -> None:
    """Write a table of an evaluation with `write`, the ``print`` of a rich console."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("metric", "value", "standard error"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    found, errors = evaluation.metrics, evaluation.errors
    for name, label, factor, digits in METRIC_COLUMNS:
        value, error = getattr(found, name) * factor, errors[name] * factor
        table.add_row(label, f"{value:.{digits}f}", f"{error:.{digits}f}")
    write(table)
    write(f"{found.images} images, {found.targets} targets, split {evaluation.split}")


METRIC_COLUMNS = (("iou", "IoU", 1, 4), ("niou", "nIoU", 1, 4), ("pd", "Pd", 1, 4), ("fa", "Fa (1e-6)", 1, 2))
"""Name, label, factor and digits of the metrics in tables."""


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
