"""One pass of the encoder for teacher and student against two full forwards of each."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semprior.models.detector import create_detector, detector_spec
from semprior.models.scam import SCAM
from semprior.models.teacher import Teacher, repeat_batchnorm_updates

pytestmark = pytest.mark.trains

NAMES = ("mlclnet", "alclnet")
MAPS = 3


def _teacher(name, placed=None, dtype=torch.float64):
    torch.manual_seed(0)
    spec = detector_spec(name)
    placed = range(len(spec.stages)) if placed is None else placed
    return Teacher(create_detector(name), SCAM([8] * MAPS, spec.stages, placed, spec.scam_scale)).to(dtype)


def _batch(dtype=torch.float64):
    torch.manual_seed(1)
    x = torch.randn(2, 3, 64, 64, dtype=dtype)
    maps = [torch.randn(2, 8, 4, 4, dtype=dtype) for _ in range(MAPS)]
    masks = (torch.rand(2, 1, 64, 64) < 0.02).to(dtype)
    weights = torch.tensor([0.7, 1.3], dtype=dtype)
    return x, maps, masks, weights


def _kd(a, b):
    return (torch.sigmoid(a / 4) - torch.sigmoid(b / 4)).square().mean((1, 2, 3))


def _task(logits, masks):
    return F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean((1, 2, 3))


def _loss(side, student, teacher, masks, weights, penalty):
    """The method's section 4: the inner loss for the teacher's side, the outer loss for the student's."""
    if side == "teacher":
        terms = _task(teacher, masks) + 0.1 * _kd(student.detach(), teacher)
        return (weights * terms).mean() + 0.005 * penalty
    return (weights * (_kd(student, teacher.detach()) + _task(student, masks))).mean()


def _buffers(module):
    return {name: value for name, value in module.named_buffers() if "num_batches" not in name}


def _gradients(loss, module):
    return dict(
        zip(
            dict(module.named_parameters()),
            torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, materialize_grads=True),
            strict=True,
        )
    )


@pytest.mark.parametrize("side", ["teacher", "student"])
@pytest.mark.parametrize(("name", "placed"), [("mlclnet", None), ("alclnet", None), ("alclnet", (1, 4))])
def test_losses_gradients_and_running_statistics_are_those_of_two_forwards(name, placed, side):
    ours = _teacher(name, placed).train()
    plain = copy.deepcopy(ours)
    x, maps, masks, weights = _batch()

    student, teacher = ours.both(x, maps, grad=side)
    loss = _loss(side, student[0], teacher[0], masks, weights, ours.scam.gate_penalty())

    # two full forwards, each with the graph of everything
    student = plain.detector.decode(plain.detector.encode(x))[0]
    teacher = plain.detector.decode(plain.scam(plain.detector.encode(x), maps))[0]
    expected = _loss(side, student, teacher, masks, weights, plain.scam.gate_penalty())

    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    mine, theirs = _gradients(loss, ours), _gradients(expected, plain)
    largest = max(g.abs().max() for g in theirs.values())
    assert largest > 1e-3
    for key, gradient in theirs.items():
        assert (mine[key] - gradient).abs().max() <= 1e-10 * max(1.0, largest), key
    moved = _buffers(_teacher(name, placed))
    for key, value in _buffers(plain).items():
        torch.testing.assert_close(_buffers(ours)[key], value, rtol=1e-12, atol=1e-12)
        assert not torch.equal(moved[key], value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_the_other_side_carries_no_gradient(name, side):
    teacher = _teacher(name, dtype=torch.float32)
    x, maps, _, _ = _batch(torch.float32)
    student_logits, teacher_logits = teacher.both(x, maps, grad=side)
    assert student_logits[0].requires_grad == (side == "student")
    assert teacher_logits[0].requires_grad == (side == "teacher")
    assert not torch.equal(student_logits[0], teacher_logits[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_under_autocast_every_weight_gets_its_gradient(name, side):
    # autocast's cache would hand the half with gradient the weights that the half without one cast
    teacher = _teacher(name, dtype=torch.float32).train()
    exact = copy.deepcopy(teacher)
    x, maps, masks, weights = _batch(torch.float32)
    found = []
    for model, enabled in ((exact, False), (teacher, True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            student, held = model.both(x, maps, grad=side)
        loss = _loss(side, student[0].float(), held[0].float(), masks, weights, model.scam.gate_penalty())
        found.append(_gradients(loss, model))
    largest = max(gradient.norm() for gradient in found[0].values())
    for key, gradient in found[0].items():
        if gradient.norm() > 1e-3 * largest:
            assert 0.3 < found[1][key].norm() / gradient.norm() < 3, key


def test_the_encoder_runs_once():
    teacher = _teacher("mlclnet", dtype=torch.float32)
    calls = []
    teacher.detector.encoder.register_forward_hook(lambda *_: calls.append(1))
    x, maps, _, _ = _batch(torch.float32)
    teacher.both(x, maps, grad="teacher")
    assert len(calls) == 1


def test_entry_points_agree_in_eval_mode():
    teacher = _teacher("alclnet", dtype=torch.float32).eval()
    x, maps, _, _ = _batch(torch.float32)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    student_logits, teacher_logits = teacher.both(x, maps, grad="student")
    torch.testing.assert_close(teacher.student(x), student_logits[0])
    torch.testing.assert_close(teacher.detector(x), student_logits[0])
    torch.testing.assert_close(teacher(x, maps), teacher_logits[0])
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_without_modulation_teacher_and_student_are_the_same():
    teacher = _teacher("mlclnet", placed=(), dtype=torch.float32).eval()
    x, maps, _, _ = _batch(torch.float32)
    student_logits, teacher_logits = teacher.both(x, maps, grad="teacher")
    assert torch.equal(student_logits[0], teacher_logits[0])
    assert not list(teacher.scam.parameters())


def test_repeated_updates_last_as_long_as_the_context():
    norms = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=0.5))
    with pytest.raises(RuntimeError), repeat_batchnorm_updates(norms):
        assert [norm.momentum for norm in norms] == pytest.approx([0.19, 0.75])
        raise RuntimeError
    assert [norm.momentum for norm in norms] == [0.1, 0.5]
    with pytest.raises(ValueError, match="cumulative"), repeat_batchnorm_updates(nn.BatchNorm2d(4, momentum=None)):
        pass


@pytest.mark.parametrize("grad", ["teacher", "student"])
def test_own_statistics_change_no_training_step_and_keep_the_students_apart(grad):
    shared, own = _teacher("alclnet").train(), _teacher("alclnet").train()
    own = Teacher(own.detector, own.scam, own_statistics=True).double().train()
    x, maps, _, _ = _batch()
    with torch.no_grad():
        own.scam.gates.mul_(5), shared.scam.gates.mul_(5)
    found = []
    for model in (shared, own):
        student, teacher = model.both(x, maps, grad=grad)
        found.append((student[0], teacher[0]))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    # the detector's statistics are those that the student's forwards alone would leave
    alone = _teacher("alclnet").train()
    with torch.no_grad(), repeat_batchnorm_updates(alone.detector.encoder):
        features = alone.detector.encode(x)
    with torch.no_grad():
        alone.detector.decode(features)
    expected = _buffers(alone.detector)
    assert all(torch.equal(value, expected[name]) for name, value in _buffers(own.detector).items())
    assert any(not torch.equal(value, expected[name]) for name, value in _buffers(shared.detector).items())
    # and the teacher reads its own
    own.eval()
    before = own(x, maps)
    for statistics in own.statistics:
        statistics.running_mean += 0.5
    assert not torch.equal(own(x, maps), before)
    assert torch.equal(own.student(x), own.detector(x))


def test_where_nothing_is_modulated_teacher_and_student_are_one():
    model = _teacher("alclnet", placed=()).train()
    x, maps, _, _ = _batch()
    student, teacher = model.both(x, maps, grad="teacher")
    assert torch.equal(student[0], teacher[0]) and teacher[0].requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_bare_samples_pass_without_modulation_and_the_others_as_ever(name):
    teacher, (x, maps, _, _) = _teacher(name).eval(), _batch()
    features = teacher.encode(x)
    student, whole = teacher.student_from(features)[0], teacher.teacher_from(features, maps)[0]
    mixed = teacher.teacher_from(features, maps, torch.tensor([True, False]))[0]
    assert torch.allclose(mixed[0], student[0], atol=1e-12)
    assert torch.allclose(mixed[1], whole[1], atol=1e-12)
    assert not torch.allclose(student[1], whole[1], atol=1e-3)


def test_bare_samples_give_the_modulator_no_gradient():
    teacher, (x, maps, masks, _) = _teacher("mlclnet").train(), _batch()
    everything = torch.tensor([True, True])
    _, logits = teacher.both(x, maps, grad="teacher", bare=everything)
    gradients = torch.autograd.grad(_task(logits[0], masks).mean(), list(teacher.parameters()), materialize_grads=True)
    by_name = dict(zip(dict(teacher.named_parameters()), gradients, strict=True))
    assert all(not gradient.any() for name, gradient in by_name.items() if name.startswith("scam."))
    assert any(gradient.any() for name, gradient in by_name.items() if name.startswith("detector.encoder."))
