"""Scores evaluations and selects the best epoch: by points, or by masks of the holdout or the test split."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from semprior.config.schema import Config
from semprior.data.layout import Scene
from semprior.data.sparse_masks import SparseMasks
from semprior.data.training_set import TrainingSet
from semprior.evaluation.conventions import CONVENTIONS, convention_name
from semprior.evaluation.image_sums import MASK_TERMS, POINT_TERMS, TEACHER, ImageSums, image_sums
from semprior.evaluation.metrics import bootstrap_errors, count_image, metric_table, summarise
from semprior.evaluation.point_score import point_score_of, point_table
from semprior.evaluation.threshold import best_threshold, threshold_terms
from semprior.labels.seeds import contrast_seed


@dataclass(frozen=True)
class Scores:
    """The scores of one evaluation.

    Attributes:
        flat: metrics by name: ``holdout/point_score``, ``holdout/iou``, ``holdout/iou_se``, ``holdout/teacher/iou`` ...
        best: whether the student's value of the selection metric is the best so far.
        best_teacher: likewise of the teacher, which the published protocol selects for itself; False elsewhere.
        images: the terms of the metrics, image by image; None without evaluated images.
    """

    flat: dict[str, float]
    best: bool
    best_teacher: bool = False
    images: ImageSums | None = None


class Selector:
    """Keeps the best evaluation of a run, and the masks and the chosen thresholds of the last one.

    Args:
        config: names the selection metric.
        training_set: holds the evaluated scenes, in the order of the predictions.

    Attributes:
        thresholds: of ``student`` and ``teacher``, as the last evaluation chose them; empty before the first one, and
            where no threshold is chosen: under ``paper``, and without a holdout.
    """

    def __init__(self, config: Config, training_set: TrainingSet) -> None:
        self.by = config.select.by
        self.published = config.follows_paper  # of equal epochs the first, and none with a value of 0
        self.empty_union = CONVENTIONS[convention_name(config.preset)].empty_union
        self.scenes = (
            training_set.test
            if self.by == "test/iou"
            else [training_set.scenes[i] for i in training_set.holdout_indices]
        )
        self.plausible = [] if self.by == "test/iou" else [plausible_areas(scene) for scene in self.scenes]
        self.thresholds: dict[str, float] = {}
        self.previous: dict[str, SparseMasks] = {}
        self.best_value: float | None = None
        self.best_epoch: int | None = None
        self.best_teacher = 0.0

    @property
    def chooses_threshold(self) -> bool:
        """Whether evaluations choose a threshold, by the points of held-out images; the test split never does."""
        return bool(self.plausible) and not self.published

    def threshold_terms(self, index: int, probability: np.ndarray) -> np.ndarray:
        """The terms by which a threshold is chosen, of the scene `index`; (H,W) float32 to `threshold_terms`."""
        return threshold_terms(probability, self.scenes[index].points, self.plausible[index])

    def choose_threshold(self, who: str, terms: Iterable[np.ndarray]) -> None:
        """Choose the threshold of ``student`` or ``teacher``.

        Args:
            who: one of them.
            terms: of each scene, in their order.
        """
        self.thresholds[who] = best_threshold(terms)

    def score(self, epoch: int, student: Sequence[np.ndarray], teacher: Sequence[np.ndarray]) -> Scores:
        """Score the masks of student and teacher, (H,W) bool per scene, of which one at a time is in memory."""
        flat: dict[str, float] = {}
        terms: dict[str, np.ndarray] = {}
        split = "test" if self.by == "test/iou" else "holdout"
        for who, prefix, masks in (("student", split, student), ("teacher", f"{split}/teacher", teacher)):
            if not len(masks):
                continue
            by = TEACHER if who == "teacher" else ""
            if who in self.thresholds:
                flat[f"{prefix}/threshold"] = self.thresholds[who]
            if self.plausible:
                values, table = self._by_points(who, masks)
                flat |= {f"{prefix}/{name}": value for name, value in values.items()}
                terms |= {f"{by}{term}": column for term, column in zip(POINT_TERMS, table.T, strict=True)}
            if all(scene.mask is not None for scene in self.scenes):
                values, table = self._by_masks(masks)
                flat |= {f"{prefix}/{name}": value for name, value in values.items()}
                terms |= {f"{by}{term}": column for term, column in zip(MASK_TERMS, table.T, strict=True)}
        key = self.by if self.by != "point_score" else "holdout/point_score"
        value = flat.get(key, float(epoch))  # without a holdout the latest epoch is the best
        value = value if np.isfinite(value) else 0.0  # without any target and prediction there is no IoU
        if self.published and key in flat:
            best = value > (self.best_value or 0.0)
        else:
            best = self.best_value is None or value >= self.best_value
        if best:
            self.best_value, self.best_epoch = value, epoch
        taught = flat.get(f"{split}/teacher/{key.partition('/')[2]}", 0.0) if self.published else 0.0
        best_teacher = taught > self.best_teacher
        if best_teacher:
            self.best_teacher = taught
        images = image_sums([scene.name for scene in self.scenes], terms) if terms else None
        return Scores(flat, best, best_teacher, images)

    def _by_points(self, who: str, masks: Sequence[np.ndarray]) -> tuple[dict[str, float], np.ndarray]:
        points = [scene.points for scene in self.scenes]
        table = point_table(masks, self.previous.get(who), points, self.plausible)
        self.previous[who] = SparseMasks.pack(masks, bool)
        names = {"score": "point_score", "pd": "point_pd", "fa": "point_fa"}
        scored = dataclasses.asdict(point_score_of(table))
        return {names.get(name, f"point_{name}"): value for name, value in scored.items()}, table

    def _by_masks(self, masks: Sequence[np.ndarray]) -> tuple[dict[str, float], np.ndarray]:
        truths = [scene.mask for scene in self.scenes if scene.mask is not None]
        counts = [count_image(mask, truth) for mask, truth in zip(masks, truths, strict=True)]
        found = summarise(counts, empty_union=self.empty_union)
        errors = bootstrap_errors(counts, empty_union=self.empty_union)
        values = {name: float(getattr(found, name)) for name in ("iou", "niou", "pd", "fa")}
        values |= {f"{name}_se": float(errors[name]) for name in values}
        return values, metric_table(counts, self.empty_union)

    def values(self) -> dict[str, Any]:
        """The best evaluation, for a snapshot."""
        best = {"best_value": self.best_value, "best_epoch": self.best_epoch}
        return best | ({"best_teacher": self.best_teacher} if self.published else {})

    def stored(self) -> dict[str, np.ndarray]:
        """The masks of the last evaluation, for a snapshot."""
        stored = [masks.stored(f"previous.{who}") for who, masks in self.previous.items()]
        return {name: array for arrays in stored for name, array in arrays.items()}

    def restore(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Restore the state that `stored` and `values` returned."""
        self.best_value, self.best_epoch = values["best_value"], values["best_epoch"]
        self.best_teacher = values.get("best_teacher", 0.0)
        shapes = [scene.image.shape for scene in self.scenes]
        for who in ("student", "teacher"):
            name = f"previous.{who}"
            if f"{name}.packed" in arrays:
                self.previous[who] = SparseMasks.restore(arrays, name, shapes, bool)


def plausible_areas(scene: Scene) -> np.ndarray:
    """The area in pixels of the contrast seed at each point of a scene, (P,); points of one component share it."""
    seed = contrast_seed(scene.image, scene.points).mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(seed.astype(np.uint8), connectivity=8)
    if not len(scene.points):
        return np.zeros(0)
    components = labels[scene.points[:, 0], scene.points[:, 1]]
    sharing = np.array([np.count_nonzero(components == component) for component in components])
    areas: np.ndarray = stats[components, cv2.CC_STAT_AREA] / sharing
    return areas
