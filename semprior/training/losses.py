"""The inner and the outer objective and the weights of image clusters (method, section 4).

Every term is first a mean over the pixels of a sample, then a weighted mean over the batch, which under data-parallel
training is the global batch. Logits are a tuple with the main ones first; deep supervision has several.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from semprior.config.schema import DistillConfig, LossConfig
from semprior.runtime.distributed import global_mean

_LN2 = math.log(2.0)
_TINY = 1e-6  # keeps quotients and angles of empty images finite
NEAR = 5  # pixels, along rows and columns, around a pseudo-mask
PLAIN_EPOCHS = 5
"""Number of epochs at the beginning of a run in which ``sls`` is ``iou``."""


def cluster_weights(alpha: Tensor, clusters: Tensor) -> Tensor:
    """The weight of each sample of a batch, from the learned score of its image's cluster.

    Scores are centred over the batch, bounded to (-ln 2, ln 2) and exponentiated, so that no sample weighs more than
    four times another; the mean weight is 1.

    Args:
        alpha: (N,) learned scores, starting at 0.
        clusters: (B,) int64, the cluster of each sample.

    Returns:
        (B,) weights with gradient to `alpha`, except through the normaliser.
    """
    chosen = alpha[clusters]
    centred = chosen - global_mean(chosen.mean())
    growth = torch.exp(_LN2 * torch.tanh(centred / _LN2))
    return growth / (global_mean(growth.mean()).detach() + 1e-6)


def cross_entropy(logits: Tensor, masks: Tensor, importance: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the pixels of each sample, from logits and masks (B,1,H,W): (B,).

    `importance` (B,1,H,W) weighs the pixels; None weighs all by 1.
    """
    return F.binary_cross_entropy_with_logits(logits, masks, importance, reduction="none").flatten(1).mean(1)


def background_importance(masks: Tensor, weight: float) -> Tensor | None:
    """The weight of each pixel, (B,1,H,W): 1 within `NEAR` pixels of a target, else `weight`; None if that is 1, too.

    The extent of a target around its point is a guess. A prediction away from all points is certainly false.

    Args:
        masks: (B,1,H,W) of 0 and 1.
        weight: of the certain background.
    """
    if weight == 1:
        return None
    near = F.max_pool2d(
        masks, (2 * NEAR + 1, 1), stride=1, padding=(NEAR, 0)
    )  # a square window, along rows and then columns
    near = F.max_pool2d(near, (1, 2 * NEAR + 1), stride=1, padding=(0, NEAR))
    return weight + (1 - weight) * near


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean squared difference per sample, (B,), of ``sigmoid(logits / T)`` of student (B,1,h,w) and teacher (B,1,H,W).

    The teacher's probabilities are resized to the student's.
    """
    probability = torch.sigmoid(teacher / temperature)
    if probability.shape[-2:] != student.shape[-2:]:
        probability = F.interpolate(probability, student.shape[-2:], mode="bilinear", align_corners=False)
    gap = torch.sigmoid(student / temperature) - probability
    return gap.square().flatten(1).mean(1)


def deep_distillation(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float) -> Tensor:
    """Mean `distillation` over all logits of the student, against the teacher's main ones: (B,)."""
    main = teacher[0].float()
    return torch.stack([distillation(logits.float(), main, temperature) for logits in student]).mean(0)


def loss_of_epoch(config: LossConfig, epoch: int) -> LossConfig:
    """The task loss of an epoch: ``sls`` begins as the soft IoU alone, without scale and location (MSHNet)."""
    return replace(config, task="iou") if config.task == "sls" and epoch < PLAIN_EPOCHS else config


def task_loss(logits: Sequence[Tensor], masks: Tensor, weights: Tensor, config: LossConfig) -> Tensor:
    """The loss against pseudo-masks, summed over all logits of a detector.

    ``bce`` is the published loss. A target covers one pixel in three thousand, so that for some thirty epochs
    cross-entropy alone predicts background everywhere. ``iou_bce`` (ours, outside `paper`) is one minus the soft IoU of
    the weighted batch plus ``loss.bce_weight`` times the cross-entropy. Intersections and unions are summed before they
    are divided, so that a crop without target contributes its false alarms only. Both terms weigh false alarms away
    from all targets by ``loss.background_weight``.

    ``iou`` and ``sls`` are the recipes of DNANet and of MSHNet (`region_loss`). Masks are max-pooled to their side
    logits; for the other losses, logits are resized to the masks.

    Args:
        logits: tensors (B,1,h,w).
        masks: (B,1,H,W) of 0 and 1.
        weights: (B,) from `cluster_weights`.
        config: chooses the loss.
    """
    total = masks.new_zeros(())
    if config.task in ("iou", "sls"):
        for level in logits:
            pooled = masks if level.shape == masks.shape else F.adaptive_max_pool2d(masks, level.shape[-2:])
            loss = region_loss(torch.sigmoid(level.float()), pooled, scale_and_location=config.task == "sls")
            total = total + (weights * loss).mean()
        return total
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


def region_loss(probability: Tensor, masks: Tensor, scale_and_location: bool) -> Tensor:
    """One minus the soft IoU of each sample, (B,), as MSHNet's scale and location sensitive loss if asked for.

    With areas P and Y, the overlap I and ``d = ((P - Y) / 2)^2``, the IoU ``I / (P + Y - I)`` is then multiplied by
    ``(min(P, Y) + d) / (max(P, Y) + d)``. Added is ``1 - min|c| / max|c| + 4 / pi^2 (difference of angles)^2``, where c
    is the mean over pixels of ``(x / W p, y / H p)`` of prediction or mask, and its angle is that from the x axis. A
    sample without a target has no location; its loss is 1, whatever is predicted: its false alarms cost nothing.

    Args:
        probability: (B,1,H,W).
        masks: (B,1,H,W) of 0 and 1.
        scale_and_location: whether scale and location count.
    """
    predicted, labelled = probability.flatten(1).sum(1), masks.flatten(1).sum(1)
    common = (probability * masks).flatten(1).sum(1)
    overlap = common / (predicted + labelled - common + _TINY)
    if not scale_and_location:
        return 1 - overlap
    gap = ((predicted - labelled) / 2).square()
    small, large = torch.minimum(predicted, labelled), torch.maximum(predicted, labelled)
    scale = (small + gap) / (large + gap + _TINY)
    (first, first_angle), (second, second_angle) = _place(probability), _place(masks)
    distance = 1 - torch.minimum(first, second) / (torch.maximum(first, second) + _TINY)
    location = distance + 4 / math.pi**2 * (first_angle - second_angle).square()
    return 1 - scale * overlap + torch.where(labelled > 0, location, 0.0)


def _place(values: Tensor) -> tuple[Tensor, Tensor]:
    """The length (B,) and the angle (B,) of the mean over pixels of ``(x / W v, y / H v)`` of values (B,1,H,W)."""
    height, width = values.shape[-2:]
    rows, columns = (torch.arange(extent, device=values.device) / extent for extent in (height, width))
    x = (values * columns).flatten(1).mean(1)
    y = (values * rows[:, None]).flatten(1).mean(1)
    return torch.sqrt(x.square() + y.square() + _TINY**2), torch.atan2(y + _TINY, x + _TINY)


def inner_loss(
    teacher: Sequence[Tensor],
    student: Sequence[Tensor],
    masks: Tensor,
    weights: Tensor,
    gate_penalty: Tensor,
    loss: LossConfig,
    distill: DistillConfig,
) -> Tensor:
    """The teacher's objective: fit the pseudo-masks, stay near the student, keep the gates small.

    Args:
        teacher: the teacher's logits, with gradient.
        student: the student's logits, detached here.
        masks: (B,1,H,W) of 0 and 1.
        weights: (B,) cluster weights, detached here.
        gate_penalty: the weighted mean magnitude of the SCAM gates.
        loss: settings of the task loss.
        distill: weight and temperature of the distillation.
    """
    weights = weights.detach()
    fixed = [logits.detach() for logits in student]
    align = (weights * deep_distillation(fixed, teacher, distill.temperature)).mean()
    return task_loss(teacher, masks, weights, loss) + distill.align_weight * align + gate_penalty


def outer_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    masks: Tensor,
    weights: Tensor,
    loss: LossConfig,
    distill: DistillConfig,
) -> Tensor:
    """The student's objective: stay near the teacher and fit the pseudo-masks; `weights` carry gradient.

    The teacher's logits are detached here. Shapes are as in `inner_loss`.
    """
    fixed = [logits.detach() for logits in teacher]
    near = (weights * deep_distillation(student, fixed, distill.temperature)).mean()
    return distill.outer_weight * near + task_loss(student, masks, weights, loss)
