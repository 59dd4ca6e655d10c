"""The inner and outer losses, one sample at a time (method, section 4)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 4.0
ALIGN_WEIGHT = 0.1
OUTER_WEIGHT = 1.0
GATE_WEIGHT = 0.005


def task(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of one sample's logits (1, H, W) against its mask (1, H, W), a scalar."""
    return F.binary_cross_entropy_with_logits(logits, mask)


def kd(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of two maps (1, h, w) of softened probabilities of one sample, a scalar."""
    return ((a - b) ** 2).mean()


def soften(logits: Tensor) -> Tensor:
    """Probabilities at the temperature."""
    return torch.sigmoid(logits / TEMPERATURE)


def cluster_weights(alpha: Tensor, clusters: Tensor) -> Tensor:
    """Weights (B,) of a batch whose images belong to `clusters` (B,) int64; they carry gradient to `alpha` (N,)."""
    values = alpha[clusters]
    bound = math.log(2)
    excess = values - values.mean()
    excess = bound * torch.tanh(excess / bound)
    return torch.exp(excess) / (torch.exp(excess).mean().detach() + 1e-6)


def _task_all(logits: tuple[Tensor, ...], mask: Tensor, i: int) -> Tensor:
    total = torch.zeros((), dtype=mask.dtype, device=mask.device)
    for one in logits:
        total = total + task(_fit(one, mask)[i], mask[i])
    return total


def _kd_all(student: tuple[Tensor, ...], teacher: Tensor, i: int) -> Tensor:
    total = torch.zeros((), dtype=teacher.dtype, device=teacher.device)
    for one in student:
        total = total + kd(soften(one)[i], _fit(soften(teacher), one)[i])
    return total / len(student)


def _fit(logits: Tensor, like: Tensor) -> Tensor:
    if logits.shape[-2:] == like.shape[-2:]:
        return logits
    return F.interpolate(logits, size=like.shape[-2:], mode="bilinear", align_corners=False)


def inner_loss(
    teacher: tuple[Tensor, ...],
    student: tuple[Tensor, ...],
    mask: Tensor,
    weights: Tensor,
    gate_penalty: Tensor,
) -> Tensor:
    """The teacher's loss, a scalar; logits and mask are (B, 1, H, W), weights (B,).

    The student's logits and the weights are constants here.
    """
    student = tuple(one.detach() for one in student)
    weights = weights.detach()
    total = torch.zeros((), dtype=mask.dtype, device=mask.device)
    for i in range(len(mask)):
        sample = _task_all(teacher, mask, i) + ALIGN_WEIGHT * _kd_all(student, teacher[0], i)
        total = total + weights[i] * sample
    return total / len(mask) + GATE_WEIGHT * gate_penalty


def outer_loss(teacher: tuple[Tensor, ...], student: tuple[Tensor, ...], mask: Tensor, weights: Tensor) -> Tensor:
    """The student's loss, a scalar; the teacher's logits are constants, the weights carry gradient to alpha."""
    main = teacher[0].detach()
    total = torch.zeros((), dtype=mask.dtype, device=mask.device)
    for i in range(len(mask)):
        sample = OUTER_WEIGHT * _kd_all(student, main, i) + _task_all(student, mask, i)
        total = total + weights[i] * sample
    return total / len(mask)
