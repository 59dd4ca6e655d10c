"""Detectors and teachers out of checkpoints, ready to be asked about images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from semprior.config.schema import Config, environment_leaves, unflatten
from semprior.data.batches import Normalisation
from semprior.data.images import IntensityRange
from semprior.errors import UserError
from semprior.evaluation.inference import student_probabilities, teacher_probabilities
from semprior.foundation.feature_source import Features
from semprior.foundation.vfm import load_vfm
from semprior.io.checkpoint import Snapshot, find_checkpoint, load_checkpoint
from semprior.models.build import build_teacher
from semprior.models.detector import Detector, create_detector, detector_spec
from semprior.models.stages import placed_stages
from semprior.models.teacher import Teacher
from semprior.runtime.device import uses_bf16


@dataclass(frozen=True)
class Origin:
    """What a checkpoint says of the run it comes from.

    Attributes:
        checkpoint: its folder.
        config: of the run.
        epoch: number of epochs that were trained.
        normalisation: of grey levels.
        intensity: how source grey values become 0..255.
        vfm: content key of the VFM that the teacher was trained with; none where nothing was modulated.
    """

    checkpoint: Path
    config: Config
    epoch: int
    normalisation: Normalisation
    intensity: IntensityRange
    vfm: str | None


@dataclass(frozen=True)
class Student:
    """The bare detector, in eval mode, with what it has to know of its images."""

    detector: Detector
    origin: Origin
    device: torch.device

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Probability of a target at every pixel of images (H,W) uint8 of any sizes: (H,W) float32 each."""
        bf16 = uses_bf16(self.origin.config.precision, self.device)
        return student_probabilities(self.detector, images, self.origin.normalisation, self.device, bf16)


@dataclass(frozen=True)
class LoadedTeacher:
    """Detector and modulator, in eval mode, and the VFM that guides them."""

    teacher: Teacher
    features: Features
    origin: Origin
    device: torch.device

    def probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """As `Student.probabilities`, by the teacher; the VFM runs on every image."""
        bf16 = uses_bf16(self.origin.config.precision, self.device)
        normalisation, whole = self.origin.normalisation, self.features.whole
        return teacher_probabilities(self.teacher, images, whole, normalisation, self.device, bf16)


def load_student(path: Path, device: torch.device) -> Student:
    """The student of a run (its best checkpoint) or of a checkpoint.

    Raises:
        UserError: no checkpoint, a damaged one, or weights that do not fit the detector that its config names.
    """
    folder = find_checkpoint(path)
    snapshot = load_checkpoint(folder, files=("student",))
    origin = _origin(folder, snapshot)
    return Student(_detector(snapshot, origin, device).eval(), origin, device)


def load_teacher(path: Path, device: torch.device) -> LoadedTeacher:
    """The teacher of a run (its best checkpoint) or of a checkpoint, with its VFM.

    The VFM's weights are found as the run found them, or as the variable ``SEMPRIOR__VFM__WEIGHTS`` says.

    Raises:
        UserError: as `load_student`; the VFM's weights cannot be had, or are not those of the run.
    """
    folder = find_checkpoint(path)
    snapshot = load_checkpoint(folder, files=("student", "modulator"))
    origin = _origin(folder, snapshot)
    config, spec = origin.config, detector_spec(origin.config.detector)
    placed = placed_stages(config.scam.stages, len(spec.stages))
    weights = str(environment_leaves().get("vfm.weights", config.vfm.weights))
    vfm = load_vfm(config.vfm.name, weights, device) if placed else None
    if (vfm.key if vfm else None) != origin.vfm:
        raise UserError(
            f"{folder}: its teacher was trained with other weights of {config.vfm.name} than vfm.weights={weights}"
            " gives here; name those with the variable SEMPRIOR__VFM__WEIGHTS"
        )
    teacher = build_teacher(config, vfm)
    _fill(teacher.detector, snapshot, "student", origin)
    snapshot.tensors["modulator"] |= teacher.detector.state_dict(prefix="detector.")
    _fill(teacher, snapshot, "modulator", origin)
    teacher = teacher.to(device).eval().requires_grad_(False)
    return LoadedTeacher(teacher, Features(vfm, None), origin, device)


def _origin(folder: Path, snapshot: Snapshot) -> Origin:
    values = snapshot.values
    try:
        mean, std = values["normalisation"]
        low, high = values["intensity"]
        config = unflatten(values["config"], f"{folder / 'state.json'}")
        return Origin(
            checkpoint=folder,
            config=config,
            epoch=int(values["epoch"]),
            normalisation=Normalisation(mean, std),
            intensity=IntensityRange(low, high),
            vfm=values["vfm"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / 'state.json'}: is not the state of a run ({error!r})") from error


def _detector(snapshot: Snapshot, origin: Origin, device: torch.device) -> Detector:
    detector = create_detector(origin.config.detector)
    _fill(detector, snapshot, "student", origin)
    detector = detector.to(device).requires_grad_(False)
    return detector.to(memory_format=torch.channels_last) if origin.config.channels_last else detector


def _fill(module: torch.nn.Module, snapshot: Snapshot, name: str, origin: Origin) -> None:
    try:
        module.load_state_dict(snapshot.tensors[name])
    except (RuntimeError, KeyError) as error:
        raise UserError(
            f"{origin.checkpoint / name}.safetensors: its weights do not fit the detector {origin.config.detector};"
            " it is a checkpoint of another detector or configuration"
        ) from error
