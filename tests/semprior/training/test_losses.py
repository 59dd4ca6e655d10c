"""The objectives against the formulas of the method, section 4, written out plainly."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.plain import losses as plain
from semprior.config.schema import Config, DistillConfig, LossConfig
from semprior.training.losses import (
    NEAR,
    PLAIN_EPOCHS,
    cluster_weights,
    inner_loss,
    loss_of_epoch,
    outer_loss,
    task_loss,
)

PAPER = LossConfig(task="bce", output_bias=None)


def _batch(seed=0, size=4):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(size, 1, 6, 5, generator=generator, dtype=torch.float64)
    teacher = torch.randn(size, 1, 6, 5, generator=generator, dtype=torch.float64)
    masks = (torch.rand(size, 1, 6, 5, generator=generator) > 0.8).double()
    return student, teacher, masks


def _plain_task(logits, mask):
    p = [1 / (1 + math.exp(-v)) for v in logits.flatten().tolist()]
    return -sum(math.log(a if m else 1 - a) for a, m in zip(p, mask.flatten().tolist(), strict=True)) / len(p)


def _plain_kd(a, b, temperature):
    gaps = [
        1 / (1 + math.exp(-x / temperature)) - 1 / (1 + math.exp(-y / temperature))
        for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)
    ]
    return sum(g * g for g in gaps) / len(gaps)


def _plain_weights(alpha, clusters):
    chosen = [alpha[c] for c in clusters]
    mean = sum(chosen) / len(chosen)
    growth = [math.exp(math.log(2) * math.tanh((value - mean) / math.log(2))) for value in chosen]
    return [g / (sum(growth) / len(growth) + 1e-6) for g in growth]


def test_cluster_weights_follow_the_formula_and_stay_within_a_factor_of_four():
    alpha = [3.0, -0.5, 0.2, -9.0]
    clusters = [0, 1, 1, 3]
    weights = cluster_weights(torch.tensor(alpha, dtype=torch.float64), torch.tensor(clusters))
    assert weights.tolist() == pytest.approx(_plain_weights(alpha, clusters), rel=1e-12)
    assert weights.max() / weights.min() <= 4
    assert weights.mean().item() == pytest.approx(1, abs=1e-5)


def test_equal_scores_weigh_every_sample_alike():
    weights = cluster_weights(torch.full((7,), 0.3, dtype=torch.float64), torch.tensor([0, 5, 5, 2]))
    assert weights.tolist() == pytest.approx([1 / (1 + 1e-6)] * 4)


def test_the_normaliser_of_the_weights_carries_no_gradient():
    alpha = torch.tensor([0.4, -0.1], dtype=torch.float64, requires_grad=True)
    clusters = torch.tensor([0, 1, 1])
    cluster_weights(alpha, clusters).sum().backward()
    # with the normaliser held, the gradient of the sum is that of the growths over a constant; otherwise it is zero
    values = alpha.detach().requires_grad_()
    chosen = values[clusters]
    growth = torch.exp(math.log(2) * torch.tanh((chosen - chosen.mean()) / math.log(2)))
    (growth.sum() / (growth.mean().item() + 1e-6)).backward()
    assert torch.allclose(alpha.grad, values.grad)
    assert alpha.grad.abs().max() > 1e-3


def test_inner_and_outer_loss_follow_the_formulas():
    student, teacher, masks = _batch()
    weights = torch.tensor([1.5, 0.5, 0.8, 1.2], dtype=torch.float64)
    distill = DistillConfig()
    penalty = torch.tensor(0.0025, dtype=torch.float64)
    found = inner_loss((teacher,), (student,), masks, weights, penalty, PAPER, distill).item()
    w = weights.tolist()
    expected = sum(
        w[i] * (_plain_task(teacher[i], masks[i]) + 0.1 * _plain_kd(student[i], teacher[i], 4)) for i in range(4)
    )
    assert found == pytest.approx(expected / 4 + 0.0025, rel=1e-6)
    found = outer_loss((student,), (teacher,), masks, weights, PAPER, distill).item()
    expected = sum(w[i] * (_plain_kd(student[i], teacher[i], 4) + _plain_task(student[i], masks[i])) for i in range(4))
    assert found == pytest.approx(expected / 4, rel=1e-6)


def test_gradients_stop_where_the_method_stops_them():
    student, teacher, masks = (tensor.requires_grad_(i < 2) for i, tensor in enumerate(_batch()))
    weights = torch.ones(4, dtype=torch.float64, requires_grad=True)
    loss = inner_loss((teacher,), (student,), masks, weights, torch.zeros(()), PAPER, DistillConfig())
    grads = torch.autograd.grad(loss, (teacher, student, weights), allow_unused=True)
    assert grads[0] is not None and grads[1] is None and grads[2] is None
    loss = outer_loss((student,), (teacher,), masks, weights, PAPER, DistillConfig())
    grads = torch.autograd.grad(loss, (student, teacher, weights), allow_unused=True)
    assert grads[0] is not None and grads[1] is None and grads[2] is not None


def test_distillation_weights_weigh_distillation_alone():
    student, teacher, masks = _batch()
    weights = torch.ones(4, dtype=torch.float64)
    losses = [
        outer_loss((student,), (teacher,), masks, weights, PAPER, DistillConfig(outer_weight=v)).item() for v in (0, 3)
    ]
    distance = sum(_plain_kd(student[i], teacher[i], 4) for i in range(4)) / 4
    assert losses[1] - losses[0] == pytest.approx(3 * distance, rel=1e-5)


def test_deep_supervision_sums_tasks_and_averages_distillation():
    student, teacher, masks = _batch()
    small = torch.randn(4, 1, 3, 5, dtype=torch.float64)
    weights = torch.ones(4, dtype=torch.float64)
    both = task_loss((student, student), masks, weights, PAPER)
    assert both.item() == pytest.approx(2 * task_loss((student,), masks, weights, PAPER).item())
    none = DistillConfig(outer_weight=0.0)
    kd = [
        (outer_loss(logits, (teacher,), masks, weights, PAPER, d)).item()
        for logits in ((student, small), (student, student))
        for d in (DistillConfig(), none)
    ]
    assert kd[0] - kd[1] > 0
    single = outer_loss((student,), (teacher,), masks, weights, PAPER, DistillConfig()).item()
    single -= outer_loss((student,), (teacher,), masks, weights, PAPER, none).item()
    assert kd[2] - kd[3] == pytest.approx(single, rel=1e-5)


def test_soft_iou_prefers_the_mask_itself_and_punishes_false_alarms():
    _, _, masks = _batch(3)
    weights = torch.ones(4, dtype=torch.float64)
    config = Config().loss

    def loss(probability):
        return task_loss((torch.logit(probability.clamp(1e-4, 1 - 1e-4)),), masks, weights, config).item()

    alarms = torch.maximum(masks, (torch.rand(masks.shape) > 0.9).double())
    assert loss(masks) < loss(alarms) < loss(torch.ones_like(masks))
    assert loss(masks) < loss(torch.zeros_like(masks))


def test_the_background_weight_counts_what_is_away_from_every_target():
    masks = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    masks[..., 10:13, 10:13] = 1
    weights = torch.ones(1, dtype=torch.float64)

    def loss(weight, *alarms):
        probability = masks.clone() * 0.9 + 0.001
        for row, column in alarms:
            probability[..., row, column] = 0.8
        config = replace(Config().loss, background_weight=weight)
        return task_loss((torch.logit(probability),), masks, weights, config).item()

    near, away = (13 + NEAR - 1, 11), (13 + NEAR, 11)
    assert loss(1.0, near) == pytest.approx(loss(1.0, away))
    assert loss(3.0, away) - loss(3.0) > 2 * (loss(3.0, near) - loss(3.0))

    # Written out: of the cross-entropy and of the union, every pixel away counts three times.
    probability, importance = masks * 0.9 + 0.001, torch.full_like(masks, 3.0)
    importance[..., 10 - NEAR : 13 + NEAR, 10 - NEAR : 13 + NEAR] = 1
    entropy = -(masks * probability.log() + (1 - masks) * (1 - probability).log())
    common = (probability * masks).sum()
    union = (probability * importance).sum() + masks.sum() - common
    expected = 10 * (importance * entropy).mean() + 1 - common / (union + 1e-6)
    assert loss(3.0) == pytest.approx(expected.item(), rel=1e-4)


def test_side_logits_are_compared_with_resized_probabilities_as_in_the_plain_form():
    student, teacher, masks = _batch()
    sides = (student, torch.randn(4, 1, 3, 5, dtype=torch.float64), torch.randn(4, 1, 12, 10, dtype=torch.float64))
    weights = torch.tensor([0.5, 1.5, 1.0, 1.0], dtype=torch.float64)
    outer = outer_loss(sides, (4 * teacher,), masks, weights, PAPER, DistillConfig())
    assert outer.item() == pytest.approx(plain.outer_loss((4 * teacher,), sides, masks, weights).item(), rel=1e-6)
    penalty = torch.tensor(0.0)
    inner = inner_loss(sides, sides[::-1], masks, weights, penalty, PAPER, DistillConfig())
    assert inner.item() == pytest.approx(plain.inner_loss(sides, sides[::-1], masks, weights, penalty).item(), rel=1e-6)


def _plain_sls(p, y):
    """MSHNet's loss of one sample, of lists of rows."""
    rows, columns = len(p), len(p[0])
    area, label = sum(map(sum, p)), sum(map(sum, y))
    common = sum(a * b for one, other in zip(p, y, strict=True) for a, b in zip(one, other, strict=True))
    d = ((area - label) / 2) ** 2
    scale = (min(area, label) + d) / (max(area, label) + d)
    found = 1 - scale * common / (area + label - common)
    if not label:
        return found
    centres = []
    for values in (p, y):
        x = sum(v * j / columns for row in values for j, v in enumerate(row)) / (rows * columns)
        z = sum(v * i / rows for i, row in enumerate(values) for v in row) / (rows * columns)
        centres.append((math.hypot(x, z), math.atan(z / x)))
    (first, angle), (second, other) = centres
    return found + 1 - min(first, second) / max(first, second) + 4 / math.pi**2 * (angle - other) ** 2


def test_the_recipe_of_mshnet_is_its_formula_and_begins_as_the_soft_iou():
    """One sample has no target, so that it has no location."""
    logits, _, masks = _batch(2)
    masks[3] = 0
    weights = torch.tensor([0.5, 1.5, 1.2, 0.8], dtype=torch.float64)
    samples = list(zip(torch.sigmoid(logits)[:, 0].tolist(), masks[:, 0].tolist(), strict=True))
    sls = LossConfig(task="sls")
    expected = sum(w * _plain_sls(p, y) for w, (p, y) in zip(weights.tolist(), samples, strict=True)) / 4
    assert task_loss((logits,), masks, weights, sls).item() == pytest.approx(expected, rel=1e-4)
    probability = torch.sigmoid(logits)
    common = (probability * masks).sum((1, 2, 3))
    iou = common / (probability.sum((1, 2, 3)) + masks.sum((1, 2, 3)) - common)
    for epoch, task in ((0, "iou"), (PLAIN_EPOCHS - 1, "iou"), (PLAIN_EPOCHS, "sls")):
        assert loss_of_epoch(sls, epoch).task == task
    first = task_loss((logits,), masks, weights, loss_of_epoch(sls, 0)).item()
    assert first == pytest.approx((weights * (1 - iou)).mean().item(), rel=1e-5)
    assert loss_of_epoch(PAPER, 0) == PAPER


def test_masks_are_max_pooled_to_side_logits():
    _, _, masks = _batch(2)
    side, weights = torch.randn(4, 1, 3, 5, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    pooled = torch.maximum(masks[:, :, ::2], masks[:, :, 1::2])
    for task in ("iou", "sls"):
        config = LossConfig(task=task)
        assert task_loss((side,), masks, weights, config) == task_loss((side,), pooled, weights, config)


def test_what_is_out_of_place_costs_more():
    masks = torch.zeros(1, 1, 32, 32)
    masks[..., 10:14, 20:24] = 1
    weights, sls = torch.ones(1), LossConfig(task="sls")

    def loss(rows, columns):
        logits = torch.full_like(masks, -9.0)
        logits[..., rows, columns] = 9.0
        return task_loss((logits,), masks, weights, sls).item()

    there, near, far = (loss(slice(r, r + 4), slice(c, c + 4)) for r, c in ((10, 20), (14, 24), (26, 2)))
    assert there < 0.2 < near < far
    assert loss(slice(10, 12), slice(20, 24)) > there
    empty = torch.full_like(masks, -200.0).requires_grad_()
    task_loss((empty,), masks, weights, sls).backward()
    assert empty.grad.isfinite().all()
