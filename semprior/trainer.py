"""The schedule of a run: a generator that yields one report an epoch (method, sections 4 to 7)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from semprior.allocator import give_back_freed_memory
from semprior.average import copy_of, update_average
from semprior.bilevel import NonFiniteLossError, inner_step, outer_step
from semprior.checkpoint import Snapshot
from semprior.config import Config, flatten
from semprior.data.batches import Batch, Pool, draw_batch, epoch_batches
from semprior.devices import used_precision, uses_bf16
from semprior.errors import UserError, depends_on
from semprior.infer import Each, WholeFeatures, each_by_student, each_by_teacher
from semprior.labels.pseudo_masks import PseudoMasks
from semprior.metrics import THRESHOLD
from semprior.models.build import build_teacher
from semprior.models.detector import detector_spec
from semprior.models.features import Features
from semprior.models.teacher import Teacher
from semprior.optimizers import restore_optimizer, stored_optimizer
from semprior.parallel import agree_, average_statistics_, deal, gather, synchronised, workers
from semprior.prepare import TrainingSet
from semprior.schedule import is_due, learning_rate, share_of
from semprior.selection import Scores, Selector
from semprior.sparse import Packer, SparseMasks


@dataclass(frozen=True)
class Report:
    """What an epoch did.

    Attributes:
        epoch: counted from 0.
        inner_loss: mean over the epoch's inner steps.
        outer_loss: mean over its outer steps; none where there were none.
        rate: learning rate after its last step.
        pool: number of images trained on.
        admitted: of them, those admitted in this epoch.
        evolved: whether pseudo-masks evolved.
        seconds: it took.
        scores: flat metrics of the evaluation, like ``holdout/point_score``; empty where none was due.
        best: whether this epoch is the best so far.
    """

    epoch: int
    inner_loss: float
    outer_loss: float | None
    rate: float
    pool: int
    admitted: int
    evolved: bool
    seconds: float
    scores: dict[str, float] = field(default_factory=dict)
    best: bool = False


class DivergedError(UserError):
    """Training stopped because a loss was not finite."""


class Trainer:
    """One run of the bilevel training of a teacher and its student.

    Data-parallel where `torch.distributed` is initialised, single otherwise; it knows nothing else of where it runs.
    W workers take the steps that one would, up to rounding and to BatchNorm on the CPU (`semprior.parallel`); every
    worker has the whole state and yields the same reports, so that any of them can save it.

    Example::

        trainer = Trainer(config, training_set, features, device)
        for report in trainer.run():
            print(report.epoch, report.inner_loss)

    Args:
        config: of the run; of its clusters those beyond the number of images stay empty, see `prepare.as_used`.
        training_set: its images, seeds and clusters.
        features: where the VFM's maps come from.
        device: of the networks.

    Raises:
        UserError: fewer images in the pool than a batch.
    """

    def __init__(self, config: Config, training_set: TrainingSet, features: Features, device: torch.device) -> None:
        self.config = config
        self.training_set = training_set
        self.features = features
        self.device = device
        self.epoch = 0
        self.updates = 0
        self.rng = np.random.default_rng(config.seed)
        self.teacher = self._built(build_teacher(config, features.vfm))
        self.average = copy_of(self.teacher) if config.optim.average else None
        self.clusters = training_set.clusters
        self.alpha = nn.Parameter(torch.zeros(config.clusters.count, device=device))
        self.pseudo_masks = PseudoMasks.start(config, training_set)
        self.selector = Selector(config, training_set)
        self.inner = self._optimizer([*self.teacher.parameters()])
        self.outer = self._optimizer([*self.teacher.detector.parameters(), self.alpha])
        self._require_full_batch()

    @property
    def evaluated(self) -> Teacher:
        """The teacher, and in it the student, that evaluation, evolution and deployment use; eval mode."""
        return self.average if isinstance(self.average, Teacher) else self.teacher.eval()

    @cached_property
    def data(self) -> str:
        """Digest of the data; every image is read for it, so once is enough."""
        return data_digest(self.training_set)

    def run(self) -> Iterator[Report]:
        """Train to the last epoch, one report an epoch; a snapshot taken between two reports is a whole state.

        Raises:
            DivergedError: a loss was not finite; names the epoch, the batch and its images.
        """
        self._agree()
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            epoch, config = self.epoch, self.config
            evolved, admitted = self._update_labels()
            inner = self._inner_pass()
            outer = self._outer_pass() if config.outer.every and epoch % config.outer.every == 0 else []
            self._share_statistics()
            self._agree()
            scores = self._evaluate() if self._evaluation_due() else None
            self.epoch += 1
            yield Report(
                epoch=epoch,
                inner_loss=float(np.mean(inner)),
                outer_loss=float(np.mean(outer)) if outer else None,
                rate=self._rate(epoch, 1.0),
                pool=len(self.pseudo_masks.members),
                admitted=admitted,
                evolved=evolved,
                seconds=time.perf_counter() - started,
                scores=scores.flat if scores else {},
                best=bool(scores and scores.best),
            )

    def snapshot(self) -> Snapshot:
        """All that a run needs to go on, and what a detector needs to be deployed."""
        teacher, evaluated = self.teacher, self.evaluated
        training: dict[str, Tensor] = {"alpha": self.alpha.detach()}
        training |= {f"teacher.{name}": tensor for name, tensor in teacher.state_dict().items()}
        training |= stored_optimizer("inner", self.inner) | stored_optimizer("outer", self.outer)
        return Snapshot(
            tensors={
                "student": dict(evaluated.detector.state_dict()),
                "modulator": evaluated.modulator_state(),
                "training": training,
            },
            arrays=self.pseudo_masks.stored() | self.selector.stored() | {"clusters": self.clusters},
            values={
                "config": flatten(self.config),
                "epoch": self.epoch,
                "updates": self.updates,
                "rng": self.rng.bit_generator.state,
                "selection": self.selector.values(),
                "normalisation": [self.training_set.normalisation.mean, self.training_set.normalisation.std],
                "intensity": [self.training_set.intensity.low, self.training_set.intensity.high],
                "vfm": self.features.vfm.key if self.features.vfm else None,
                "data": self.data,
                "precision": used_precision(self.config.precision, self.device),
            },
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot as if never stopped.

        Raises:
            UserError: the snapshot is of other data or another VFM.
        """
        values = snapshot.values
        if values["data"] != self.data:
            raise UserError("the data set differs from the one this run began on; start a new run")
        if values["vfm"] != (self.features.vfm.key if self.features.vfm else None):
            raise UserError("vfm.weights: differ from those this run began with; start a new run")
        training = snapshot.tensors["training"]
        prefix = "teacher."
        weights = {name.removeprefix(prefix): t for name, t in training.items() if name.startswith(prefix)}
        self.teacher.load_state_dict(weights)
        if isinstance(self.average, Teacher):
            self.average.detector.load_state_dict(snapshot.tensors["student"])
            self.average.load_state_dict(snapshot.tensors["modulator"], strict=False)
        with torch.no_grad():
            self.alpha.copy_(training["alpha"])
        restore_optimizer("inner", self.inner, training)
        restore_optimizer("outer", self.outer, training)
        self.epoch, self.updates = int(values["epoch"]), int(values["updates"])
        self.rng.bit_generator.state = values["rng"]
        self.clusters = snapshot.arrays["clusters"]  # k-means may differ in the last bit on another machine
        self.pseudo_masks.restore(snapshot.arrays)
        self.selector.restore(snapshot.arrays, values["selection"])

    def _built(self, teacher: Teacher) -> Teacher:
        teacher.detector = synchronised(teacher.detector, self.device)
        return teacher.to(self.device)

    def _agree(self) -> None:
        """Take the first worker's weights and clusters: another machine, or GPU, may differ in the last bit."""
        if workers() == 1:
            return
        networks = [self.teacher] if self.average is None else [self.teacher, self.average]
        clusters = torch.from_numpy(self.clusters.copy()).to(self.device)
        agree_([clusters, self.alpha, *(tensor for network in networks for tensor in network.state_dict().values())])
        self.clusters = clusters.cpu().numpy()

    def _share_statistics(self) -> None:
        average_statistics_(self.teacher)
        if self.average is not None:
            average_statistics_(self.average)

    def _optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            parameters,
            lr=self._rate(0, 0.0),
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=self.config.optim.weight_decay,
            fused=True,
        )

    def _rate(self, epoch: int, within: float) -> float:
        peak = self.config.optim.rate
        if peak is None:
            peak = detector_spec(self.config.detector).learning_rate
        return learning_rate(self.config.optim.schedule, peak, (epoch + within) / self.config.epochs)

    @depends_on("data.batch", "labels.pool", "labels.seed")
    def _require_full_batch(self) -> None:
        members, batch = len(self.pseudo_masks.members), self.config.data.batch
        if members < batch:
            way_out = f"set data.batch to {members} or less" if members else "labels.pool=all takes all images in"
            raise UserError(
                f"data.batch: the training pool has {members} images, fewer than a batch of {batch}; {way_out}"
            )
        if batch % workers():
            raise UserError(f"data.batch: {batch} images do not divide among {workers()} workers")

    def _update_labels(self) -> tuple[bool, int]:
        """Whether pseudo-masks evolved, and how many images were admitted."""
        looked_at = self.pseudo_masks.looked_at(self.epoch)
        if not looked_at:
            return False, 0
        mine = [looked_at[place] for place in deal(len(looked_at))]
        with self._between_steps():
            each = self._each_by_teacher(mine)
            admitted = self.pseudo_masks.update(self.epoch, ((mine[place], found) for place, found in each))
        return self.config.labels.evolve, admitted

    def _inner_pass(self) -> list[float]:
        batches = epoch_batches(self.pseudo_masks.members, self.config.data.batch, self.rng)
        losses = []
        self.teacher.train()
        for position, indices in enumerate(batches):
            self._set_rate(self.inner, (position + 1) / len(batches))
            batch = self._batch(indices, self.config.scam.drop)
            try:
                losses.append(inner_step(self.teacher, self.alpha, batch, self.inner, self.config))
            except NonFiniteLossError as error:
                raise self._diverged(error, "inner", position, indices) from error
            self._average_weights()
        return losses

    def _outer_pass(self) -> list[float]:
        size, losses = self.config.data.batch, []
        validation = epoch_batches(self.training_set.validation_indices, size, self.rng)
        training = epoch_batches(self.pseudo_masks.members, size, self.rng)
        if not validation or not training:
            return []
        self.teacher.train()
        rate = self._set_rate(self.outer, 1.0)
        for position in range(self.config.outer.steps):
            for_validation, for_training = validation[position % len(validation)], training[position % len(training)]
            of_validation, of_training = self._batch(for_validation), self._batch(for_training)
            try:
                losses.append(
                    outer_step(self.teacher, self.alpha, of_validation, of_training, self.outer, rate, self.config)
                )
            except NonFiniteLossError as error:
                raise self._diverged(error, "outer", position, for_validation + for_training) from error
            self._average_weights()
        return losses

    def _batch(self, indices: list[int], drop: float = 0.0) -> Batch:
        return draw_batch(
            Pool(self.training_set.scenes, self.pseudo_masks.soft, self.clusters),
            indices,
            self.config.data,
            self.training_set.normalisation,
            self.features.crops,
            self.device,
            self.rng,
            drop,
        )

    def _set_rate(self, optimizer: torch.optim.Optimizer, within: float) -> float:
        rate = self._rate(self.epoch, within)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _average_weights(self) -> None:
        if self.average is not None:
            update_average(self.average, self.teacher, self.config.optim.average, self.updates)
        self.updates += 1

    def _diverged(self, error: NonFiniteLossError, step: str, position: int, indices: list[int]) -> DivergedError:
        names = ", ".join(self.training_set.scenes[index].name for index in indices)
        return DivergedError(
            f"training stopped: {error} at epoch {self.epoch}, {step} batch {position}, images {names};"
            " lower optim.rate, or look at these images"
        )

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Around what looks at whole images, whose activations have other sizes than those of steps."""
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            give_back_freed_memory()
        yield
        if on_cpu:
            give_back_freed_memory()

    def _evaluation_due(self) -> bool:
        epoch, select = self.epoch, self.config.select
        last = epoch + 1 == self.config.epochs
        return last or is_due(epoch, share_of(select.after, self.config.epochs), select.every)

    def _evaluate(self) -> Scores:
        """Score the evaluated networks, each worker on its share of the images; all workers then know all masks."""
        with self._between_steps():
            return self._scores()

    def _scores(self) -> Scores:
        of_test = self.config.select.by == "test/iou"
        held = self.training_set.holdout_indices
        scenes = self.training_set.test if of_test else [self.training_set.scenes[i] for i in held]
        mine, shapes = deal(len(scenes)), [scene.image.shape for scene in scenes]
        student = each_by_student(
            self.evaluated.detector,
            [scenes[i].image for i in mine],
            self.training_set.normalisation,
            self.device,
            uses_bf16(self.config.precision, self.device),
        )
        teacher = (
            self._each_by(self.features.whole, [scenes[i].image for i in mine])
            if of_test
            else self._each_by_teacher([held[i] for i in mine])
        )
        predicted = []
        for each in (student, teacher):
            pack = Packer()
            masks = gather({mine[place]: pack(found > THRESHOLD) for place, found in each}, len(scenes))
            predicted.append(SparseMasks(shapes, [masks[i] for i in range(len(scenes))], bool))
        return self.selector.score(self.epoch, *predicted)

    def _each_by_teacher(self, indices: Sequence[int]) -> Each:
        """The teacher's probabilities for images of the run, whose features the bank may hold."""

        def features(places: Sequence[int] | None, grey: Tensor) -> list[Tensor]:
            return self.features.banked(None if places is None else [indices[place] for place in places], grey)

        return self._each_by(features, [self.training_set.scenes[i].image for i in indices])

    def _each_by(self, features: WholeFeatures, images: Sequence[np.ndarray]) -> Each:
        normalisation, bf16 = self.training_set.normalisation, uses_bf16(self.config.precision, self.device)
        return each_by_teacher(self.evaluated, images, features, normalisation, self.device, bf16)


def data_digest(training_set: TrainingSet) -> str:
    """SHA-256 of everything a run takes from its data: names, images, points and their order."""
    digest = hashlib.sha256()
    for scene in training_set.scenes:
        digest.update(f"{scene.name}\0{scene.image.shape}\0".encode(errors="surrogateescape"))
        digest.update(np.ascontiguousarray(scene.image))
        digest.update(np.ascontiguousarray(scene.points.astype(np.int64)))
    digest.update(f"{training_set.train} {training_set.validation}".encode())
    return digest.hexdigest()
