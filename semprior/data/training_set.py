"""The training set of a run: scenes, first pseudo-masks and clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semprior.config.schema import DataConfig
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.data.layout import Scene
from semprior.data.splits import split_holdout


@dataclass(frozen=True)
class TrainingSet:
    """The images of a run; an image's index is its position in `scenes`.

    Attributes:
        scenes: the training, validation and holdout images, in this order.
        train: number of training images.
        validation: number of validation images.
        seeds: the first pseudo-mask of each image.
        clusters: (n,) int64, the cluster of each image.
        normalisation: of grey levels.
        intensity: the map of source grey values to 0..255.
        test: test scenes with masks; read only for the preset `paper`, which selects the epoch on them.
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
        """Indices of the images held out to select the epoch on."""
        return range(self.train + self.validation, len(self.scenes))


@dataclass(frozen=True)
class Seed:
    """The first pseudo-mask of an image.

    Attributes:
        mask: (H,W) bool; every point is in it.
        succeeded: (P,) bool, whether a region was found around the point; otherwise the mask has only its pixel.
    """

    mask: np.ndarray
    succeeded: np.ndarray


def hold_out(train: Sequence[Scene], settings: DataConfig, groups: Mapping[str, str]) -> tuple[list[int], list[int]]:
    """The images of the training split that a run trains on, and those that it holds out to select the epoch on.

    Args:
        train: all images of the training split.
        settings: of the run.
        groups: of images by name, which are not parted; see `Layout.groups`.

    Returns:
        The indices of both, ascending.
    """
    names, points = [scene.name for scene in train], [len(scene.points) for scene in train]
    return split_holdout(names, points, settings.holdout, settings.holdout_seed, groups)
