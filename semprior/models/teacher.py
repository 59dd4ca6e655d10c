"""Teacher and student: one detector, with and without modulation, behind one encoder pass (method, section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from semprior.models.detector import Detector
from semprior.models.scam import SCAM


@contextmanager
def repeat_batchnorm_updates(module: nn.Module) -> Iterator[None]:
    """Within the context, one forward of `module` in train mode moves running statistics as two on the same batch do.

    Two updates ``r <- (1 - m) r + m v`` with the same batch statistic v are one with momentum ``1 - (1 - m)^2``: 0.19
    for 0.1. `num_batches_tracked` still grows by one.

    Raises:
        ValueError: a BatchNorm in `module` keeps a cumulative average (momentum none), which has no such equivalent.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    before = [norm.momentum for norm in norms]
    if any(momentum is None for momentum in before):
        raise ValueError("a BatchNorm with a cumulative average cannot stand for two updates; give it a momentum")
    try:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = 1 - (1 - momentum) ** 2
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum


class Teacher(nn.Module):
    """A detector and its modulator. The student is ``detector``, the teacher is ``decode(scam(encode(x), maps))``.

    Args:
        detector: serves both.
        scam: made for the detector's stages.
        own_statistics: whether the teacher's decoder keeps running statistics of its own. Published: shared, and then
            each of the two is evaluated with an average of its own statistics and the other's, which makes the teacher
            blunt and the student see targets everywhere. The weights are shared in either case, and in train mode,
            which normalises by the batch, nothing differs.

    Attributes:
        statistics: the teacher's own running statistics, one entry a BatchNorm of the decoder; empty where shared.
    """

    def __init__(self, detector: Detector, scam: SCAM, own_statistics: bool = False) -> None:
        super().__init__()
        self.detector = detector
        self.scam = scam
        norms = _decoder_norms(detector) if own_statistics and scam.placed else []
        self.statistics = nn.ModuleList(nn.BatchNorm2d(norm.num_features, affine=False) for norm in norms)

    def forward(self, x: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """The teacher's main logits (B, 1, H, W) for images (B, 3, H, W) and K maps (B, C_k, H/16, W/16)."""
        return self.teacher_from(self.encode(x), maps)[0]

    def student(self, x: Tensor) -> Tensor:
        """The student's main logits (B, 1, H, W) for images (B, 3, H, W)."""
        return self.detector(x)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The features that both share."""
        return self.detector.encode(x)

    def student_from(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All logits of the student from `encode`'s features."""
        return self.detector.decode(features)

    def teacher_from(
        self, features: Sequence[Tensor], maps: Sequence[Tensor], bare: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """All logits of the teacher from `encode`'s features and the K maps; of `bare` samples those of the student."""
        modulated = self.scam(features, maps, bare)
        with self._own_statistics():
            return self.detector.decode(modulated)

    def modulator_state(self) -> dict[str, Tensor]:
        """What the teacher has over its student, by name: the modulator and the running statistics."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("detector.")}

    @contextmanager
    def _own_statistics(self) -> Iterator[None]:
        """Within the context the decoder reads and updates the teacher's running statistics."""
        pairs = list(zip(_decoder_norms(self.detector), self.statistics, strict=True)) if self.statistics else []
        for norm, own in pairs:
            _swap_statistics(norm, own)
        try:
            yield
        finally:
            for norm, own in pairs:
                _swap_statistics(norm, own)

    def both(
        self,
        x: Tensor,
        maps: Sequence[Tensor],
        *,
        grad: Literal["teacher", "student"],
        bare: Tensor | None = None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All logits of student and teacher, with the encoder run once.

        Losses and gradients are those of two full forwards of which the other's result is held still. So are the
        running statistics in train mode: the encoder's move as by two updates with this batch, the decoder's are
        updated by the student's features first and by the teacher's second, whichever carries gradient.

        Args:
            x: (B, 3, H, W) normalised images.
            maps: K maps (B, C_k, H/16, W/16) of the vision model.
            grad: which of the two carries gradient; the other is computed without.
            bare: (B,) bool, samples whose teacher is not modulated; none: no sample.

        Returns:
            Student logits and teacher logits, each a tuple with the main logits (B, 1, H, W) first.
        """
        if not self.scam.placed:  # the two are one
            with repeat_batchnorm_updates(self.detector):
                logits = self.student_from(self.encode(x))
            return logits, logits
        with repeat_batchnorm_updates(self.detector.encoder):
            features = self.encode(x)
        if grad == "teacher":
            with _still(x.device):
                student = self.student_from(features)
            return student, self.teacher_from(features, maps, bare)
        student = self.student_from(features)
        with _still(x.device):
            return student, self.teacher_from(features, maps, bare)


@contextmanager
def _still(device: torch.device) -> Iterator[None]:
    """No gradients, under the caller's autocast but without its cache.

    Autocast caches the weights that it casts. Older versions of torch then give what was cast without gradient to the
    half that needs one, and the decoder's weights get none (https://github.com/pytorch/pytorch/issues/112583).
    """
    kind = device.type
    dtype = torch.get_autocast_dtype(kind)
    cast = torch.autocast(kind, dtype=dtype, enabled=torch.is_autocast_enabled(kind), cache_enabled=False)
    with torch.no_grad(), cast:
        yield


def _decoder_norms(detector: Detector) -> list[_BatchNorm]:
    encoder = set(detector.encoder.modules())
    return [part for part in detector.modules() if isinstance(part, _BatchNorm) and part not in encoder]


def _swap_statistics(one: nn.Module, other: nn.Module) -> None:
    for name in ("running_mean", "running_var"):
        kept = getattr(one, name)
        setattr(one, name, getattr(other, name))
        setattr(other, name, kept)
