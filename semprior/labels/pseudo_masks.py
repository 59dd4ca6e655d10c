"""The pseudo-masks of a run and the pool of images that train (method, section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from semprior.config import Config
from semprior.labels.evolve import admission_threshold, admit, evolution_due, evolve
from semprior.parallel import gather
from semprior.prepare import RELIABLE_SHARE, TrainingSet
from semprior.schedule import share_of
from semprior.sparse import SparseMasks, pack_mask


class PseudoMasks:
    """Soft pseudo-masks, the pool of images that train, and the reserve that waits.

    Attributes:
        soft: (H,W) uint8 for each image of the training set; 255 is permanent, a target from 128 on.
        members: indices of the training images that are in the pool, in ascending order.
    """

    def __init__(self, config: Config, training_set: TrainingSet, soft: SparseMasks, members: list[int]) -> None:
        self.config = config
        self.training_set = training_set
        self.soft = soft
        self.members = members

    @classmethod
    def start(cls, config: Config, training_set: TrainingSet) -> PseudoMasks:
        """The seeds as first pseudo-masks, and the pool they make."""
        soft = SparseMasks.pack(np.where(seed.mask, np.uint8(255), np.uint8(0)) for seed in training_set.seeds)
        members = [i for i in training_set.train_indices if config.labels.pool == "all" or _reliable(training_set, i)]
        return cls(config, training_set, soft, members)

    def evolution_due(self, epoch: int) -> bool:
        """Whether labels evolve before this epoch's inner pass."""
        labels = self.config.labels
        start = share_of(labels.evolve_after, self.config.epochs)
        return labels.evolve and evolution_due(epoch, start=start, every=labels.evolve_every)

    def evolve(self, epoch: int, probabilities: Iterable[tuple[int, np.ndarray]]) -> int:
        """Evolve the masks of pool and validation images, then admit images of the reserve.

        Each worker does so for its own images, and all exchange the results.

        Args:
            epoch: counted from 0.
            probabilities: an index and the teacher's (H,W) float32 for each of this worker's share, by `deal`, of the
                training and validation images, in any order; one is held at a time.

        Returns:
            The number of images admitted.
        """
        labels, epochs = self.config.labels, self.config.epochs
        end, start = labels.admit_until * epochs, share_of(labels.evolve_after, epochs)
        allowed = admission_threshold(epoch, start, end)
        waiting = set(self.training_set.train_indices) - set(self.members)
        changed: dict[int, np.ndarray] = {}
        for index, probability in probabilities:
            if index not in waiting:
                changed[index] = pack_mask(evolve(self.soft[index], probability))
            elif epoch <= end:
                mask = admit(probability, self.training_set.scenes[index].points, allowed)
                if mask is not None:
                    changed[index] = pack_mask(mask)
        changed = gather(changed, self.training_set.train + self.training_set.validation)
        for index, packed in changed.items():
            self.soft.packed[index] = packed
        admitted = waiting & changed.keys()
        self.members = sorted([*self.members, *admitted])
        return len(admitted)

    def stored(self) -> dict[str, np.ndarray]:
        """Arrays for a snapshot."""
        return {**self.soft.stored("soft"), "members": np.asarray(self.members, np.int64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Put back what `stored` gave, or a version before it, which stored each mask as it is."""
        if "soft.packed" in arrays:
            self.soft = SparseMasks.restore(arrays, "soft", self.soft.shapes)
        else:
            self.soft = SparseMasks.pack(arrays[f"soft.{index}"] for index in range(len(self.soft)))
        self.members = [int(index) for index in arrays["members"]]


def _reliable(training_set: TrainingSet, index: int) -> bool:
    succeeded = training_set.seeds[index].succeeded
    return succeeded.size == 0 or succeeded.mean() >= RELIABLE_SHARE
