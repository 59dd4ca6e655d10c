"""Teacher and student: one detector, with and without modulation, behind one encoder pass (method, section 4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from semprior.models.detector import Detector
from semprior.models.scam import SCAM
from semprior.runtime.distributed import BatchNorm


@contextmanager
def repeat_batchnorm_updates(module: nn.Module) -> Iterator[None]:
    """Within the context, one forward pass in train mode updates running statistics as two on the same batch would.

    Two updates ``r <- (1 - m) r + m v`` with the same batch statistic v are one with momentum ``1 - (1 - m)^2``: 0.19
    for 0.1. `num_batches_tracked` still grows by one.

    Raises:
        ValueError: a BatchNorm in `module` keeps a cumulative average (momentum None), which has no such equivalent.
    """
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    before = [norm.momentum for norm in norms if norm.momentum is not None]
    if len(before) < len(norms):
        raise ValueError("a BatchNorm with a cumulative average cannot combine two updates; give it a momentum")
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
        detector: the network of both.
        scam: built for the detector's stages.
        own_statistics: whether the teacher's decoder keeps running statistics of its own. Published are shared ones:
            teacher and student are then evaluated with an average of the statistics of both, so that the teacher
            misses targets and the student sees targets everywhere. The weights are shared in either case, and train
            mode, which normalises by the batch, is unaffected.
        teacher_first: whether `both` runs the decoder for the teacher first, which is the published order in both
            losses. It matters to running statistics alone.

    Attributes:
        statistics: the teacher's own running statistics, one entry per BatchNorm of the decoder; empty if shared.
    """

    def __init__(
        self, detector: Detector, scam: SCAM, own_statistics: bool = False, teacher_first: bool = False
    ) -> None:
        super().__init__()
        self.teacher_first = teacher_first
        self.detector = detector
        self.scam = scam
        norms = _decoder_norms(detector) if own_statistics and scam.placed else []
        self.statistics = nn.ModuleList(nn.BatchNorm2d(norm.num_features, affine=False) for norm in norms)

    def forward(self, x: Tensor, maps: Sequence[Tensor], sizes: Tensor | None = None) -> Tensor:
        """The teacher's main logits (B, 1, H, W) for images (B, 3, H, W) and K maps (B, C_k, H/16, W/16).

        `sizes`, (B, 2) int64, are heights and widths of padded images; None: there is no padding.
        """
        return self.teacher_from(self.encode(x), maps, sizes=sizes)[0]

    def student(self, x: Tensor) -> Tensor:
        """The student's main logits (B, 1, H, W) for images (B, 3, H, W)."""
        logits: Tensor = self.detector(x)
        return logits

    def encode(self, x: Tensor) -> list[Tensor]:
        """The features that teacher and student share."""
        return self.detector.encode(x)

    def student_from(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """All logits of the student from `encode`'s features."""
        return self.detector.decode(features)

    def teacher_from(
        self,
        features: Sequence[Tensor],
        maps: Sequence[Tensor],
        bare: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """All logits of the teacher from `encode`'s features and the K maps; `bare` samples get the student's."""
        modulated = self.scam(features, maps, bare)
        with self._own_statistics():
            return self.detector.decode_all(modulated, sizes)

    def modulator_state(self) -> dict[str, Tensor]:
        """The tensors that only the teacher has, by name: the modulator and its running statistics."""
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
        """All logits of student and teacher, with one pass of the encoder.

        Losses and gradients equal those of two full forward passes, one of them without gradient. So do the running
        statistics in train mode: the encoder's are updated as if twice with this batch, the decoder's by the student's
        features first and the teacher's second, or the reverse (`teacher_first`), whichever carries the gradient.

        Args:
            x: (B, 3, H, W) normalised images.
            maps: K maps (B, C_k, H/16, W/16) of the vision model.
            grad: the one that carries the gradient; the other is computed without.
            bare: (B,) bool, samples whose teacher is not modulated; None modulates all samples.

        Returns:
            Student logits and teacher logits, each a tuple with the main logits (B, 1, H, W) first.
        """
        if not self.scam.placed:  # teacher and student are the same network
            with repeat_batchnorm_updates(self.detector):
                logits = self.student_from(self.encode(x))
            return logits, logits
        with repeat_batchnorm_updates(self.detector.encoder):
            features = self.encode(x)

        def student() -> tuple[Tensor, ...]:
            with nullcontext() if grad == "student" else _no_grad(x.device):
                return self.student_from(features)

        def teacher() -> tuple[Tensor, ...]:
            with nullcontext() if grad == "teacher" else _no_grad(x.device):
                return self.teacher_from(features, maps, bare)

        if self.teacher_first:
            taught = teacher()
            return student(), taught
        return student(), teacher()


@contextmanager
def _no_grad(device: torch.device) -> Iterator[None]:
    """Within the context there are no gradients, and the caller's autocast works without its cache.

    Autocast caches the weights that it casts. Older versions of torch use weights cast here, without gradient, in the
    pass that needs one, and the decoder's weights then get none (https://github.com/pytorch/pytorch/issues/112583).
    """
    kind = device.type
    dtype = torch.get_autocast_dtype(kind)
    cast = torch.autocast(kind, dtype=dtype, enabled=torch.is_autocast_enabled(kind), cache_enabled=False)
    with torch.no_grad(), cast:
        yield


def _decoder_norms(detector: Detector) -> list[BatchNorm]:
    encoder = set(detector.encoder.modules())
    return [part for part in detector.modules() if isinstance(part, BatchNorm) and part not in encoder]


def _swap_statistics(one: nn.Module, other: nn.Module) -> None:
    for name in ("running_mean", "running_var"):
        tensor = getattr(one, name)
        setattr(one, name, getattr(other, name))
        setattr(other, name, tensor)
