"""The training of a run: a generator that yields one report per epoch (method, sections 4 to 7)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from semprior.config.epochs import is_due, share_of
from semprior.config.schema import Config, flatten
from semprior.data.batches import Batch, Pool, draw_batch, epoch_batches
from semprior.data.sparse_masks import Packer, SparseMasks
from semprior.data.training_set import TrainingSet
from semprior.errors import UserError, depends_on
from semprior.evaluation.image_sums import POINT_TERMS, ImageSums
from semprior.evaluation.inference import (
    NonFiniteOutputError,
    Probabilities,
    WholeFeatures,
    iter_student_probabilities,
    iter_teacher_probabilities,
)
from semprior.evaluation.label_overlap import label_overlap
from semprior.evaluation.metrics import THRESHOLD
from semprior.foundation.feature_source import Features
from semprior.io.checkpoint import Snapshot
from semprior.labels.pseudo_masks import TARGET, PseudoMasks
from semprior.models.build import build_teacher
from semprior.models.detector import detector_spec
from semprior.models.teacher import Teacher
from semprior.reading.schema import checked
from semprior.reading.tensors import not_finite
from semprior.runtime.device import Precision, used_precision, uses_bf16
from semprior.runtime.distributed import (
    average_statistics_,
    broadcast_,
    gather,
    own_positions,
    with_sync_batchnorm,
    workers,
)
from semprior.runtime.process_setup import give_back_freed_memory
from semprior.runtime.torch_internals import EagerAdamW
from semprior.training.bilevel import NonFiniteLossError, inner_step, outer_step
from semprior.training.ema import frozen_copy, update_average
from semprior.training.epoch_selection import Scores, Selector
from semprior.training.learning_rate import learning_rate
from semprior.training.losses import loss_of_epoch
from semprior.training.optimizer_state import restore_optimizer, stored_optimizer


@dataclass(frozen=True)
class EpochReport:
    """The results of an epoch.

    Attributes:
        epoch: its number, from 0.
        inner_loss: mean over the inner steps.
        outer_loss: mean over the outer steps; None if there were none.
        rate: learning rate after the last step.
        pool: number of images in the training pool, without validation images that are shared.
        admitted: number of images admitted to the pool in this epoch.
        evolved: whether pseudo-masks evolved.
        seconds: duration.
        scores: flat metrics of the evaluation, like ``holdout/point_score``; empty if none was due.
        labels: ``labels/iou`` and ``labels/niou`` of the pseudo-masks of pool and validation with the true masks, where
            there are any: before the first epoch, and after each evolution; else empty. After cross-fitting also
            ``labels/first_iou`` and ``labels/first_niou``, of the first pseudo-masks. Nothing decides by them.
        best: whether this epoch is the best so far.
        best_teacher: whether it is the teacher's own best, which the preset ``paper`` keeps as well.
        images: the terms of the metrics, image by image; None if no evaluation was due.
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
    labels: dict[str, float] = field(default_factory=dict)
    best: bool = False
    best_teacher: bool = False
    images: ImageSums | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """All numbers of the report by name, except its epoch."""
        names = [item.name for item in fields(self) if item.name not in ("epoch", "scores", "labels", "images")]
        scalars = {name: float(getattr(self, name)) for name in names if getattr(self, name) is not None}
        return {**scalars, **self.labels, **self.scores}


class _Selection(TypedDict):
    best_value: float | None
    best_epoch: int | None


class _AddedLater(TypedDict, total=False):
    """The values that runs of earlier versions lack."""

    thresholds: dict[str, float]


class _State(_AddedLater):
    """The values of a snapshot that `Trainer.restore` needs."""

    epoch: int
    updates: int
    rng: dict[str, Any]
    selection: _Selection
    vfm: str | None
    data: str


class DivergedError(UserError):
    """Training stopped because a loss, a weight or an output of the network was not finite."""


class Trainer:
    """One run of the bilevel training of a teacher and its student.

    It is data-parallel if `torch.distributed` is initialised, and knows nothing else about where it runs. W workers
    take the steps that one would, up to rounding and to BatchNorm on the CPU (`semprior.runtime.distributed`). Every
    worker has the whole state and yields the same reports, so that any of them can save it.

    Example::

        trainer = Trainer(config, training_set, features, device)
        for report in trainer.run():
            print(report.epoch, report.inner_loss)

    Args:
        config: of the run, as `prepare.config_as_used` returns it.
        training_set: its images, seeds and clusters.
        features: source of the VFM's maps.
        device: of the networks.

    Raises:
        UserError: the pool has fewer images than a batch.
    """

    def __init__(self, config: Config, training_set: TrainingSet, features: Features, device: torch.device) -> None:
        self.config = config
        self.training_set = training_set
        self.features = features
        self.device = device
        self.epoch = 0
        self.updates = 0
        self.rng = np.random.default_rng(config.seed)
        self.teacher = self._on_device(build_teacher(config, features.vfm))
        self.average = frozen_copy(self.teacher) if config.optim.average else None
        self.clusters = training_set.clusters
        self.alpha = nn.Parameter(torch.zeros(config.clusters.count, device=device))
        self.pseudo_masks = PseudoMasks.start(config, training_set)
        self.selector = Selector(config, training_set)
        self.inner = self._optimizer([*self.teacher.parameters()])
        self.outer = self._optimizer([*self.teacher.detector.parameters(), self.alpha])
        self._awaits_crossfit = config.labels.refine == "crossfit"
        self._require_full_batch()

    @property
    def precision(self) -> Precision:
        """In which the networks run on this device."""
        return used_precision(self.config.precision, self.device)

    @property
    def evaluated(self) -> Teacher:
        """The teacher (and its student) for evaluation, evolution and deployment, in eval mode."""
        return self.average if isinstance(self.average, Teacher) else self.teacher.eval()

    @cached_property
    def data(self) -> str:
        """Digest of the data, cached since it reads every image."""
        return data_digest(self.training_set)

    def run(self) -> Iterator[EpochReport]:
        """Train to the last epoch and yield a report per epoch; between two reports a snapshot is complete.

        Raises:
            DivergedError: a loss is not finite (the message names the epoch, the batch and its images), or a weight
                or an output of the network is not at the end of an epoch.
        """
        if self._awaits_crossfit:
            raise RuntimeError("labels.refine=crossfit: the short runs of semprior.training.crossfit come first")
        self._broadcast_state()
        while self.epoch < self.config.epochs:
            started = time.perf_counter()
            epoch, config = self.epoch, self.config
            evolved, admitted = self._update_labels()
            labels = self._label_overlap() if evolved or not epoch else {}
            inner = self._inner_pass()
            outer = self._outer_pass() if config.outer.every and epoch % config.outer.every == 0 else []
            self._share_statistics()
            self._broadcast_state()
            self._require_finite_weights()
            scores = self._evaluate() if self._evaluation_due() else None
            self.epoch += 1
            yield EpochReport(
                epoch=epoch,
                inner_loss=float(np.mean(inner)),
                outer_loss=float(np.mean(outer)) if outer else None,
                rate=self._rate(epoch, 1.0),
                pool=len(self.pseudo_masks.members),
                admitted=admitted,
                evolved=evolved,
                seconds=time.perf_counter() - started,
                scores=scores.flat if scores else {},
                labels=labels,
                best=bool(scores and scores.best),
                best_teacher=bool(scores and scores.best_teacher),
                images=scores.images if scores else None,
            )

    def start_from(self, judged: Sequence[np.ndarray]) -> None:
        """Take the pseudo-masks that follow from the judgement of other teachers: see `PseudoMasks.start_from`."""
        self.pseudo_masks.start_from(judged)
        self._awaits_crossfit = False

    def predict_by_teacher(self, indices: Sequence[int]) -> Probabilities:
        """The teacher's probabilities for images of the run: pairs of the position among them and (H,W) float32.

        Raises:
            DivergedError: an output is not finite.
        """
        with self._between_steps():
            yield from self._by_teacher(indices)

    def snapshot(self) -> Snapshot:
        """The state that resuming the run and deploying its detector need."""
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
                "thresholds": dict(self.selector.thresholds),
                "normalisation": [self.training_set.normalisation.mean, self.training_set.normalisation.std],
                "intensity": self.training_set.intensity.stored(),
                "vfm": self.features.vfm.key if self.features.vfm else None,
                "data": self.data,
                "precision": self.precision,
            },
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot as if the run had never stopped.

        Raises:
            UserError: the snapshot belongs to other data or another VFM, or is not one of this run.
        """
        values = checked(snapshot.values, _State, "state.json")
        try:
            self._restore(snapshot, values)
        except torch.OutOfMemoryError:
            raise
        except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:  # digests match, contents do not
            raise UserError(f"the checkpoint is not one of this run ({' '.join(str(error).split())[:200]})") from error

    def _restore(self, snapshot: Snapshot, values: _State) -> None:
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
        self.epoch, self.updates = values["epoch"], values["updates"]
        self.rng.bit_generator.state = values["rng"]
        self.clusters = snapshot.arrays["clusters"]  # k-means may differ in the last bit on another machine
        self.pseudo_masks.restore(snapshot.arrays)
        self.selector.restore(snapshot.arrays, values["selection"])
        self.selector.thresholds = dict(values.get("thresholds", {}))
        self._awaits_crossfit = False

    def _on_device(self, teacher: Teacher) -> Teacher:
        teacher.detector = with_sync_batchnorm(teacher.detector, self.device)
        return teacher.to(self.device)

    def _broadcast_state(self) -> None:
        """Take the first worker's weights and clusters, from which other machines may differ in the last bit."""
        if workers() == 1:
            return
        networks = [self.teacher] if self.average is None else [self.teacher, self.average]
        clusters = torch.from_numpy(self.clusters.copy()).to(self.device)
        broadcast_(
            [clusters, self.alpha, *(tensor for network in networks for tensor in network.state_dict().values())]
        )
        self.clusters = clusters.cpu().numpy()

    def _require_finite_weights(self) -> None:
        """Refuse to evaluate and save weights that the last step of an epoch has made infinite or not a number."""
        state: dict[str, Tensor] = {"alpha": self.alpha, **self.teacher.state_dict()}
        state |= stored_optimizer("inner", self.inner) | stored_optimizer("outer", self.outer)
        name = not_finite(state) or (not_finite(self.average.state_dict()) if self.average is not None else None)
        if name is not None:
            raise DivergedError(
                f"training stopped: the weights {name} are not finite after epoch {self.epoch}; lower optim.rate"
            )

    def _share_statistics(self) -> None:
        average_statistics_(self.teacher)
        if self.average is not None:
            average_statistics_(self.average)

    def _optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.AdamW:
        return EagerAdamW(
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

    @depends_on("data.batch", "labels.pool", "labels.seed", "outer.shared")
    def _require_full_batch(self) -> None:
        members, batch = len(self.inner_images()), self.config.data.batch
        if members < batch:
            way_out = f"set data.batch to {members} or less" if members else "labels.pool=all takes all images in"
            raise UserError(
                f"data.batch: the training pool has {members} images, fewer than a batch of {batch}; {way_out}"
            )
        if batch % workers():
            raise UserError(f"data.batch: {batch} images do not divide among {workers()} workers")

    def _update_labels(self) -> tuple[bool, int]:
        """Evolve pseudo-masks and admit images, if due; whether masks evolved, and the number of admitted images."""
        predicted = self.pseudo_masks.predicted_by_teacher(self.epoch)
        if not predicted:
            return False, 0
        own = [predicted[position] for position in own_positions(len(predicted))]
        probabilities = ((own[i], found) for i, found in self.predict_by_teacher(own))
        admitted = self.pseudo_masks.update(self.epoch, probabilities)
        return self.config.labels.refine == "evolve", admitted

    def _label_overlap(self) -> dict[str, float]:
        data, soft = self.training_set, self.pseudo_masks.soft
        indices = [*self.pseudo_masks.members, *data.validation_indices]
        found = label_overlap(data, lambda index: soft[index] >= TARGET, indices)
        if self.config.labels.refine == "crossfit" and not self.epoch:
            before = label_overlap(data, lambda index: data.seeds[index].mask, indices)
            found |= {name.replace("labels/", "labels/first_"): value for name, value in before.items()}
        return found

    def inner_images(self) -> list[int]:
        """The images of inner steps: the pool and, if they are shared, those of the outer steps."""
        shared = self.training_set.validation_indices if self.config.outer.shared else ()
        return [*self.pseudo_masks.members, *shared]

    def _inner_pass(self) -> list[float]:
        batches = epoch_batches(self.inner_images(), self.config.data.batch, self.rng)
        losses = []
        self.teacher.train()
        for position, indices in enumerate(batches):
            self._set_rate(self.inner, (position + 1) / len(batches))
            batch = self._batch(indices, self.config.scam.drop)
            try:
                losses.append(inner_step(self.teacher, self.alpha, batch, self.inner, self._step_config))
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
            if self.config.follows_paper and position:  # shuffled anew when it runs out
                if position % len(validation) == 0:
                    validation = epoch_batches(self.training_set.validation_indices, size, self.rng)
                if position % len(training) == 0:
                    training = epoch_batches(self.pseudo_masks.members, size, self.rng)
            for_validation, for_training = validation[position % len(validation)], training[position % len(training)]
            batches = self._batch(for_validation), self._batch(for_training)
            try:
                losses.append(outer_step(self.teacher, self.alpha, *batches, self.outer, rate, self._step_config))
            except NonFiniteLossError as error:
                raise self._diverged(error, "outer", position, for_validation + for_training) from error
            self._average_weights()
        return losses

    @property
    def _step_config(self) -> Config:
        """The settings of the steps of this epoch."""
        return replace(self.config, loss=loss_of_epoch(self.config.loss, self.epoch))

    def _batch(self, indices: list[int], drop: float = 0.0) -> Batch:
        return draw_batch(
            Pool(self.training_set.scenes, self.pseudo_masks.soft, self.clusters, self.pseudo_masks.hard),
            indices,
            self.config.data,
            self.training_set.normalisation,
            self.features.crops,
            self.device,
            self.rng,
            drop,
            truncate=self.config.follows_paper,
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
        """Around passes over whole images, whose activations differ in size from those of training steps."""
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            give_back_freed_memory()
        try:
            yield
        except NonFiniteOutputError as error:
            raise DivergedError(f"training stopped: {error} after epoch {self.epoch}; lower optim.rate") from error
        if on_cpu:
            give_back_freed_memory()

    def _evaluation_due(self) -> bool:
        epoch, select = self.epoch, self.config.select
        last = epoch + 1 == self.config.epochs
        return last or is_due(epoch, share_of(select.after, self.config.epochs), select.every)

    def _evaluate(self) -> Scores:
        """Score the evaluated networks: each worker predicts its share of the images, then all masks are gathered."""
        with self._between_steps():
            return self._scores()

    def _scores(self) -> Scores:
        on_test = self.config.select.by == "test/iou"
        held_out = self.training_set.holdout_indices
        scenes = self.training_set.test if on_test else [self.training_set.scenes[i] for i in held_out]
        own, shapes = own_positions(len(scenes)), [scene.image.shape for scene in scenes]
        student = iter_student_probabilities(
            self.evaluated.detector,
            [scenes[i].image for i in own],
            self.training_set.normalisation,
            self.device,
            uses_bf16(self.config.precision, self.device),
        )
        teacher = (
            self._by_teacher_with(self.features.whole, [scenes[i].image for i in own])
            if on_test
            else self._by_teacher([held_out[i] for i in own])
        )
        predicted = []
        for who, probabilities in (("student", student), ("teacher", teacher)):
            pack, packed, terms = Packer(), {}, {}
            for i, found in probabilities:
                packed[own[i]] = pack(found > THRESHOLD)
                if self.selector.chooses_threshold:
                    terms[own[i]] = self.selector.threshold_terms(own[i], found).reshape(-1).view(np.uint8)
            masks, terms = gather(packed, len(scenes)), gather(terms, len(scenes))
            predicted.append(SparseMasks(shapes, [masks[i] for i in range(len(scenes))], bool))
            if terms:
                columns = len(POINT_TERMS)
                tables = (terms[i].copy().view(np.float64).reshape(-1, columns) for i in range(len(scenes)))
                self.selector.choose_threshold(who, tables)
        return self.selector.score(self.epoch, *predicted)

    def _by_teacher(self, indices: Sequence[int]) -> Probabilities:
        """The teacher's probabilities for images of the run, with features from the bank where it has them."""

        def features(places: Sequence[int] | None, grey: Tensor) -> list[Tensor]:
            return self.features.from_bank(None if places is None else [indices[place] for place in places], grey)

        return self._by_teacher_with(features, [self.training_set.scenes[i].image for i in indices])

    def _by_teacher_with(self, features: WholeFeatures, images: Sequence[np.ndarray]) -> Probabilities:
        normalisation, bf16 = self.training_set.normalisation, uses_bf16(self.config.precision, self.device)
        return iter_teacher_probabilities(self.evaluated, images, features, normalisation, self.device, bf16)


def data_digest(training_set: TrainingSet) -> str:
    """SHA-256 of the data of a run: names, images, points and their order."""
    digest = hashlib.sha256()
    for scene in training_set.scenes:
        digest.update(f"{scene.name}\0{scene.image.shape}\0".encode(errors="surrogateescape"))
        digest.update(np.ascontiguousarray(scene.image).data)
        digest.update(np.ascontiguousarray(scene.points.astype(np.int64)).data)
    digest.update(f"{training_set.train} {training_set.validation}".encode())
    return digest.hexdigest()
