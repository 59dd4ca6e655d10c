"""The pseudo-masks of a run and the pool of images that train (method, section 6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from semprior.config import Config
from semprior.labels.evolve import admission_threshold, admit, evolution_due, evolve
from semprior.prepare import RELIABLE_SHARE, TrainingSet
from semprior.schedule import share_of


class PseudoMasks:
    """Soft pseudo-masks, the pool of images that train, and the reserve that waits.

    Attributes:
        soft: (H,W) uint8 for each image of the training set; 255 is permanent, a target from 128 on.
        members: indices of the training images that are in the pool, in ascending order.
    """

    def __init__(self, config: Config, training_set: TrainingSet, soft: list[np.ndarray], members: list[int]) -> None:
        self.config = config
        self.training_set = training_set
        self.soft = soft
        self.members = members

    @classmethod
    def start(cls, config: Config, training_set: TrainingSet) -> PseudoMasks:
        """The seeds as first pseudo-masks, and the pool they make."""
        soft = [np.where(seed.mask, 255, 0).astype(np.uint8) for seed in training_set.seeds]
        members = [i for i in training_set.train_indices if config.labels.pool == "all" or _reliable(training_set, i)]
        return cls(config, training_set, soft, members)

    def evolution_due(self, epoch: int) -> bool:
        """Whether labels evolve before this epoch's inner pass."""
        labels = self.config.labels
        start = share_of(labels.evolve_after, self.config.epochs)
        return labels.evolve and evolution_due(epoch, start=start, every=labels.evolve_every)

    def evolve(self, epoch: int, probabilities: Mapping[int, np.ndarray]) -> int:
        """Evolve the masks of pool and validation images, then admit images of the reserve.

        Args:
            epoch: counted from 0.
            probabilities: the teacher's (H,W) float32 for every training and validation image.

        Returns:
            The number of images admitted.
        """
        for index in (*self.members, *self.training_set.validation_indices):
            self.soft[index] = evolve(self.soft[index], probabilities[index])
        labels, epochs = self.config.labels, self.config.epochs
        end = labels.admit_until * epochs
        if epoch > end:
            return 0
        start = share_of(labels.evolve_after, epochs)
        allowed = admission_threshold(epoch, start, end)
        admitted = []
        for index in sorted(set(self.training_set.train_indices) - set(self.members)):
            mask = admit(probabilities[index], self.training_set.scenes[index].points, allowed)
            if mask is not None:
                self.soft[index] = mask
                admitted.append(index)
        self.members = sorted([*self.members, *admitted])
        return len(admitted)

    def stored(self) -> dict[str, np.ndarray]:
        """Arrays for a snapshot."""
        arrays = {f"soft.{index}": mask for index, mask in enumerate(self.soft)}
        return {**arrays, "members": np.asarray(self.members, np.int64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Put back what `stored` gave."""
        self.soft = [arrays[f"soft.{index}"] for index in range(len(self.soft))]
        self.members = [int(index) for index in arrays["members"]]


def _reliable(training_set: TrainingSet, index: int) -> bool:
    succeeded = training_set.seeds[index].succeeded
    return succeeded.size == 0 or succeeded.mean() >= RELIABLE_SHARE
