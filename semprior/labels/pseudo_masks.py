"""The pseudo-masks of a run and the pool of images that train (method, section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from semprior.config.epochs import evolution_due, share_of
from semprior.config.schema import Config
from semprior.data.sparse_masks import Packer, SparseMasks
from semprior.data.training_set import TrainingSet
from semprior.labels.admit import admission_threshold, admit
from semprior.labels.evolve import evolve
from semprior.runtime.distributed import gather

RELIABLE_SHARE = 0.8  # of points with a successful seed that an image needs to train from the start (section 6)


class PseudoMasks:
    """Soft pseudo-masks, the pool of images that train, and the reserve of images that wait for admission.

    Attributes:
        soft: (H,W) uint8 for each image of the training set; values of at least 128 are target, 255 is permanent.
        members: indices of the training images that are in the pool, in ascending order.
    """

    def __init__(self, config: Config, training_set: TrainingSet, soft: SparseMasks, members: list[int]) -> None:
        self.config = config
        self.training_set = training_set
        self.soft = soft
        self.members = members

    @classmethod
    def start(cls, config: Config, training_set: TrainingSet) -> PseudoMasks:
        """The state before the first epoch: the seeds are the pseudo-masks."""
        soft = SparseMasks.pack(np.where(seed.mask, np.uint8(255), np.uint8(0)) for seed in training_set.seeds)
        members = [i for i in training_set.train_indices if config.labels.pool == "all" or _reliable(training_set, i)]
        return cls(config, training_set, soft, members)

    @property
    def waiting(self) -> set[int]:
        """Indices of the training images that are in the reserve."""
        return set(self.training_set.train_indices) - set(self.members)

    def predicted_by_teacher(self, epoch: int) -> list[int]:
        """Indices of the images that the teacher must predict before an epoch's inner pass; empty in most epochs.

        If `labels.evolve` is off, only images of the reserve: admission follows the schedule of evolution.
        """
        labels, epochs, waiting = self.config.labels, self.config.epochs, self.waiting
        if not evolution_due(epoch, start=share_of(labels.evolve_after, epochs), every=labels.evolve_every):
            return []
        admitting = epoch <= labels.admit_until * epochs
        indices = range(self.training_set.train + self.training_set.validation)
        return [index for index in indices if (admitting if index in waiting else labels.evolve)]

    def update(self, epoch: int, probabilities: Iterable[tuple[int, np.ndarray]]) -> int:
        """Evolve the masks of pool and validation images, and admit images of the reserve.

        Each worker processes its share of the images, and all workers exchange the results.

        Args:
            epoch: counted from 0.
            probabilities: an index and the teacher's (H,W) float32 for each image of this worker's share of
                `predicted_by_teacher` (see `own_positions`), in any order.

        Returns:
            The number of images admitted.
        """
        labels, epochs, waiting = self.config.labels, self.config.epochs, self.waiting
        allowed = admission_threshold(epoch, share_of(labels.evolve_after, epochs), labels.admit_until * epochs)
        changed: dict[int, np.ndarray] = {}
        pack = Packer()
        for index, probability in probabilities:
            if index not in waiting:
                changed[index] = pack(evolve(self.soft[index], probability))
                continue
            mask = admit(probability, self.training_set.scenes[index].points, allowed)
            if mask is not None:
                changed[index] = pack(mask)
        changed = gather(changed, self.training_set.train + self.training_set.validation)
        for index, packed in changed.items():
            self.soft.packed[index] = packed
        admitted = waiting & changed.keys()
        self.members = sorted([*self.members, *admitted])
        return len(admitted)

    def stored(self) -> dict[str, np.ndarray]:
        """The state as arrays, for a snapshot."""
        return {**self.soft.stored("soft"), "members": np.asarray(self.members, np.int64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restore the state that `stored` returned."""
        self.soft = SparseMasks.restore(arrays, "soft", self.soft.shapes)
        self.members = [int(index) for index in arrays["members"]]


def _reliable(training_set: TrainingSet, index: int) -> bool:
    succeeded = training_set.seeds[index].succeeded
    return succeeded.size == 0 or succeeded.mean() >= RELIABLE_SHARE
