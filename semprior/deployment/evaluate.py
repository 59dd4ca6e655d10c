"""Scores a checkpoint against the masks of a split (method, section 9), image by image and target by target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semprior.config.schema import Config
from semprior.data.image_tables import SUBSET_TABLE, read_subsets
from semprior.data.images import IntensityRange
from semprior.data.layout import Layout, Masks, Scene, find_layout, read_scenes
from semprior.data.training_set import HeldOut, hold_out
from semprior.deployment.load_model import LoadedTeacher, Student
from semprior.deployment.onnx_model import OnnxStudent
from semprior.errors import UserError
from semprior.evaluation.breakdown import BREAKDOWNS, EvaluatedImage, Part, break_down, evaluate_image, part_of
from semprior.evaluation.conventions import CONVENTIONS, Convention, convention_name, find_convention
from semprior.evaluation.curve import CurvePoint, count_thresholds, curve_of
from semprior.evaluation.metrics import (
    THRESHOLD,
    ImageCounts,
    Metrics,
    bootstrap_errors,
    count_image,
    summarise,
)

HOLDOUT = "holdout"
"""The name of the training images that a run holds out, beside the splits of the data set."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics of one split.

    Attributes:
        metrics: IoU, nIoU and Pd in 0..1, Fa in 1e-6, and the numbers of images and targets.
        errors: bootstrap standard errors of ``iou``, ``niou``, ``pd``, ``fa``, resampling images; NaN for one image.
        split: name of the split.
        images: what was found in each image, in the order of the split.
        threshold: pixels of a strictly higher probability are predicted.
        convention: of the metrics, a name in `CONVENTIONS`.
        curve: the metrics over thresholds; empty unless it was requested.
    """

    metrics: Metrics
    errors: dict[str, float]
    split: str
    images: tuple[EvaluatedImage, ...]
    threshold: float
    convention: str
    curve: tuple[CurvePoint, ...] = ()

    def flat(self) -> dict[str, float | int | str | None]:
        """Metrics, their errors (``iou_se`` ...), numbers and names for JSON; an undefined rate is None."""
        named = {"split": self.split, "threshold": self.threshold, "convention": self.convention}
        return {**flat_part(Part("", self.metrics, self.errors)), **named}

    def breakdowns(self, by: str) -> dict[str, list[Part]]:
        """The metrics of parts (`break_down`) by what they differ in: one of `BREAKDOWNS`, or all that there is.

        Args:
            by: one of `BREAKDOWNS`, or ``all``, which omits ``subset`` if the data set names no subsets.
        """
        has_subsets = any(image.subset is not None for image in self.images)
        names = [name for name in BREAKDOWNS if name == by or (by == "all" and (has_subsets or name != "subset"))]
        return {name: break_down(self.images, name, CONVENTIONS[self.convention]) for name in names}


def check_breakdown(by: str, data: Path) -> None:
    """Check the value of ``--by``, before anything is computed.

    Args:
        by: what a split is to be broken down by.
        data: root of the data set.

    Raises:
        UserError: it is not one of `BREAKDOWNS` or ``all``, or the data set names no subsets.
    """
    if by not in (*BREAKDOWNS, "all"):
        raise UserError(f"--by {by}: must be {', '.join(BREAKDOWNS)} or all")
    if by == "subset" and not read_subsets(data):
        raise UserError(f"--by subset: {data} has no {SUBSET_TABLE} (name,subset), which `semprior data join` writes")


def flat_part(part: Part) -> dict[str, Any]:
    """Metrics, their errors and numbers for JSON; an undefined rate is None."""
    rates = {name: _number(getattr(part.metrics, name)) for name in part.errors}
    errors = {f"{name}_se": _number(error) for name, error in part.errors.items()}
    return {**rates, **errors, "images": part.metrics.images, "targets": part.metrics.targets}


def evaluate(
    model: Student | LoadedTeacher | OnnxStudent,
    data: Path,
    split: str = "test",
    *,
    threshold: float = THRESHOLD,
    convention: str | None = None,
    curve: bool = False,
) -> Evaluation:
    """Run a student or a teacher on a split and score it at the original size.

    Images are read with the intensity range of the training.

    Args:
        model: from `load_model.load_student`, `load_model.load_teacher` or `onnx_model.load_onnx`.
        data: root of the data set, which needs masks.
        split: name of the split, or `HOLDOUT`.
        threshold: of the probability, in 0..1.
        convention: a name in `CONVENTIONS`; None for that of the run's preset.
        curve: whether to compute the metrics over thresholds, too.

    Raises:
        UserError: the data set has a fault or lacks masks, or there is no such split, threshold or convention.
    """
    if not 0 <= threshold < 1:
        raise UserError(f"--threshold {threshold:g}: must be at least 0 and less than 1")
    convention = convention_name(model.info.config.preset) if convention is None else convention
    find_convention(convention)
    layout = find_layout(data)
    scenes = split_scenes(layout, split, model.info.config, model.info.intensity)
    return evaluate_scenes(
        model, scenes, layout.subsets, split, threshold=threshold, convention=convention, curve=curve
    )


def evaluate_scenes(
    model: Student | LoadedTeacher | OnnxStudent,
    scenes: Sequence[Scene],
    subsets: Mapping[str, str],
    split: str,
    *,
    threshold: float = THRESHOLD,
    convention: str,
    curve: bool = False,
    look: Callable[[int, np.ndarray], None] = lambda index, probability: None,
) -> Evaluation:
    """As `evaluate`, on images that are read already.

    Args:
        model: as that of `evaluate`.
        scenes: with their masks; at least one.
        subsets: of a joined data set, by name of the image.
        split: its name, for the result.
        threshold: of the probability, in 0..1.
        convention: a name in `CONVENTIONS`.
        curve: whether to compute the metrics over thresholds, too.
        look: called with the index and the probabilities (H,W) float32 of each image, in any order.
    """
    rules = CONVENTIONS[convention]
    images: dict[int, EvaluatedImage] = {}
    over_thresholds: dict[int, list[ImageCounts]] = {}
    for index, probability in model.each([scene.image for scene in scenes]):
        scene = scenes[index]
        assert scene.mask is not None  # masks are required
        look(index, probability)
        images[index] = evaluate_image(
            scene.name, subsets.get(scene.name), scene.image, probability > threshold, scene.mask, rules
        )
        if curve:
            over_thresholds[index] = count_thresholds(probability, scene.mask, rules)
    ordered = tuple(images[index] for index in range(len(scenes)))
    whole = part_of("", [image.counts for image in ordered], rules)
    points = tuple(curve_of(list(over_thresholds.values()), rules)) if curve else ()
    return Evaluation(whole.metrics, whole.errors, split, ordered, threshold, convention, points)


def split_scenes(
    layout: Layout, split: str, config: Config, intensity: IntensityRange, *, masks: Masks = "required"
) -> list[Scene]:
    """The images of a split.

    Args:
        layout: of the data set.
        split: its name, or `HOLDOUT` for the training images that a run held out.
        config: of the run.
        intensity: of the run.
        masks: as in `read_scenes`; of `HOLDOUT` the points are read in any case.

    Raises:
        UserError: the data set has a fault or lacks required masks, or there is no such split.
    """
    if split != HOLDOUT:
        return read_scenes(layout, split, intensity, masks=masks)
    if not config.data.holds_out:
        raise UserError(f"--split {HOLDOUT}: this run held out no image (data.holdout=0)")
    scenes, parts = run_scenes(layout, config, intensity)
    held_out = [scenes[index] for index in parts.held_out]
    for scene in held_out:
        if scene.mask is None and masks == "required":
            raise UserError(f"{layout.root}: no mask for the image {scene.name}, which this run held out")
    return held_out


def run_scenes(layout: Layout, config: Config, intensity: IntensityRange) -> tuple[list[Scene], HeldOut]:
    """The images of the training and validation splits, with masks where there are any, and what a run does with them.

    Args:
        layout: of the data set.
        config: of the run.
        intensity: of the run.

    Raises:
        UserError: the data set has a fault.
    """
    train = read_scenes(layout, "train", intensity, masks="optional")
    validation = read_scenes(layout, "val", intensity, masks="optional") if "val" in layout.splits else []
    return [*train, *validation], hold_out(train, validation, config.data, layout.groups)


def score(
    probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray], config: Config
) -> tuple[Metrics, dict[str, float]]:
    """Metrics of probabilities (H,W) float against masks (H,W) bool, and their bootstrap standard errors."""
    rules: Convention = CONVENTIONS[convention_name(config.preset)]
    counts = [count_image(p > THRESHOLD, truth) for p, truth in zip(probabilities, truths, strict=True)]
    return summarise(counts, empty_union=rules.empty_union), bootstrap_errors(counts, empty_union=rules.empty_union)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
