"""The traits of the published detectors (method, sections 1 and 3), available without importing PyTorch.

Commands that only read a sweep, such as ``semprior-tune top``, need these numbers but no network, and importing PyTorch
takes seconds. Other detectors need no entry: `detector_traits` imports them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorTraits:
    """The properties of a detector that do not need its network.

    Attributes:
        stages: channels of each stage, from full resolution down.
        scam_scale: strength `s` of its modulation (method, section 3), published or chosen by a sweep.
        learning_rate: likewise.
    """

    stages: tuple[int, ...]
    scam_scale: float
    learning_rate: float


PUBLISHED = {
    "alclnet": DetectorTraits(stages=(16, 32, 64, 128, 256), scam_scale=0.12, learning_rate=5e-4),
    "mlclnet": DetectorTraits(stages=(16, 32, 64), scam_scale=0.55, learning_rate=1e-3),
    # Scale and rate of the others are published nowhere. These led the sweep tune/sweeps/detectors.yaml on SIRST v1,
    # among rates of 5e-4 to 2e-3 and scales of .05 and .2; benchmarks/sweeps.md has its ranking.
    "gglnet": DetectorTraits(stages=(16, 32, 64, 128, 256), scam_scale=0.2, learning_rate=1e-3),
    "mshnet": DetectorTraits(stages=(16, 32, 64, 128, 256), scam_scale=0.2, learning_rate=1e-3),
    "repisdnet": DetectorTraits(stages=(32, 64, 64), scam_scale=0.2, learning_rate=1e-3),
    "dnanet": DetectorTraits(stages=(16, 32, 64, 128, 256), scam_scale=0.05, learning_rate=1e-3),
    "sctransnet": DetectorTraits(stages=(32, 64, 128, 256, 256), scam_scale=0.05, learning_rate=1e-3),
}


def detector_traits(name: str) -> DetectorTraits:
    """The traits of the detector registered under `name`.

    Raises:
        UserError: no detector has this name.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    from semprior.models.detector import detector_spec  # imports PyTorch

    spec = detector_spec(name)
    return DetectorTraits(spec.stages, spec.scam_scale, spec.learning_rate)
