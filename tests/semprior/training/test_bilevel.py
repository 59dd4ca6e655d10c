"""Inner and outer gradients against finite differences, and the hypergradient against its formula written out."""

import dataclasses

import pytest
import torch
from torch import nn

from semprior.config.schema import Config, LossConfig, OptimConfig
from semprior.data.batches import Batch
from semprior.models.detector import Detector
from semprior.models.scam import SCAM
from semprior.models.teacher import Teacher
from semprior.training.bilevel import (
    NonFiniteLossError,
    hypergradient,
    inner_objective,
    inner_step,
    outer_objective,
    outer_step,
)

CONFIG = dataclasses.replace(
    Config(precision="fp32"), loss=LossConfig(task="bce", output_bias=None), optim=OptimConfig(clip=None)
)


class TinyDetector(Detector):
    """Two stages, one BatchNorm in the decoder: small enough for finite differences over every weight."""

    stages = (3, 4)

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1, stride=2)])
        self.norm = nn.BatchNorm2d(3)
        self.up = nn.Conv2d(4, 3, 1)
        self.last = nn.Conv2d(3, 1, 1)

    def encode(self, x):
        first = torch.tanh(self.encoder[0](x))
        return [first, torch.tanh(self.encoder[1](first))]

    def decode(self, features):
        up = nn.functional.interpolate(self.up(features[1]), scale_factor=2, mode="nearest")
        return (self.last(torch.tanh(self.norm(features[0] + up))),)


def _problem(seed=0):
    torch.manual_seed(seed)
    detector = TinyDetector()
    teacher = Teacher(detector, SCAM((5, 5), (3, 4), (0, 1), scale=0.5)).double().train()
    alpha = nn.Parameter(torch.tensor([0.3, -0.4, 0.1], dtype=torch.float64))
    return teacher, alpha, _batch(seed + 1), _batch(seed + 2)


def _batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64),
        masks=(torch.rand(4, 1, 8, 8, generator=generator) > 0.8).double(),
        maps=[torch.randn(4, 5, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2)],
        clusters=torch.tensor([0, 1, 2, 1]),
    )


def _finite_differences(value, parameters, step=1e-6):
    gradients = []
    for parameter in parameters:
        gradient = torch.zeros_like(parameter)
        flat, out = parameter.data.view(-1), gradient.view(-1)
        for i in range(flat.numel()):
            kept = flat[i].item()
            flat[i] = kept + step
            high = value()
            flat[i] = kept - step
            low = value()
            flat[i] = kept
            out[i] = (high - low) / (2 * step)
        gradients.append(gradient)
    return gradients


def test_outer_gradient_matches_finite_differences_over_weights_and_scores():
    """The stop-gradients make the loss a function of more than it is differentiated by: hold them as constants."""
    teacher, alpha, batch, _ = _problem()
    parameters = [*teacher.detector.parameters(), alpha]
    found = torch.autograd.grad(outer_objective(teacher, alpha, batch, CONFIG), parameters)
    held = teacher.both(batch.images, batch.maps, grad="student")[1][0].detach()
    with torch.no_grad():
        chosen = alpha[batch.clusters]
        ln2 = torch.log(torch.tensor(2.0, dtype=torch.float64))
        mean = torch.exp(ln2 * torch.tanh((chosen - chosen.mean()) / ln2)).mean()

    def value():
        with torch.no_grad():
            student = teacher.detector.decode(teacher.detector.encode(batch.images))[0]
            chosen = alpha[batch.clusters]
            weights = torch.exp(ln2 * torch.tanh((chosen - chosen.mean()) / ln2)) / (mean + 1e-6)
            gap = torch.sigmoid(student / 4) - torch.sigmoid(held / 4)
            entropy = nn.functional.binary_cross_entropy_with_logits(student, batch.masks, reduction="none")
            return (weights * (gap.square() + entropy).flatten(1).mean(1)).mean().item()

    for gradient, expected in zip(found, _finite_differences(value, parameters), strict=True):
        assert torch.allclose(gradient, expected, atol=1e-7)


def test_inner_gradient_matches_finite_differences_over_detector_and_modulator():
    teacher, alpha, batch, _ = _problem(5)
    parameters = [*teacher.parameters()]
    found = torch.autograd.grad(inner_objective(teacher, alpha, batch, CONFIG), parameters)
    held = teacher.both(batch.images, batch.maps, grad="teacher")[0][0].detach()

    def value():
        with torch.no_grad():
            logits = teacher.teacher_from(teacher.encode(batch.images), batch.maps)[0]
            from semprior.training.losses import cluster_weights

            gap = torch.sigmoid(logits / 4) - torch.sigmoid(held / 4)
            entropy = nn.functional.binary_cross_entropy_with_logits(logits, batch.masks, reduction="none")
            samples = (entropy + 0.1 * gap.square()).flatten(1).mean(1)
            weighted = (cluster_weights(alpha, batch.clusters) * samples).mean()
            return (weighted + 0.005 * teacher.scam.gate_penalty()).item()

    for gradient, expected in zip(found, _finite_differences(value, parameters), strict=True):
        assert torch.allclose(gradient, expected, atol=1e-7)


def test_hypergradient_is_the_formula_written_out():
    generator = torch.Generator().manual_seed(0)
    outer = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((3, 2), (4,), (5,))]
    inner = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((3, 2), (4,), (5,))]
    top = sum(
        a * b
        for f, g in zip(outer[:-1], inner[:-1], strict=True)
        for a, b in zip(f.flatten(), g.flatten(), strict=True)
    )
    bottom = sum(b * b for g in inner[:-1] for b in g.flatten())
    for gradient, f, g in zip(hypergradient(outer, inner, 1e-3), outer, inner, strict=True):
        assert torch.allclose(gradient, f + 1e-3 * top / (bottom + 1e-12) * g, rtol=1e-12)


def test_outer_step_moves_detector_and_scores_and_leaves_the_modulator():
    teacher, alpha, validation, training = _problem(9)
    before = {name: tensor.clone() for name, tensor in teacher.named_parameters()}
    scores = alpha.detach().clone()
    optimizer = torch.optim.AdamW([*teacher.detector.parameters(), alpha], lr=1e-2)
    outer_step(teacher, alpha, validation, training, optimizer, 1e-2, CONFIG)
    moved = {name for name, tensor in teacher.named_parameters() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith("detector.")}
    assert not torch.equal(alpha, scores)


def test_inner_step_moves_detector_and_modulator_and_leaves_the_scores():
    teacher, alpha, batch, _ = _problem(11)
    before, scores = [p.clone() for p in teacher.parameters()], alpha.detach().clone()
    inner_step(teacher, alpha, batch, torch.optim.AdamW(teacher.parameters(), lr=1e-2), CONFIG)
    assert all(not torch.equal(now, then) for now, then in zip(teacher.parameters(), before, strict=True))
    assert torch.equal(alpha, scores)


def test_repeated_inner_steps_lower_the_loss():
    teacher, alpha, batch, _ = _problem(13)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-2)
    losses = [inner_step(teacher, alpha, batch, optimizer, CONFIG) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_loss_that_is_not_finite_steps_nothing():
    teacher, alpha, batch, _ = _problem()
    batch.images[0, 0, 0, 0] = float("nan")
    before = [p.clone() for p in teacher.parameters()]
    with pytest.raises(NonFiniteLossError):
        inner_step(teacher, alpha, batch, torch.optim.AdamW(teacher.parameters(), lr=1e-2), CONFIG)
    assert all(torch.equal(now, then) for now, then in zip(teacher.parameters(), before, strict=True))
