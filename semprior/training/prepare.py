"""From a data folder to a ready trainer: scenes, seeds, clusters and features in one function.

`semprior train`, the trials of a sweep, the dry run of a sweep and the demo all call `prepare_trainer`, so that what
one of them measures or decides holds for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from semprior.clustering.cluster import capped_count
from semprior.config.epochs import short_epochs
from semprior.config.schema import Config, Resolved
from semprior.config.true_masks import true_masks_remark
from semprior.data.batches import Normalisation
from semprior.data.layout import Layout, content_remarks, find_layout, normalisation
from semprior.data.training_set import TrainingSet, hold_out
from semprior.errors import UserError
from semprior.foundation.feature_bank import FeatureBank
from semprior.foundation.feature_source import Features
from semprior.foundation.vfm import VFM, load_vfm
from semprior.io.wording import plural
from semprior.models.detector import detector_spec
from semprior.models.stages import placed_stages
from semprior.runtime.device import common_precision, device_label, precision_remark
from semprior.runtime.distributed import rank, workers
from semprior.runtime.process_setup import keep_freed_memory, use_threads
from semprior.training.image_cache import CachedImages
from semprior.training.trainer import Trainer

Say = Callable[[str], None]


def prepare_trainer(
    resolved: Resolved, data: Path, device: torch.device, *, threads: int, cache: Path, say: Say
) -> Trainer:
    """Set up this process for training, read and compute everything that a run needs, and return its trainer.

    Nothing is written outside `cache`. Under data-parallel training every worker calls it, and all of them then train
    in the same precision. The vision model is loaded and probed first, before anything expensive is computed.

    Args:
        resolved: the config and which of its keys the user chose.
        data: root of the data set.
        device: trains the networks and runs the vision model.
        threads: number of CPU threads of torch and OpenCV.
        cache: folder of images, seeds, statistics and feature banks that runs share.
        say: takes one line for each thing the user should know.

    Returns:
        A trainer at epoch 0 whose config holds the settings as this run uses them: see `config_as_used`.

    Raises:
        UserError: the data set has a fault, a setting does not fit it, or the vision model's weights are unavailable.
    """
    keep_freed_memory()
    use_threads(threads)
    layout = find_layout(data)
    precision = common_precision(resolved.config.precision, device)
    say(
        f"{resolved.config.detector} on {device_label(device)}{precision_remark(precision, device)}"
        + (f", worker {rank() + 1} of {workers()}" if workers() > 1 else "")
    )
    vfm = _vision_model(resolved.config, device, say)
    training_set = read_training_set(layout, resolved, say, cache)
    config = replace(config_as_used(resolved.config, training_set), precision=precision)
    say(
        f"{training_set.train} training, {training_set.validation} validation and"
        f" {len(training_set.holdout_indices)} held-out images"
    )
    if config.labels.refine == "crossfit":
        epochs = short_epochs(config.labels.crossfit_epochs, config.epochs)
        say(
            f"labels.refine=crossfit: {config.labels.crossfit_folds} short runs of {plural(epochs, 'epoch')} come first"
        )
    return Trainer(config, training_set, _features(config, vfm, training_set, cache, device, say), device)


def read_training_set(layout: Layout, resolved: Resolved, say: Say, cache: Path | None = None) -> TrainingSet:
    """Read, seed and cluster the images of a run.

    Args:
        layout: of the data set.
        resolved: the config and which of its keys the user chose.
        say: takes one line for each thing the user should know.
        cache: folder of images, seeds and statistics that runs share; None computes them for this run alone.

    Raises:
        UserError: the data set has a fault, or a setting does not fit it.
    """
    config = resolved.config
    cached = CachedImages(layout, cache)
    train, validation = cached.scenes[: cached.train], cached.scenes[cached.train :]
    for remark in (*layout.remarks(), *content_remarks({"train": train, "val": validation})):
        say(remark)
    mean, std = normalisation(cached.scenes)
    chosen = hold_out(train, validation, config.data, layout.groups)
    held_out = chosen.held_out
    if config.select.by != "test/iou" and not held_out:
        say("no image is held out: the last epoch is taken as the best")
    if config.select.by == "holdout/iou" and any(cached.scenes[i].mask is None for i in held_out):
        raise UserError("select.by=holdout/iou needs masks of the images held out; choose by point_score")
    if config.outer.every and len(chosen.validation) < config.data.batch:
        say(f"no outer steps: {len(chosen.validation)} validation images are fewer than a batch of {config.data.batch}")
    if without_effect := _without_effect(resolved):
        say(f"{', '.join(without_effect)}: without effect, as no masks evolve (labels.refine=none)")
    order = [*chosen.train, *chosen.validation, *held_out]
    test = []
    if config.select.by == "test/iou":
        say("preset paper: the TEST split is read at every evaluation, and the best epoch is chosen on it")
        test = cached.test()
    seeds = cached.seeds(config.labels.seed)
    if reference := true_masks_remark(config.labels.seed):
        say(reference)
    return TrainingSet(
        scenes=[cached.scenes[i] for i in order],
        train=len(chosen.train),
        validation=len(chosen.validation),
        seeds=[seeds[i] for i in order],
        clusters=_clusters(cached, order, resolved, say),
        normalisation=Normalisation(mean, std),
        intensity=cached.intensity,
        test=test,
        groups=layout.groups,
    )


def config_as_used(config: Config, training_set: TrainingSet) -> Config:
    """The config as a run on these images uses and records it: with at most as many clusters as images."""
    used = min(config.clusters.count, len(training_set.scenes))
    return replace(config, clusters=replace(config.clusters, count=used))


def _without_effect(resolved: Resolved) -> list[str]:
    """The keys that the user chose for a schedule on which nothing happens."""
    config = resolved.config
    if config.labels.refine != "none" or config.labels.pool != "all" or config.data.hard_crops:
        return []
    return sorted(resolved.chosen & {"labels.evolve_after", "labels.evolve_every", "labels.admit_until"})


def _clusters(cached: CachedImages, order: Sequence[int], resolved: Resolved, say: Say) -> np.ndarray:
    config = resolved.config.clusters
    count, remark = capped_count(config.count, len(order), explicit="clusters.count" in resolved.chosen)
    if remark:
        say(remark)
    if count == 1:
        return np.zeros(len(order), np.int64)
    return cached.clusters(order, count, config.seed)


def _vision_model(config: Config, device: torch.device, say: Say) -> VFM | None:
    """The frozen model of a run; None where no stage is modulated."""
    if not placed_stages(config.scam.stages, len(detector_spec(config.detector).stages)):
        return None
    vfm = load_vfm(config.vfm.name, config.vfm.weights, device)
    if vfm.random:
        say(f"{config.vfm.name} has RANDOM weights (vfm.weights=random): the teacher learns no semantics from it")
    return vfm


def _features(
    config: Config, vfm: VFM | None, training_set: TrainingSet, cache: Path, device: torch.device, say: Say
) -> Features:
    """The features of the run's images: from a bank, unless they are to be exact."""
    if vfm is None or config.vfm.features == "exact":
        return Features(vfm, None)
    images = [scene.image for scene in training_set.scenes]

    def progress(done: int, total: int) -> None:
        if done % 100 == 0:
            say(f"feature bank: {done} of {total} images computed")

    bank = FeatureBank.build(cache, vfm, images, config.vfm.bank_gb, device, progress)
    say(bank.describe())
    return Features(vfm, bank)
