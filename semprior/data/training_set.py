"""The training set of a run: scenes, first pseudo-masks and clusters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from semprior.config.schema import DataConfig
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.data.layout import Scene
from semprior.data.splits import assign_folds, split_holdout


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
        groups: of images by name, which no fold parts; see `Layout.groups`.
    """

    scenes: list[Scene]
    train: int
    validation: int
    seeds: list[Seed]
    clusters: np.ndarray
    normalisation: Normalisation
    intensity: IntensityRange
    test: list[Scene]
    groups: Mapping[str, str] = field(default_factory=dict)

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

    def crossfit_folds(self, count: int, seed: int) -> list[int]:
        """The fold of each training and validation image, of about equal size and in whole groups; see `assign_folds`.

        Raises:
            UserError: there are too few images or groups.
        """
        scenes = self.scenes[: self.train + self.validation]
        strata = [(int(index >= self.train), len(scene.points)) for index, scene in enumerate(scenes)]
        return assign_folds([scene.name for scene in scenes], strata, count, seed, self.groups, "labels.crossfit_folds")

    def holding_out(self, indices: Collection[int]) -> tuple[TrainingSet, list[int]]:
        """The set whose held-out images are some of the training and validation images of this one.

        Args:
            indices: of these images. The held-out images of this set are not part of the other.

        Returns:
            The other set, and the index in this set of each of its images.
        """
        apart = set(indices)
        train = [index for index in self.train_indices if index not in apart]
        validation = [index for index in self.validation_indices if index not in apart]
        order = [*train, *validation, *sorted(apart)]
        other = replace(
            self,
            scenes=[self.scenes[index] for index in order],
            train=len(train),
            validation=len(validation),
            seeds=[self.seeds[index] for index in order],
            clusters=self.clusters[order],
        )
        return other, order


@dataclass(frozen=True)
class Seed:
    """The first pseudo-mask of an image.

    Attributes:
        mask: (H,W) bool; every point is in it.
        succeeded: (P,) bool, whether a region was found around the point; otherwise the mask has only its pixel.
    """

    mask: np.ndarray
    succeeded: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """The images of a run by what it does with them: indices, ascending, into its training and then validation images.

    Attributes:
        train: those that it trains on.
        validation: those of its outer steps, and, if they are shared, of its inner steps as well.
        held_out: those on which it selects the epoch.
    """

    train: list[int]
    validation: list[int]
    held_out: list[int]


def hold_out(
    train: Sequence[Scene], validation: Sequence[Scene], settings: DataConfig, groups: Mapping[str, str]
) -> HeldOut:
    """Choose the images that a run holds out: a share of the training images, or a fold of training and validation.

    Args:
        train: all images of the training split.
        validation: all images of the validation split.
        settings: of the run.
        groups: of images by name, which are not parted; see `Layout.groups`.

    Raises:
        UserError: there are too few images or groups.
    """
    scenes = [*train, *validation]
    names, points = [scene.name for scene in scenes], [len(scene.points) for scene in scenes]
    if settings.folds:
        strata = [(int(index >= len(train)), count) for index, count in enumerate(points)]
        folds = assign_folds(names, strata, settings.folds, settings.holdout_seed, groups)
        held_out = [index for index, fold in enumerate(folds) if fold == settings.fold]
    else:
        number = len(train)
        held_out = split_holdout(names[:number], points[:number], settings.holdout, settings.holdout_seed, groups)[1]
    apart = set(held_out)
    kept = [index for index in range(len(scenes)) if index not in apart]
    return HeldOut(
        [index for index in kept if index < len(train)], [index for index in kept if index >= len(train)], held_out
    )
