"""One inner and one outer step of the bilevel optimisation (method, section 5)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.plain.losses import cluster_weights, inner_loss, outer_loss
from benchmarks.plain.scam import Teacher


@dataclass(frozen=True)
class PlainBatch:
    """What a step takes.

    Attributes:
        images: (B, 3, H, W) float32, augmented and normalised.
        masks: (B, 1, H, W) float32 of 0 and 1, augmented alike.
        maps: the VFM's K maps of the crops before augmentation, each (B, C, H/16, W/16) float32.
        clusters: (B,) int64.
    """

    images: Tensor
    masks: Tensor
    maps: list[Tensor]
    clusters: Tensor


def inner_optimizer(model: Teacher, learning_rate: float) -> torch.optim.AdamW:
    """AdamW over detector and modulator."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def outer_optimizer(model: Teacher, alpha: nn.Parameter, learning_rate: float) -> torch.optim.AdamW:
    """A second AdamW over the detector and alpha, one group."""
    phi = [*model.detector.parameters(), alpha]
    return torch.optim.AdamW(phi, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def inner_objective(model: Teacher, alpha: Tensor, batch: PlainBatch) -> Tensor:
    """The inner loss by two full forwards, the teacher's first, the student's without gradient."""
    teacher = model(batch.images, batch.maps)
    with torch.no_grad():
        student = model.student(batch.images)
    weights = cluster_weights(alpha, batch.clusters)
    return inner_loss(teacher, student, batch.masks, weights, model.modulator.gate_penalty())


def outer_objective(model: Teacher, alpha: Tensor, batch: PlainBatch) -> Tensor:
    """The outer loss by two full forwards, the teacher's first and without gradient."""
    with torch.no_grad():
        teacher = model(batch.images, batch.maps)
    student = model.student(batch.images)
    weights = cluster_weights(alpha, batch.clusters)
    return outer_loss(teacher, student, batch.masks, weights)


def inner_step(model: Teacher, alpha: Tensor, batch: PlainBatch, optimizer: torch.optim.Optimizer) -> float:
    """One inner step in train mode; returns the loss."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    loss = inner_objective(model, alpha, batch)
    loss.backward()
    optimizer.step()
    return loss.item()


def hypergradient(
    upper_theta: list[Tensor],
    lower_theta: list[Tensor],
    upper_alpha: Tensor,
    lower_alpha: Tensor,
    eta: float,
) -> tuple[list[Tensor], Tensor]:
    """The first-order Gauss-Newton hypergradient for theta and alpha.

    `upper` are the gradients of F (validation), `lower` those of f (training); the two inner products run over the
    detector's weights only, the combination over phi: the detector's weights and alpha.
    """
    across = sum(float((g * h).sum(dtype=torch.float64)) for g, h in zip(upper_theta, lower_theta, strict=True))
    along = sum(float((h * h).sum(dtype=torch.float64)) for h in lower_theta)
    factor = eta * across / (along + 1e-12)
    theta = [g + factor * h for g, h in zip(upper_theta, lower_theta, strict=True)]
    return theta, upper_alpha + factor * lower_alpha


def outer_pass_indices(
    validation: list[int], pool: list[int], size: int, steps: int, rng: np.random.Generator
) -> list[tuple[list[int], list[int]]]:
    """The images of the batches of an outer pass: both lists shuffled, each anew when its full batches run out."""

    def shuffled(members: list[int]) -> list[list[int]]:
        order = [members[i] for i in rng.permutation(len(members))]
        return [order[k : k + size] for k in range(0, len(order), size) if k + size <= len(order)]

    waiting = [shuffled(validation), shuffled(pool)]
    chosen = []
    for _ in range(steps):
        for side, members in enumerate((validation, pool)):
            if not waiting[side]:
                waiting[side] = shuffled(members)
        chosen.append((waiting[0].pop(0), waiting[1].pop(0)))
    return chosen


def outer_step(
    model: Teacher,
    alpha: nn.Parameter,
    validation: PlainBatch,
    training: PlainBatch,
    optimizer: torch.optim.Optimizer,
    eta: float,
) -> tuple[float, float]:
    """One outer step in train mode, `eta` the inner learning rate; returns (F, f)."""
    model.train()
    phi = [*model.detector.parameters(), alpha]
    upper_loss = outer_objective(model, alpha, validation)
    upper = torch.autograd.grad(upper_loss, phi)
    outer_objective(model, alpha, training)  # the published scripts evaluate it twice, and BatchNorm moves each time
    lower_loss = outer_objective(model, alpha, training)
    lower = torch.autograd.grad(lower_loss, phi)
    theta, weights = hypergradient(list(upper[:-1]), list(lower[:-1]), upper[-1], lower[-1], eta)
    optimizer.zero_grad(set_to_none=True)
    for parameter, gradient in zip(phi, [*theta, weights], strict=True):
        parameter.grad = gradient
    optimizer.step()
    return upper_loss.item(), lower_loss.item()
