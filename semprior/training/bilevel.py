"""One inner and one outer step of the bilevel problem (method, section 5).

The inner problem fits detector and modulator (the teacher) to the pseudo-masks of the training pool. The outer problem
fits the detector alone (the student) and the cluster scores on validation images, corrected for the pull of the
training loss: a first-order Gauss-Newton hypergradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from semprior.config.schema import Config
from semprior.data.batches import Batch
from semprior.models.teacher import Teacher
from semprior.runtime.device import uses_bf16
from semprior.runtime.distributed import average_, global_mean
from semprior.training.losses import cluster_weights, inner_loss, outer_loss


class NonFiniteLossError(ArithmeticError):
    """A loss is infinite or not a number."""


def autocast(config: Config, device: torch.device) -> torch.autocast:
    """Autocast to the precision in which the networks run; losses are always computed in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(config.precision, device))


def inner_objective(teacher: Teacher, alpha: Tensor, batch: Batch, config: Config) -> Tensor:
    """The inner loss of a batch: a scalar with gradient to detector and modulator.

    Its `bare` samples pass the detector without modulation (ours, `scam.drop`; published are none). The published inner
    step trains the modulated path alone, and the student, which then learns only in the outer steps from the few
    validation images, falls behind its teacher.
    """
    with autocast(config, batch.images.device):
        student_logits, teacher_logits = teacher.both(batch.images, batch.maps, grad="teacher", bare=batch.bare)
    weights = cluster_weights(alpha, batch.clusters)
    penalty = config.scam.gate_penalty * teacher.scam.gate_penalty()
    return inner_loss(teacher_logits, student_logits, batch.masks, weights, penalty, config.loss, config.distill)


def outer_objective(teacher: Teacher, alpha: Tensor, batch: Batch, config: Config) -> Tensor:
    """The outer loss of a batch: a scalar with gradient to the detector and `alpha`."""
    with autocast(config, batch.images.device):
        student_logits, teacher_logits = teacher.both(batch.images, batch.maps, grad="student")
    weights = cluster_weights(alpha, batch.clusters)
    return outer_loss(student_logits, teacher_logits, batch.masks, weights, config.loss, config.distill)


def inner_step(
    teacher: Teacher, alpha: Tensor, batch: Batch, optimizer: torch.optim.Optimizer, config: Config
) -> float:
    """Update detector and modulator once on a batch of the pool; returns the loss before the update.

    Raises:
        NonFiniteLossError: the loss is not finite; nothing was updated.
    """
    loss = inner_objective(teacher, alpha, batch, config)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    direction = gradients(loss, parameters)
    value = _finite(loss)  # waits for a GPU, so it comes after everything that can be queued
    apply_gradients(optimizer, parameters, direction, config.optim.clip)
    return value


def outer_step(
    teacher: Teacher,
    alpha: nn.Parameter,
    validation: Batch,
    training: Batch,
    optimizer: torch.optim.Optimizer,
    rate: float,
    config: Config,
) -> float:
    """Update detector and cluster scores once; returns the validation loss before the update.

    Args:
        teacher: detector and modulator; only the detector is updated.
        alpha: (N,) cluster scores.
        validation: a batch of validation images.
        training: a batch of the pool, for the same objective.
        optimizer: of the detector's parameters and, last, `alpha`.
        rate: the inner learning rate, eta in the formula.
        config: gives precision, losses and clipping.

    Raises:
        NonFiniteLossError: a loss is not finite; nothing was updated.
    """
    parameters = [*teacher.detector.parameters(), alpha]
    loss = outer_objective(teacher, alpha, validation, config)
    outer = gradients(loss, parameters)
    if config.follows_paper:  # evaluates the training loss once more than needed, which moves running statistics
        with torch.no_grad():
            outer_objective(teacher, alpha, training, config)
    other = outer_objective(teacher, alpha, training, config)
    inner = gradients(other, parameters)
    value, _ = _finite(loss), _finite(other)
    apply_gradients(optimizer, parameters, hypergradient(outer, inner, rate), config.optim.clip)
    return value


def hypergradient(outer: Sequence[Tensor], inner: Sequence[Tensor], rate: float) -> list[Tensor]:
    """The first-order Gauss-Newton hypergradient ``dF + eta <dF, df> / (<df, df> + 1e-12) df``.

    Args:
        outer: dF/dphi, gradients of the validation loss, one tensor per parameter, `alpha` last.
        inner: df/dphi, gradients of the training loss, in the same order.
        rate: eta.

    Returns:
        One tensor per parameter. The inner products run over the detector's weights only, not over `alpha`; their ratio
        may be negative and is not clipped.
    """
    products = torch.stack([(f * g).sum() for f, g in zip(outer[:-1], inner[:-1], strict=True)]).sum()
    squares = torch.stack([g.square().sum() for g in inner[:-1]]).sum()
    factor = rate * products / (squares + 1e-12)
    return [f + factor * g for f, g in zip(outer, inner, strict=True)]


def gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of the global batch; zeros where the loss does not depend on a parameter."""
    found = list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    average_(found)
    return found


def apply_gradients(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], direction: Sequence[Tensor], clip: float | None
) -> None:
    """Update `parameters` with gradients or a hypergradient, clipped to the norm `clip` unless that is None.

    A gradient whose memory layout differs from its parameter's is copied to that layout: a fused optimiser pairs their
    elements in memory order, or refuses.
    """
    for parameter, gradient in zip(parameters, direction, strict=True):
        same_layout = gradient.stride() == parameter.stride()
        parameter.grad = gradient if same_layout else torch.empty_like(parameter).copy_(gradient)
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _finite(loss: Tensor) -> float:
    value = float(global_mean(loss.detach()))
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the loss is {value}")
    return value
