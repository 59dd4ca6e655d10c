"""The plain path of `benchmarks`: does the reference itself do what the method says?"""

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain import augment, bilevel, labels, losses
from benchmarks.plain.detectors import DETECTORS
from benchmarks.plain.scam import Modulator, Teacher
from benchmarks.plain.transfer import copy_weights
from benchmarks.plain.vfm import PlainViT


class Tiny(nn.Module):
    """A detector of two stages, smooth, so that finite differences are exact."""

    stages = (3, 4)

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.second = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.low = nn.Conv2d(3, 1, 1)
        self.high = nn.Conv2d(4, 1, 1)

    def encode(self, x):
        first = torch.tanh(self.norm(self.first(x)))
        return [first, torch.tanh(self.second(first))]

    def decode(self, features):
        high = F.interpolate(self.high(features[1]), scale_factor=2)
        return (3 * (self.low(features[0]) + high), 3 * self.high(features[1]))


def tiny_problem(seed=0, batch=3, clusters=5):
    torch.manual_seed(seed)
    model = Teacher(Tiny(), Modulator(Tiny.stages, 0.5, maps=2, width=6)).double()
    alpha = nn.Parameter(torch.randn(clusters, dtype=torch.float64))

    def draw():
        return bilevel.PlainBatch(
            images=torch.randn(batch, 3, 8, 8, dtype=torch.float64),
            masks=(torch.rand(batch, 1, 8, 8) < 0.3).double(),
            maps=[torch.randn(batch, 6, 2, 2, dtype=torch.float64) for _ in range(2)],
            clusters=torch.randint(clusters, (batch,)),
        )

    return model, alpha, draw(), draw()


# ---- networks


@pytest.mark.parametrize(
    ("name", "detector", "modulator"),
    [
        ("mlclnet", 657249, 78686),
        ("alclnet", 5668145, 178142),
        ("gglnet", 8988093, 178142),
        ("mshnet", 4065513, 178142),
        ("repisdnet", 558497, 49678 + 259 * 160),
        ("dnanet", 4696888, 178142),
        ("sctransnet", 11203635, 49678 + 259 * 736),
    ],
)
def test_parameter_counts(name, detector, modulator):
    network = DETECTORS[name]
    assert sum(p.numel() for p in network().parameters()) == detector
    scam = Modulator(network.stages, network.scam_scale)
    assert sum(p.numel() for p in scam.parameters()) == modulator


@pytest.mark.parametrize("name", DETECTORS)
def test_shapes_of_stages_and_logits(name):
    torch.manual_seed(0)
    network = DETECTORS[name]().eval()
    features = network.encode(torch.randn(1, 3, 32, 64))
    for level, (feature, channels) in enumerate(zip(features, network.stages, strict=True)):
        assert feature.shape == (1, channels, 32 >> level, 64 >> level)
    assert network.decode(features)[0].shape == (1, 1, 32, 64)


def test_initialisation():
    torch.manual_seed(0)
    for name in ("mlclnet", "alclnet"):
        model = DETECTORS[name]()
        kept = {id(part) for part in [*model.laterals, *model.head]} if name == "mlclnet" else set()
        for part in model.modules():
            if isinstance(part, nn.Conv2d) and part.weight.numel() > 20000:
                assert part.weight.std().item() == pytest.approx(
                    math.sqrt(2 / (part.out_channels * part.kernel_size[0] ** 2)), rel=0.05
                )
            if isinstance(part, nn.Conv2d):
                assert bool((part.bias == 0).all()) == (id(part) not in kept)


def test_modulation_of_a_new_modulator_written_out():
    torch.manual_seed(0)
    scam = Modulator((2, 3), scale=0.5, maps=2, width=4)
    features, maps = [torch.randn(2, 2, 8, 8), torch.randn(2, 3, 4, 4)], [torch.randn(2, 4, 2, 2) for _ in range(2)]
    out = scam(features, maps)
    for b in range(2):
        tokens = ((maps[0] + maps[1]) / 2)[b].reshape(4, 4).T
        attention = torch.softmax(tokens @ scam.score.weight[0] + scam.score.bias[0], 0)
        numbers = scam.mlp(attention @ tokens)
        for level, (first, channels) in enumerate([(0, 2), (4, 3)]):
            gamma = 1 + torch.tanh(numbers[first : first + channels])
            beta = numbers[first + channels : first + 2 * channels]
            for c in range(channels):
                expected = (1 + 0.5 * (gamma[c] - 1)) * features[level][b, c] + 0.5 * beta[c]
                torch.testing.assert_close(out[level][b, c], expected)
    assert scam.gate_penalty().item() == 1.0


def test_vit_maps_are_the_patch_embedding_and_every_block_the_last_one_normed():
    vfm = PlainViT("vit_small_plus_patch16_dinov3")
    with torch.no_grad():
        for block in vfm.model.blocks:  # random DINOv3 starts near the identity; make the blocks matter
            block.gamma_1.fill_(0.5)
            block.gamma_2.fill_(0.5)
    grey = torch.rand(2, 1, 32, 48)
    maps = vfm(grey)
    assert len(maps) == 13
    assert {tuple(values.shape) for values in maps} == {(2, 384, 2, 3)}
    x = (grey.expand(-1, 3, -1, -1) - vfm.mean) / vfm.std
    last, blocks = vfm.model.forward_intermediates(x)
    last = last[:, vfm.model.num_prefix_tokens :].transpose(1, 2).reshape(2, 384, 2, 3)
    torch.testing.assert_close(maps[0], vfm.model.patch_embed(x).permute(0, 3, 1, 2))
    for mine, theirs in zip(maps[1:], [*blocks[:-1], last], strict=True):
        torch.testing.assert_close(mine, theirs)
    assert not any(p.requires_grad for p in vfm.model.parameters())


# ---- losses


def test_cluster_weights_by_the_formula():
    alpha = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)
    clusters = torch.tensor([0, 2, 1, 2])
    values = [0.3, 5.0, -2.0, 5.0]
    mean = sum(values) / 4
    grown = [math.exp(math.log(2) * math.tanh((value - mean) / math.log(2))) for value in values]
    expected = [one / (sum(grown) / 4 + 1e-6) for one in grown]
    np.testing.assert_allclose(losses.cluster_weights(alpha, clusters).numpy(), expected, rtol=1e-12)
    torch.testing.assert_close(losses.cluster_weights(torch.zeros(3), clusters), torch.ones(4))


def test_losses_written_out():
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    mask, weights = (torch.rand(2, 1, 4, 4) < 0.5).float(), torch.tensor([0.5, 1.5])

    def entropy(logits):
        p = torch.sigmoid(logits)
        return -(mask * p.log() + (1 - mask) * (1 - p).log()).mean((1, 2, 3))

    gap = ((torch.sigmoid(teacher / 4) - torch.sigmoid(student / 4)) ** 2).mean((1, 2, 3))
    inner = (weights * (entropy(teacher) + 0.1 * gap)).mean() + 0.005 * 0.7
    torch.testing.assert_close(losses.inner_loss((teacher,), (student,), mask, weights, torch.tensor(0.7)), inner)
    outer = (weights * (gap + entropy(student))).mean()
    torch.testing.assert_close(losses.outer_loss((teacher,), (student,), mask, weights), outer)


# ---- steps


def test_inner_gradients_reach_detector_and_modulator_but_not_alpha():
    model, alpha, batch, _ = tiny_problem()
    bilevel.inner_objective(model, alpha, batch).backward()
    assert alpha.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.modulator.parameters() if p.numel() > 1)
    assert all(p.grad is not None for p in model.detector.parameters())


def test_both_forwards_update_the_running_statistics():
    model, alpha, batch, _ = tiny_problem()
    bilevel.inner_objective(model, alpha, batch)
    assert model.detector.norm.num_batches_tracked == 2
    batch_mean = model.detector.first(batch.images).mean((0, 2, 3))
    torch.testing.assert_close(model.detector.norm.running_mean, 0.19 * batch_mean)


def test_outer_gradient_against_finite_differences():
    """What is held still in the loss (teacher, normaliser of the weights) is held still in the differences too."""
    model, alpha, batch, _ = tiny_problem()
    phi = [*model.detector.parameters(), alpha]
    gradients = torch.autograd.grad(bilevel.outer_objective(model, alpha, batch), phi)
    with torch.no_grad():
        teacher = model(batch.images, batch.maps)
        bound = math.log(2)

        def growth():
            values = alpha[batch.clusters]
            return torch.exp(bound * torch.tanh((values - values.mean()) / bound))

        normaliser = growth().mean() + 1e-6

        def loss():
            student = model.student(batch.images)
            return losses.outer_loss(teacher, student, batch.masks, growth() / normaliser).item()

        for parameter, gradient in zip(phi, gradients, strict=True):
            flat = parameter.view(-1)
            for index in range(0, flat.numel(), max(1, flat.numel() // 5)):
                before, step = flat[index].item(), 1e-6
                flat[index] = before + step
                above = loss()
                flat[index] = before - step
                below = loss()
                flat[index] = before
                slope = gradient.view(-1)[index].item()
                assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_outer_step_takes_the_hypergradient_of_the_formula():
    model, alpha, validation, training = tiny_problem()
    eta, phi = 0.3, [*model.detector.parameters(), alpha]
    modulator = [p.detach().clone() for p in model.modulator.parameters()]
    upper = torch.autograd.grad(bilevel.outer_objective(model, alpha, validation), phi)
    lower = torch.autograd.grad(bilevel.outer_objective(model, alpha, training), phi)
    flat = [torch.cat([g.reshape(-1) for g in gradients[:-1]]) for gradients in (upper, lower)]
    ratio = torch.dot(*flat) / (torch.dot(flat[1], flat[1]) + 1e-12)
    assert ratio != 0
    expected = [(g + eta * ratio * h).clone() for g, h in zip(upper, lower, strict=True)]
    before = [p.detach().clone() for p in phi]
    bilevel.outer_step(model, alpha, validation, training, torch.optim.SGD(phi, lr=1.0), eta)
    for old, new, gradient in zip(before, phi, expected, strict=True):
        torch.testing.assert_close(new.detach(), old - gradient)
    for old, new in zip(modulator, model.modulator.parameters(), strict=True):
        assert torch.equal(old, new)


def test_optimizers_hold_what_the_method_gives_them():
    model, alpha, batch, other = tiny_problem()
    inner, outer = bilevel.inner_optimizer(model, 1e-3), bilevel.outer_optimizer(model, alpha, 1e-3)
    assert {id(p) for p in inner.param_groups[0]["params"]} == {id(p) for p in model.parameters()}
    assert {id(p) for p in outer.param_groups[0]["params"]} == {id(p) for p in [*model.detector.parameters(), alpha]}
    for optimizer in (inner, outer):
        (group,) = optimizer.param_groups
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0.01)
    first = bilevel.inner_step(model, alpha, batch, inner)
    for _ in range(20):
        last = bilevel.inner_step(model, alpha, batch, inner)
    assert last < first
    assert all(map(math.isfinite, bilevel.outer_step(model, alpha, batch, other, outer, 1e-3)))


# ---- transfer


def test_copy_weights():
    source, target = DETECTORS["alclnet"](), DETECTORS["alclnet"]()
    for norm in source.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_()
    copy_weights(source, target)
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    with pytest.raises(ValueError, match="do not fit"):
        copy_weights(source, DETECTORS["mlclnet"]())
    a, b = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)), nn.Sequential(nn.Linear(3, 3), nn.Linear(2, 3))
    with pytest.raises(ValueError, match="does not fit"):
        copy_weights(a, b)
    copy_weights(a, b, {"0.weight": "1.weight", "0.bias": "1.bias", "1.weight": "0.weight", "1.bias": "0.bias"})
    assert torch.equal(a[0].weight, b[1].weight)


# ---- crops and augmentation


def test_crops_are_uniform_and_padded_with_black():
    rng = np.random.default_rng(0)
    image = np.arange(36 * 34, dtype=np.uint32).reshape(36, 34)
    corners = {tuple(np.argwhere(image == augment.crop(image, image, rng, 32)[0][0, 0])[0]) for _ in range(300)}
    assert corners == {(r, c) for r in range(5) for c in range(3)}
    small, _ = augment.crop(np.full((20, 40), 9, np.uint8), np.zeros((20, 40), np.uint8), rng, 32)
    assert small.shape == (32, 32)
    assert (small[:20] == 9).all()
    assert (small[20:] == 0).all()


def test_geometry_moves_image_and_mask_alike():
    yy, xx = np.mgrid[:64, :64]
    disc = ((yy - 25) ** 2 + (xx - 36) ** 2 < 64).astype(np.uint8)
    image = np.repeat(disc[:, :, None] * 255, 3, axis=2)
    for transform, _ in augment.TRANSFORMS:
        if transform in (augment.brightness, augment.contrast, augment.noise):
            continue
        moved, mask = transform(image, disc, np.random.default_rng(3))
        assert moved.shape == image.shape
        assert moved.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1}
        overlap = ((moved[:, :, 0] > 127) & (mask > 0)).sum() / ((moved[:, :, 0] > 127) | (mask > 0)).sum()
        assert overlap > 0.9, transform


def test_half_of_the_samples_are_left_alone_or_more():
    rng = np.random.default_rng(0)
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    same = [np.array_equal(augment.augment(image, image[:, :, 0], rng)[0], image) for _ in range(600)]
    assert 0.5 < np.mean(same) < 0.6


def test_batch_shapes_and_the_threshold_before_augmentation():
    rng = np.random.default_rng(0)
    images = [np.full((40, 50), 128, np.uint8)] * 4
    soft = [np.full((40, 50), value, np.uint8) for value in (0, 127, 128, 255)]
    inputs, masks, crops = augment.batch(images, soft, rng, mean=0.4, std=0.1, size=32)
    assert inputs.shape == (4, 3, 32, 32)
    assert masks.shape == crops.shape == (4, 1, 32, 32)
    assert [masks[i].mean() for i in range(4)] == [0, 0, 1, 1]
    np.testing.assert_allclose(crops, 128 / 255, rtol=1e-6)
    assert inputs.dtype == masks.dtype == crops.dtype == np.float32


# ---- labels


def read_split(root, split):
    for name in (root / "mode" / f"{split}.txt").read_text().split():
        image = cv2.imread(str(root / "images" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        points = cv2.imread(str(root / "masks_centroid" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        yield image, np.argwhere(points > 127)


def test_seed_anchors(sirst):
    seeds = [(labels.seed(image, points)) for image, points in read_split(sirst, "train")]
    assert (len(seeds), sum(len(ok) for _, ok in seeds), sum(ok.sum() for _, ok in seeds)) == (171, 218, 141)
    pool = [(mask, ok) for mask, ok in seeds if ok.sum() >= 0.8 * len(ok)]
    assert len(pool) == 103
    assert (sum(len(ok) for _, ok in pool), sum(ok.sum() for _, ok in pool)) == (129, 128)
    assert sum(mask.sum() for mask, _ in pool) == 2439
    validation = [(labels.seed(image, points)) for image, points in read_split(sirst, "val")]
    assert (sum(ok.sum() for _, ok in validation), sum(mask.sum() for mask, _ in validation)) == (30, 636)


def test_evolution_grows_towards_the_teacher_and_forgets_elsewhere():
    soft = np.zeros((100, 100), np.uint8)
    soft[50, 50], soft[49:51, 51] = 255, 200
    soft[10, 10] = 100
    p = np.zeros((100, 100))
    p[48:53, 48:53] = 0.9
    p[80, 80] = 0.95  # outside every region's square
    p[60, 60] = 0.9  # inside the square, but apart from the centroid
    evolved = labels.evolve(soft, p)
    expected = np.rint(0.97 * soft.astype(float))
    expected[48:53, 48:53] = np.rint((soft[48:53, 48:53] + 0.9 * 255) / 2)
    expected[50, 50] = 255
    np.testing.assert_array_equal(evolved, expected)
    assert not labels.evolve(np.zeros((9, 9), np.uint8), np.ones((9, 9))).any()


def test_admission():
    p = np.zeros((40, 40))
    p[10:15, 10:15] = 0.9
    p[12, 12] = 0.1  # a hole, filled
    points = np.array([[12, 12], [30, 30]])
    mask = labels.admit(p, points, epoch=200, epochs=300)
    assert mask is not None
    assert mask[10:15, 10:15].all()
    assert mask[30, 30] == 255
    assert (mask > 0).sum() == 26
    assert labels.admit(p, points, epoch=65, epochs=300) is None  # half the points are missed
    p[20, 0:40:2] = 0.9
    assert labels.admit(p, points, epoch=200, epochs=300) is None  # 20 false components for 2 points
