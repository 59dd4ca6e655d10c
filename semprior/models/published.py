"""The published detectors in numbers, known without PyTorch (method, sections 1 and 3).

A program that only reads what a sweep recorded, like ``semprior-tune top``, needs these numbers and no network, and
PyTorch takes seconds to import. A detector of one's own needs no entry here: `detector_traits` imports it instead.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorTraits:
    """What is known of a detector beside its network.

    Attributes:
        stages: channels of each stage, from full resolution down.
        scam_scale: the published strength `s` of its modulation (method, section 3).
        learning_rate: the published one.
    """

    stages: tuple[int, ...]
    scam_scale: float
    learning_rate: float


PUBLISHED = {
    "alclnet": DetectorTraits(stages=(16, 32, 64, 128, 256), scam_scale=0.12, learning_rate=5e-4),
    "mlclnet": DetectorTraits(stages=(16, 32, 64), scam_scale=0.55, learning_rate=1e-3),
}


def detector_traits(name: str) -> DetectorTraits:
    """The traits of the detector registered under `name`.

    Raises:
        UserError: there is none.
    """
    if name in PUBLISHED:
        return PUBLISHED[name]
    from semprior.models.detector import detector_spec  # imports PyTorch

    spec = detector_spec(name)
    return DetectorTraits(spec.stages, spec.scam_scale, spec.learning_rate)
