"""The pseudo-masks of a run and the pool of images that train (method, section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from semprior.config.epochs import evolution_due, share_of
from semprior.config.schema import Config
from semprior.data.sparse_masks import Packer, SparseMasks
from semprior.data.training_set import TrainingSet
from semprior.labels.admit import FIRST_SHARE, admission_threshold, admit
from semprior.labels.crossfit_masks import crossfit_mask
from semprior.labels.evolve import evolve
from semprior.labels.false_alarms import false_alarms
from semprior.runtime.distributed import gather

TARGET = 128  # soft pseudo-masks, uint8, are target from this value on
RELIABLE_SHARE = 0.8  # of points with a successful seed that an image needs to train from the start (section 6)


class PseudoMasks:
    """Soft pseudo-masks, the pool of images that train, and the reserve of images that wait for admission.

    Attributes:
        soft: (H,W) uint8 for each image of the training set; values of at least 128 are target, 255 is permanent.
        members: indices of the training images that are in the pool, in ascending order.
        hard: (H,W) bool for each image of the training set, the false alarms that teachers have made in it so far; None
            if no crops are placed on them (`data.hard_crops`). They stay: a teacher soon unlearns those of an image
            that it trains on.
    """

    def __init__(self, config: Config, training_set: TrainingSet, soft: SparseMasks, members: list[int]) -> None:
        self.config = config
        self.training_set = training_set
        self.soft = soft
        self.members = members
        self.hard: SparseMasks | None = None
        if config.data.hard_crops:
            self.hard = SparseMasks(soft.shapes, [np.zeros(0, np.uint8)] * len(soft), bool)

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

        If masks do not evolve (`labels.refine`) and no false alarms are looked for (`data.hard_crops`), these are only
        images of the reserve: admission follows the same schedule.
        """
        labels, epochs, waiting = self.config.labels, self.config.epochs, self.waiting
        if not evolution_due(epoch, start=share_of(labels.evolve_after, epochs), every=labels.evolve_every):
            return []
        admitting = epoch <= labels.admit_until * epochs
        indices = range(self.training_set.train + self.training_set.validation)
        others = labels.refine == "evolve" or self.hard is not None
        return [index for index in indices if (admitting if index in waiting else others)]

    def update(self, epoch: int, probabilities: Iterable[tuple[int, np.ndarray]]) -> int:
        """Evolve the masks of pool and validation images, find false alarms in them, and admit images of the reserve.

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
        alarms: dict[int, np.ndarray] = {}
        pack = Packer()
        for index, probability in probabilities:
            if index in waiting:
                mask = admit(probability, self.training_set.scenes[index].points, allowed)
                if mask is not None:
                    changed[index] = pack(mask)
                continue
            soft = self.soft[index]
            if labels.refine == "evolve":
                soft = evolve(soft, probability)
                changed[index] = pack(soft)
            if self.hard is not None:
                alarms[index] = pack(self._alarms(index, probability, soft))
        number = self.training_set.train + self.training_set.validation
        changed = gather(changed, number)
        for index, packed in changed.items():
            self.soft.packed[index] = packed
        if self.hard is not None:
            for index, packed in gather(alarms, number).items():
                self.hard.packed[index] = packed
        admitted = waiting & changed.keys()
        self.members = sorted([*self.members, *admitted])
        return len(admitted)

    def start_from(self, judged: Sequence[np.ndarray]) -> None:
        """Replace the first pseudo-masks by those of `crossfit_mask`, and admit images whose points were found.

        An image of the reserve is admitted if its teacher misses at most the share of its points that the first
        admission allows; its mask is then that of `admit`.

        Args:
            judged: (H,W) uint8 for each training and validation image, 255 times the probability of a teacher that was
                not trained on it.
        """
        waiting, pack = self.waiting, Packer()
        for index, values in enumerate(judged):
            scene, probability = self.training_set.scenes[index], values.astype(np.float32) / 255
            if index in waiting:
                mask = admit(probability, scene.points, FIRST_SHARE)
                if mask is None:
                    continue
                self.members = sorted([*self.members, index])
            else:
                first = self.soft[index] >= TARGET
                found = crossfit_mask(scene.image, scene.points, first, probability, scene.boxes)
                mask = np.where(found, np.uint8(255), np.uint8(0))
            self.soft.packed[index] = pack(mask)
            if self.hard is not None:
                self.hard.packed[index] = pack(self._alarms(index, probability, mask))

    def _alarms(self, index: int, probability: np.ndarray, soft: np.ndarray) -> np.ndarray:
        """The false alarms of an image so far, with those of a prediction, (H,W) bool."""
        assert self.hard is not None
        found = false_alarms(probability, self.training_set.scenes[index].points, soft >= TARGET)
        together: np.ndarray = self.hard[index] | found
        return together

    def stored(self) -> dict[str, np.ndarray]:
        """The state as arrays, for a snapshot."""
        hard = {} if self.hard is None else self.hard.stored("hard")
        return {**self.soft.stored("soft"), **hard, "members": np.asarray(self.members, np.int64)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restore the state that `stored` returned."""
        self.soft = SparseMasks.restore(arrays, "soft", self.soft.shapes)
        if self.hard is not None:
            self.hard = SparseMasks.restore(arrays, "hard", self.soft.shapes, bool)
        self.members = [int(index) for index in arrays["members"]]


def _reliable(training_set: TrainingSet, index: int) -> bool:
    succeeded = training_set.seeds[index].succeeded
    return succeeded.size == 0 or succeeded.mean() >= RELIABLE_SHARE
