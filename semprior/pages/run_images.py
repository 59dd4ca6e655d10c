"""The images of a run, and what its student finds in a split of its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semprior.config.true_masks import TRUE_MASKS
from semprior.data.layout import Layout, all_masked, find_layout
from semprior.data.sparse_masks import SparseMasks
from semprior.data.training_set import TrainingSet
from semprior.deployment.evaluate import HOLDOUT, Evaluation, evaluate_scenes, run_scenes, split_scenes
from semprior.deployment.load_model import CheckpointInfo, Student
from semprior.evaluation.conventions import convention_name
from semprior.io.checkpoint import Snapshot
from semprior.labels.label_history import LabelWindow, label_windows
from semprior.labels.seeds import SEEDS
from semprior.pages.detections import ExaminedImage, examine
from semprior.training.trainer import data_digest


@dataclass(frozen=True)
class SplitFindings:
    """What a student found in a split.

    Attributes:
        split: its name.
        images: in the order of the split.
        evaluation: against masks, with its curve; None if an image has no mask.
    """

    split: str
    images: tuple[ExaminedImage, ...]
    evaluation: Evaluation | None


def run_images(root: Path, info: CheckpointInfo, snapshot: Snapshot) -> TrainingSet | None:
    """The images of a run in the order of its training set, without seeds; None if the data are not those of the run.

    Args:
        root: of the data set.
        info: the facts about the run.
        snapshot: of the run; the digest of the data that it records is compared.

    Raises:
        UserError: the data set has a fault.
    """
    scenes, parts = run_scenes(find_layout(root), info.config, info.intensity)
    found = TrainingSet(
        scenes=[scenes[index] for index in (*parts.train, *parts.validation, *parts.held_out)],
        train=len(parts.train),
        validation=len(parts.validation),
        seeds=[],
        clusters=snapshot.arrays["clusters"],
        normalisation=info.normalisation,
        intensity=info.intensity,
        test=[],
    )
    return found if data_digest(found) == snapshot.values.get("data") else None


def find_in_split(student: Student, root: Path, split: str) -> SplitFindings:
    """Run a student on a split and find its hits, misses and false alarms.

    With masks for all images it is evaluated as by `semprior evaluate`, else by points.

    Args:
        student: of a run.
        root: of the data set.
        split: name of the split, or `HOLDOUT`.

    Raises:
        UserError: the data set has a fault, or there is no such split.
    """
    layout, config = find_layout(root), student.info.config
    masked = split != HOLDOUT and _all_masked(layout, split)
    scenes = split_scenes(layout, split, config, student.info.intensity, masks="required" if masked else "optional")
    examined: dict[int, ExaminedImage] = {}

    def look(index: int, probability: np.ndarray) -> None:
        scene = scenes[index]
        mask = scene.mask if with_masks else None
        found = examine(probability, scene.points, mask, student.info.threshold)
        examined[index] = ExaminedImage(scene.name, scene.image, (found,))

    evaluation = None
    with_masks = all(scene.mask is not None for scene in scenes)
    if with_masks:
        convention = convention_name(config.preset)
        evaluation = evaluate_scenes(
            student, scenes, layout.subsets, split, convention=convention, curve=True, look=look
        )
    else:
        for index, probability in student.each([scene.image for scene in scenes]):
            look(index, probability)
    return SplitFindings(split, tuple(examined[index] for index in range(len(scenes))), evaluation)


def _all_masked(layout: Layout, split: str) -> bool:
    return layout.has_masks and all_masked(layout, split)


def labels_of_checkpoint(images: TrainingSet, snapshot: Snapshot, how: str) -> dict[int, list[LabelWindow]]:
    """The first and the last pseudo-masks of a run of an earlier version, which kept none in between, by epoch.

    Args:
        images: of the run.
        snapshot: its last checkpoint.
        how: the setting `labels.seed`.
    """
    shapes = [scene.image.shape for scene in images.scenes]
    soft = SparseMasks.restore(snapshot.arrays, "soft", shapes)

    def seed_of(index: int) -> np.ndarray:
        scene = images.scenes[index]
        mask = scene.mask if how == TRUE_MASKS and scene.mask is not None else None
        found = next(SEEDS[how]([scene], {})).mask if mask is None else mask
        return np.where(found, np.uint8(255), np.uint8(0))

    last = max(0, snapshot.values["epoch"] - 1)
    return {0: label_windows(images, seed_of), last: label_windows(images, soft.__getitem__)}
