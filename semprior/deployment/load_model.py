"""Loads students and teachers from checkpoints, to predict images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semprior.config.schema import Config, environment_leaves, unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.errors import UserError
from semprior.evaluation.inference import (
    Probabilities,
    iter_student_probabilities,
    iter_teacher_probabilities,
    student_probabilities,
    teacher_probabilities,
)
from semprior.evaluation.metrics import THRESHOLD
from semprior.foundation.feature_source import Features
from semprior.foundation.vfm import load_vfm
from semprior.io.checkpoint import Snapshot, find_checkpoint, load_checkpoint
from semprior.models.build import build_teacher
from semprior.models.detector import Detector, create_detector, detector_spec
from semprior.models.stages import placed_stages
from semprior.models.teacher import Teacher
from semprior.reading.schema import checked
from semprior.runtime.device import uses_bf16


@dataclass(frozen=True)
class CheckpointInfo:
    """The facts about its run that a checkpoint records.

    Attributes:
        checkpoint: its folder.
        config: of the run.
        epoch: number of trained epochs.
        normalisation: of grey levels.
        intensity: range of source grey values that is mapped to 0..255.
        vfm: content key of the VFM that the teacher was trained with; None if no stage is modulated.
        threshold: of the probability of the network that was loaded, as its run chose it on held-out images; 0.5 if it
            chose none.
    """

    checkpoint: Path
    config: Config
    epoch: int
    normalisation: Normalisation
    intensity: IntensityRange
    vfm: str | None
    threshold: float = THRESHOLD


@dataclass(frozen=True)
class Student:
    """The detector alone, in eval mode and in its deployed form, and how its images are read and normalised."""

    detector: Detector
    info: CheckpointInfo
    device: torch.device

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Probability of a target at every pixel of images (H,W) uint8 of any sizes: (H,W) float32 each."""
        bf16 = uses_bf16(self.info.config.precision, self.device)
        return student_probabilities(self.detector, images, self.info.normalisation, self.device, bf16)

    def each(self, images: Sequence[np.ndarray]) -> Probabilities:
        """As `probabilities`, with one batch at a time in memory: pairs of the index of an image and its values."""
        bf16 = uses_bf16(self.info.config.precision, self.device)
        return iter_student_probabilities(self.detector, images, self.info.normalisation, self.device, bf16)


@dataclass(frozen=True)
class LoadedTeacher:
    """Detector and modulator, in eval mode, and the VFM that conditions them."""

    teacher: Teacher
    features: Features
    info: CheckpointInfo
    device: torch.device

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As `Student.probabilities`, from the teacher; the VFM runs on every image."""
        bf16 = uses_bf16(self.info.config.precision, self.device)
        normalisation, whole = self.info.normalisation, self.features.whole
        return teacher_probabilities(self.teacher, images, whole, normalisation, self.device, bf16)

    def each(self, images: Sequence[np.ndarray]) -> Probabilities:
        """As `Student.each`, from the teacher."""
        bf16 = uses_bf16(self.info.config.precision, self.device)
        normalisation, whole = self.info.normalisation, self.features.whole
        return iter_teacher_probabilities(self.teacher, images, whole, normalisation, self.device, bf16)


@dataclass(frozen=True)
class _RunState:
    """What `CheckpointInfo` needs of the ``state.json`` of a checkpoint."""

    config: dict[str, Any]
    epoch: int
    normalisation: tuple[float, float]
    intensity: tuple[float, float] | tuple[float, float, float]  # the third marks floating-point images
    vfm: str | None
    thresholds: Mapping[str, float] = field(default_factory=dict)  # of student and teacher; earlier versions lack them


def load_student(path: Path, device: torch.device) -> Student:
    """Load the student of a run (its best checkpoint) or of a checkpoint.

    Raises:
        UserError: the checkpoint is missing or damaged, or its weights do not fit the detector in its config.
    """
    folder = find_checkpoint(path)
    snapshot = load_checkpoint(folder, files=("student",))
    info = checkpoint_info(folder, snapshot)
    return Student(_detector(snapshot, info, device), info, device)


def load_teacher(path: Path, device: torch.device) -> LoadedTeacher:
    """Load the teacher of a run (its best checkpoint, or the teacher's own best) or of a checkpoint, with its VFM.

    The VFM's weights come from the source that the run used, or that the variable ``SEMPRIOR__VFM__WEIGHTS`` names.

    Raises:
        UserError: as `load_student`; or the VFM's weights are unavailable, or are not those of the run.
    """
    folder = find_checkpoint(path, teacher=True)
    snapshot = load_checkpoint(folder, files=("student", "modulator"))
    info = checkpoint_info(folder, snapshot, "teacher")
    config, spec = info.config, detector_spec(info.config.detector)
    placed = placed_stages(config.scam.stages, len(spec.stages))
    weights = str(environment_leaves().get("vfm.weights", config.vfm.weights))
    vfm = load_vfm(config.vfm.name, weights, device) if placed else None
    if (vfm.key if vfm else None) != info.vfm:
        raise UserError(
            f"{folder}: its teacher was trained with other weights of {config.vfm.name} than vfm.weights={weights}"
            " gives here; name those with the variable SEMPRIOR__VFM__WEIGHTS"
        )
    teacher = build_teacher(config, vfm)
    _fill(teacher.detector, snapshot, "student", info)
    snapshot.tensors["modulator"] |= teacher.detector.state_dict(prefix="detector.")
    _fill(teacher, snapshot, "modulator", info)
    teacher = teacher.to(device).eval().requires_grad_(False)
    return LoadedTeacher(teacher, Features(vfm, None), info, device)


def checkpoint_info(folder: Path, snapshot: Snapshot, network: str = "student") -> CheckpointInfo:
    """The facts that a checkpoint records of its run and of one network, ``student`` or ``teacher``.

    Raises:
        UserError: its values are not those of a run.
    """
    place = str(folder / "state.json")
    state = checked(snapshot.values, _RunState, place)
    (mean, std), (low, high, *floating) = state.normalisation, state.intensity
    threshold = state.thresholds.get(network, THRESHOLD)
    if state.epoch < 0 or std <= 0 or low >= high or floating not in ([], [1]) or not 0 <= threshold < 1:
        raise UserError(
            f"{place}: is not the state of a run: epoch, normalisation, intensity or threshold are out of range"
        )
    return CheckpointInfo(
        checkpoint=folder,
        config=unflatten(state.config, place),
        epoch=state.epoch,
        normalisation=Normalisation(mean, std),
        intensity=IntensityRange.restored(state.intensity),
        vfm=state.vfm,
        threshold=threshold,
    )


def _detector(snapshot: Snapshot, info: CheckpointInfo, device: torch.device) -> Detector:
    """The detector with the weights of a snapshot, in the form in which it is deployed."""
    trained = create_detector(info.config.detector)
    _fill(trained, snapshot, "student", info)
    detector = trained.eval().deployed().to(device).requires_grad_(False)
    return detector.to(memory_format=torch.channels_last) if info.config.channels_last else detector


def _fill(module: torch.nn.Module, snapshot: Snapshot, name: str, info: CheckpointInfo) -> None:
    try:
        module.load_state_dict(snapshot.tensors[name])
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{info.checkpoint / name}.safetensors: its weights do not fit the detector {info.config.detector};"
            " it is a checkpoint of another detector or configuration"
        ) from error
