"""What a run trains on: scenes, first pseudo-masks and clusters, in one order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semprior.data.batches import Normalisation
from semprior.data.layout import IntensityRange, Scene


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


@dataclass(frozen=True)
class Seed:
    """The first pseudo-mask of an image.

    Attributes:
        mask: (H,W) bool; holds every point.
        succeeded: (P,) bool, whether a region was found around the point. A failed point gives its own pixel.
    """

    mask: np.ndarray
    succeeded: np.ndarray
