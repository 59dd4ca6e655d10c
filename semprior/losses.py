"""The inner and the outer objective and the weights of image clusters (method, section 4).

Every term is a mean over pixels per sample first, then a weighted mean over the batch, which under data-parallel
training is the global batch. Logits come as a tuple, the main ones first (deep supervision has several).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semprior.config import DistillConfig, LossConfig
from semprior.parallel import global_mean

_LN2 = math.log(2.0)
NEAR = 5  # pixels, along rows and columns, around a pseudo-mask


def cluster_weights(alpha: Tensor, clusters: Tensor) -> Tensor:
    """Weight of each sample of a batch, from the learned score of its image's cluster.

    Scores are centred over the batch, bounded to (-ln 2, ln 2) and exponentiated, so that no sample weighs more than
    four times another; the mean weight is 1.

    Args:
        alpha: (N,) learned scores, starting at 0.
        clusters: (B,) int64, the cluster of each sample.

    Returns:
        (B,) weights that carry gradient to `alpha`; the normaliser does not.
    """
    chosen = alpha[clusters]
    centred = chosen - global_mean(chosen.mean())
    growth = torch.exp(_LN2 * torch.tanh(centred / _LN2))
    return growth / (global_mean(growth.mean()).detach() + 1e-6)


def cross_entropy(logits: Tensor, masks: Tensor, importance: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with logits, (B,1,H,W) each, as a mean over pixels per sample: (B,).

    `importance`, (B,1,H,W), is a factor of each pixel; none: 1.
    """
    return F.binary_cross_entropy_with_logits(logits, masks, importance, reduction="none").flatten(1).mean(1)


def background_importance(masks: Tensor, weight: float) -> Tensor | None:
    """What a pixel counts: `weight` further than `NEAR` pixels from every target, 1 elsewhere; none where all count 1.

    Near a point, how far the target reaches is a guess. Away from every point a prediction is false for certain.

    Args:
        masks: (B,1,H,W) of 0 and 1.
        weight: of the certain background.
    """
    if weight == 1:
        return None
    near = F.max_pool2d(masks, (2 * NEAR + 1, 1), stride=1, padding=(NEAR, 0))  # a square is its columns, then its rows
    near = F.max_pool2d(near, (1, 2 * NEAR + 1), stride=1, padding=(0, NEAR))
    return weight + (1 - weight) * near


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean squared error of ``sigmoid(logits / T)`` between student and teacher, (B,1,H,W) each, per sample: (B,)."""
    gap = torch.sigmoid(student / temperature) - torch.sigmoid(teacher / temperature)
    return gap.square().flatten(1).mean(1)


def deep_distillation(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
    """`distillation` as a mean over the student's logits, each against the teacher's main ones resized: (B,)."""
    main = teacher[0].float()
    terms = []
    for logits in student:
        logits = logits.float()
        fitted = main
        if logits.shape[-2:] != main.shape[-2:]:
            fitted = F.interpolate(main, logits.shape[-2:], mode="bilinear", align_corners=False)
        terms.append(distillation(logits, fitted, temperature))
    return torch.stack(terms).mean(0)


def task_loss(logits: Sequence[Tensor], masks: Tensor, weights: Tensor, config: LossConfig) -> Tensor:
    """The loss against pseudo-masks, summed over all logits of a detector.

    ``bce`` is the published loss. A target covers one pixel in three thousand, so that for some thirty epochs
    cross-entropy alone says "background everywhere". ``iou_bce`` (ours, outside `paper`) adds what is measured in the
    end: one minus the soft IoU of the weighted batch, intersections and unions summed before they are divided, so
    that a crop without target only counts its false alarms; plus ``loss.bce_weight`` times the cross-entropy. In both,
    false alarms away from every target count ``loss.background_weight`` times.

    Args:
        logits: tensors (B,1,h,w); where smaller than the masks they are resized to them.
        masks: (B,1,H,W) of 0 and 1.
        weights: (B,) from `cluster_weights`.
        config: which loss.
    """
    total = masks.new_zeros(())
    importance = None if config.task == "bce" else background_importance(masks, config.background_weight)
    for level in logits:
        level = level.float()
        if level.shape[-2:] != masks.shape[-2:]:
            level = F.interpolate(level, masks.shape[-2:], mode="bilinear", align_corners=False)
        entropy = (weights * cross_entropy(level, masks, importance)).mean()
        if config.task == "bce":
            total = total + entropy
            continue
        probability = torch.sigmoid(level)
        common = (probability * masks).flatten(1).sum(1)
        seen = probability if importance is None else probability * importance
        union = (seen + masks).flatten(1).sum(1) - common
        common, union = (global_mean((weights * area).mean()) for area in (common, union))
        total = total + config.bce_weight * entropy + 1 - common / (union + 1e-6)
    return total


def inner_loss(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    masks: Tensor,
    weights: Tensor,
    gate_penalty: Tensor,
    loss: LossConfig,
    distill: DistillConfig,
) -> Tensor:
    """The teacher's objective: pseudo-masks, nearness to the student (held still), small gates.

    Args:
        teacher: the teacher's logits, with gradient.
        student: the student's logits; held still here.
        masks: (B,1,H,W) of 0 and 1.
        weights: (B,) cluster weights; constants here.
        gate_penalty: the weighted mean magnitude of the SCAM gates.
        loss: the task loss.
        distill: its weight and temperature.
    """
    weights = weights.detach()
    held = [logits.detach() for logits in student]
    align = (weights * deep_distillation(held, teacher, distill.temperature)).mean()
    return task_loss(teacher, masks, weights, loss) + distill.align_weight * align + gate_penalty


def outer_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    masks: Tensor,
    weights: Tensor,
    loss: LossConfig,
    distill: DistillConfig,
) -> Tensor:
    """The student's objective: nearness to the teacher (held still) and pseudo-masks; `weights` carry gradient.

    Shapes as in `inner_loss`.
    """
    held = [logits.detach() for logits in teacher]
    near = (weights * deep_distillation(student, held, distill.temperature)).mean()
    return distill.outer_weight * near + task_loss(student, masks, weights, loss)
