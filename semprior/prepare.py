"""From a data set on disk to what a trainer takes: scenes, seeds, clusters and features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from semprior.clusters import capped_count
from semprior.config import Config, Resolved
from semprior.data.batches import Normalisation
from semprior.data.layout import IntensityRange, Layout, Scene, normalisation, split_holdout
from semprior.errors import UserError
from semprior.labels.seed import Seed
from semprior.models.bank import FeatureBank
from semprior.models.detector import detector_spec
from semprior.models.features import Features
from semprior.models.scam import placed_stages
from semprior.models.vfm import VFM, load_vfm
from semprior.pictures import Pictures

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingSet:
    """The images of a run in one order, that of their indices: training, validation, holdout.

    Attributes:
        scenes: all of them.
        train: number of training images; they come first.
        validation: number of validation images; they come next.
        seeds: the first pseudo-mask of each image.
        clusters: (n,) int64, the cluster of each image.
        normalisation: of grey levels.
        intensity: how source grey values became 0..255.
        test: scenes with masks; read only where the preset `paper` chooses by them.
    """

    scenes: list[Scene]
    train: int
    validation: int
    seeds: list[Seed]
    clusters: np.ndarray
    normalisation: Normalisation
    intensity: IntensityRange
    test: list[Scene]

    @property
    def train_indices(self) -> range:
        """Indices of the training images."""
        return range(self.train)

    @property
    def validation_indices(self) -> range:
        """Indices of the validation images."""
        return range(self.train, self.train + self.validation)

    @property
    def holdout_indices(self) -> range:
        """Indices of the images held out to choose the epoch on."""
        return range(self.train + self.validation, len(self.scenes))


def read_training_set(layout: Layout, resolved: Resolved, say: Say, cache: Path | None = None) -> TrainingSet:
    """Read, seed and cluster the images of a run.

    Args:
        layout: of the data set.
        resolved: the config and which of its keys the user chose.
        say: takes one line for each thing the user should know.
        cache: folder where images, seeds and statistics are shared with other runs; none: they are made for this one.

    Raises:
        UserError: the data set has a fault, or a setting does not fit it.
    """
    config = resolved.config
    pictures = Pictures(layout, "optional" if config.data.holdout else "never", cache)
    train, validation = pictures.scenes[: pictures.train], pictures.scenes[pictures.train :]
    mean, std = normalisation(pictures.scenes)
    kept, held = split_holdout(
        [s.name for s in train], [len(s.points) for s in train], config.data.holdout, config.data.holdout_seed
    )
    if config.select.by != "test/iou" and not held:
        say("no image is held out: the last epoch is taken as the best")
    if config.select.by == "holdout/iou" and any(train[i].mask is None for i in held):
        raise UserError("select.by=holdout/iou needs masks of the training images; choose by point_score")
    if config.outer.every and len(validation) < config.data.batch:
        say(f"no outer steps: {len(validation)} validation images are fewer than a batch of {config.data.batch}")
    order = [*kept, *range(len(train), len(pictures.scenes)), *held]
    test = []
    if config.select.by == "test/iou":
        say("preset paper: the TEST split is read at every evaluation, and the best epoch is chosen on it")
        test = pictures.test()
    seeds = pictures.seeds(config.labels.seed)
    return TrainingSet(
        scenes=[pictures.scenes[i] for i in order],
        train=len(kept),
        validation=len(validation),
        seeds=[seeds[i] for i in order],
        clusters=_clusters(pictures, order, resolved, say),
        normalisation=Normalisation(mean, std),
        intensity=pictures.intensity,
        test=test,
    )


def as_used(config: Config, training_set: TrainingSet) -> Config:
    """A config as a run on these images uses it, and should record it: with at most as many clusters as images."""
    used = min(config.clusters.count, len(training_set.scenes))
    return replace(config, clusters=replace(config.clusters, count=used))


def _clusters(pictures: Pictures, order: Sequence[int], resolved: Resolved, say: Say) -> np.ndarray:
    config = resolved.config.clusters
    count, remark = capped_count(config.count, len(order), explicit="clusters.count" in resolved.chosen)
    if remark:
        say(remark)
    if count == 1:
        return np.zeros(len(order), np.int64)
    return pictures.clusters(order, count, config.seed)


def load_frozen(config: Config, device: torch.device, say: Say) -> VFM | None:
    """The VFM of a run, before anything is computed; None where nothing is modulated.

    Args:
        config: of the run.
        device: where the VFM runs.
        say: takes one line for each thing the user should know.

    Raises:
        UserError: as `load_vfm`.
    """
    if not placed_stages(config.scam.stages, len(detector_spec(config.detector).stages)):
        return None
    vfm = load_vfm(config.vfm.name, config.vfm.weights, device)
    if vfm.random:
        say(f"{config.vfm.name} has RANDOM weights (vfm.weights=random): the teacher learns no semantics from it")
    return vfm


def load_features(config: Config, training_set: TrainingSet, cache: Path, device: torch.device, say: Say) -> Features:
    """`load_frozen`, then `banked`."""
    return banked(config, load_frozen(config, device, say), training_set, cache, device, say)


def banked(
    config: Config, vfm: VFM | None, training_set: TrainingSet, cache: Path, device: torch.device, say: Say
) -> Features:
    """The VFM with, unless features are to be exact, the bank of the run's images.

    Args:
        config: of the run.
        vfm: of `load_frozen`.
        training_set: its images.
        cache: folder of feature banks, shared by runs.
        device: where the VFM runs.
        say: takes one line for each thing the user should know.
    """
    if vfm is None or config.vfm.features == "exact":
        return Features(vfm, None)
    images = [scene.image for scene in training_set.scenes]

    def progress(done: int, total: int) -> None:
        if done % 100 == 0:
            say(f"feature bank: {done} of {total} images computed")

    bank = FeatureBank.build(cache, vfm, images, config.vfm.bank_gb, device, progress)
    say(bank.describe())
    return Features(vfm, bank)
