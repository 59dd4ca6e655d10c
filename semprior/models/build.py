"""Builds the teacher that a config describes; the student is its detector."""

from __future__ import annotations

import torch

from semprior.config.schema import Config
from semprior.foundation.vfm import VFM
from semprior.models.detector import create_detector, detector_spec
from semprior.models.scam import SCAM
from semprior.models.stages import placed_stages
from semprior.models.teacher import Teacher


def build_teacher(config: Config, vfm: VFM | None) -> Teacher:
    """Detector and modulator with their initial weights, which depend on the config's seed alone.

    Args:
        config: of the run.
        vfm: the vision model, for the shape of its maps; None if no stage is modulated.
    """
    spec = detector_spec(config.detector)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        detector = create_detector(config.detector, output_bias=config.loss.output_bias)
        scam = SCAM(
            map_channels=vfm.map_channels if vfm else (1,),
            stages=spec.stages,
            placed=placed_stages(config.scam.stages, len(spec.stages)),
            scale=spec.scam_scale if config.scam.scale is None else config.scam.scale,
            width=config.vfm.width if vfm and vfm.width_needed else None,
        )
    teacher = Teacher(detector, scam, config.scam.own_statistics, teacher_first=config.follows_paper)
    return teacher.to(memory_format=torch.channels_last) if config.channels_last else teacher
