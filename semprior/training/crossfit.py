"""Cross-fitting: before a run, teachers of short runs judge the images that they have not seen.

A teacher judges the images that it was trained on, and agrees with what it was told. So the training and validation
images are divided into folds, and a short run of the same recipe leaves each of them out. Its teacher predicts the
images of its fold. From these predictions and the images, `crossfit_mask` makes the pseudo-masks from which the run
begins::

    crossfit = crossfit_before(trainer)           # None unless labels.refine=crossfit
    if crossfit is not None:
        for short in crossfit.run():              # epochs of the short runs
            save(crossfit.snapshot())
    for report in trainer.run():                  # now from the new pseudo-masks
        ...

The images that the run holds out take no part. Pseudo-masks do not evolve in short runs, which have one evaluation, of
their fold by points, after their last epoch. Under data-parallel training all workers call this, as they call
`Trainer.run`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import numpy as np

from semprior.config.epochs import short_epochs
from semprior.config.schema import Config, flatten
from semprior.data.sparse_masks import Packer, SparseMasks
from semprior.errors import UserError, depends_on
from semprior.io.checkpoint import Snapshot
from semprior.reading.schema import checked
from semprior.runtime.distributed import gather, own_positions
from semprior.training.trainer import DivergedError, Trainer

_SHORT = "short."  # before the names of the arrays of a short run in a snapshot
_JUDGED = "judged"


@dataclass(frozen=True)
class ShortEpoch:
    """An epoch of a short run.

    Attributes:
        run: number of the short run, from 0, which leaves out the fold of this number.
        runs: number of short runs.
        epoch: number of the epoch, from 0.
        epochs: of the short run.
        inner_loss: mean over the inner steps.
        seconds: duration; in the last epoch, with the predictions of the fold.
        scores: metrics of the fold by points, and by masks where there are any, after the last epoch; else empty.
    """

    run: int
    runs: int
    epoch: int
    epochs: int
    inner_loss: float
    seconds: float
    scores: dict[str, float] = field(default_factory=dict)


class _State(TypedDict):
    """The values of a snapshot that `CrossFit.restore` needs."""

    run: int
    done: int
    short: dict[str, Any] | None
    data: str


class CrossFit:
    """The short runs before a run, and the predictions of their teachers.

    Args:
        trainer: of the run, at epoch 0, with the setting `labels.refine=crossfit`.

    Attributes:
        run_number: the short run that trains, or trains next; equal to their number once all are done.

    Raises:
        UserError: there are too few images or groups for the folds, or too few images in a short run for a batch.
    """

    @depends_on("data.batch", "labels.crossfit_folds", "labels.pool", "labels.seed", "outer.shared")
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        labels, training_set = trainer.config.labels, trainer.training_set
        self.runs = labels.crossfit_folds
        folds = np.array(training_set.crossfit_folds(self.runs, trainer.config.seed))
        self.folds = [np.flatnonzero(folds == number).tolist() for number in range(self.runs)]
        self.config = short_config(trainer.config)
        self.run_number = 0
        self.done = 0  # epochs of all short runs
        shapes = [scene.image.shape for scene in training_set.scenes[: len(folds)]]
        self.judged = SparseMasks(shapes, [np.zeros(0, np.uint8)] * len(shapes))
        self._short: Trainer | None = None
        members, batch = set(trainer.inner_images()), trainer.config.data.batch
        fewest = min(len(members.difference(fold)) for fold in self.folds)
        if fewest < batch:
            raise UserError(
                f"data.batch: a short run of labels.refine=crossfit has {fewest} images in its pool, fewer than a batch"
                f" of {batch}; raise labels.crossfit_folds, or set data.batch to {max(fewest, 1)} or less"
            )

    @property
    def epochs_left(self) -> int:
        """Number of epochs that the short runs have yet to train."""
        trained = 0 if self._short is None else self._short.epoch
        return (self.runs - self.run_number) * self.config.epochs - trained

    def run(self) -> Iterator[ShortEpoch]:
        """Train the short runs, and let the run begin from the pseudo-masks that follow from them.

        Between two epochs a snapshot is complete.

        Raises:
            DivergedError: as `Trainer.run`.
        """
        while self.run_number < self.runs:
            number = self.run_number
            try:
                yield from self._train_next()
            except DivergedError as error:
                raise DivergedError(f"short run {number + 1} of {self.runs}: {error}") from error
        self.trainer.start_from(self.judged)

    def _train_next(self) -> Iterator[ShortEpoch]:
        """Train the short run that is next to its end."""
        if self._short is None:
            self._short = self._new_run()
        run, number, started = self._short, self.run_number, time.perf_counter()
        for report in run.run():
            self.done += 1
            if run.epoch == run.config.epochs:
                self._judge(run)
            yield ShortEpoch(
                run=number,
                runs=self.runs,
                epoch=report.epoch,
                epochs=run.config.epochs,
                inner_loss=report.inner_loss,
                seconds=time.perf_counter() - started,
                scores=report.scores,
            )
            started = time.perf_counter()
        if self.run_number == number:  # resumed with fewer epochs than it has trained
            self._judge(run)

    def snapshot(self) -> Snapshot:
        """The state from which cross-fitting continues: the short run that trains, and the predictions so far."""
        short = None if self._short is None else self._short.snapshot()
        arrays = {} if short is None else {f"{_SHORT}{name}": array for name, array in short.arrays.items()}
        return Snapshot(
            tensors={} if short is None else short.tensors,
            arrays=arrays | self.judged.stored(_JUDGED),
            values={
                "config": flatten(self.trainer.config),
                "epoch": self.done,
                "run": self.run_number,
                "done": self.done,
                "short": None if short is None else short.values,
                "data": self.trainer.data,
                "precision": self.trainer.precision,
            },
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot as if cross-fitting had never stopped.

        Raises:
            UserError: the snapshot belongs to other data, or is not one of this run.
        """
        values = checked(snapshot.values, _State, "state.json")
        if values["data"] != self.trainer.data:
            raise UserError("the data set differs from the one this run began on; start a new run")
        if f"{_JUDGED}.packed" not in snapshot.arrays or not 0 <= values["run"] <= self.runs:
            raise UserError("the checkpoint is not one of the short runs of this run")
        self.run_number, self.done = values["run"], values["done"]
        self.judged = SparseMasks.restore(snapshot.arrays, _JUDGED, self.judged.shapes)
        self._short = None
        if values["short"] is not None and self.run_number < self.runs:
            self._short = self._new_run()
            arrays = {
                name.removeprefix(_SHORT): array for name, array in snapshot.arrays.items() if name.startswith(_SHORT)
            }
            self._short.restore(Snapshot(snapshot.tensors, arrays, values["short"]))

    def _new_run(self) -> Trainer:
        training_set, order = self.trainer.training_set.holding_out(self.folds[self.run_number])
        return Trainer(self.config, training_set, self.trainer.features.of(order), self.trainer.device)

    def _judge(self, run: Trainer) -> None:
        """Keep what the teacher of a short run, which has ended, predicts for the images of its fold."""
        fold, held_out, pack = self.folds[self.run_number], run.training_set.holdout_indices, Packer()
        own = own_positions(len(fold))
        packed = {
            own[place]: pack(np.rint(255 * probability).astype(np.uint8))
            for place, probability in run.predict_by_teacher([held_out[position] for position in own])
        }
        for position, values in gather(packed, len(fold)).items():
            self.judged.packed[fold[position]] = values
        self.run_number += 1
        self._short = None


def crossfit_before(trainer: Trainer) -> CrossFit | None:
    """The short runs that come before a run at epoch 0; None if its settings ask for none.

    Raises:
        UserError: as `CrossFit`.
    """
    return CrossFit(trainer) if trainer.config.labels.refine == "crossfit" else None


def short_config(config: Config) -> Config:
    """The settings of the short runs of a run: its own, for fewer epochs, evaluated once and without evolution."""
    return replace(
        config,
        epochs=short_epochs(config.labels.crossfit_epochs, config.epochs),
        labels=replace(config.labels, refine="none"),
        select=replace(config.select, by="point_score", after=1.0),
    )
