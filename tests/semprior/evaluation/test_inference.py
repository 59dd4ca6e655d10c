"""Inference on whole images: padding, batches of equal sizes, tiles."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from semprior.data.batches import Normalisation
from semprior.deployment.predict import detections
from semprior.evaluation import inference as infer
from semprior.evaluation.inference import student_probabilities, tiles
from tests.tiny import bright_student

CPU = torch.device("cpu")
NORMAL = Normalisation(0.4, 0.2)


class Smoother(nn.Module):
    """A network whose logits depend on a neighbourhood; it records its inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 1, 5, padding=2)
        self.shapes = []

    def forward(self, x, sizes):
        assert (sizes <= torch.tensor(x.shape[-2:])).all() and (sizes > torch.tensor(x.shape[-2:]) - 32).all()
        self.shapes.append(tuple(x.shape))
        return self.layer(x)


def images(*sizes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size).astype(np.uint8) for size in sizes]


def test_probabilities_are_those_of_each_image_alone_padded_with_black():
    net = Smoother().eval()
    pictures = images((33, 60), (64, 64), (50, 40), (31, 90))
    found = student_probabilities(net, pictures, NORMAL, CPU, False)
    assert sorted(net.shapes) == [(1, 3, 32, 96), (3, 3, 64, 64)]
    for picture, probability in zip(pictures, found, strict=True):
        height, width = picture.shape
        padded = np.pad(picture, ((0, -height % 32), (0, -width % 32)))
        x = torch.from_numpy((padded / 255 - 0.4) / 0.2).float().expand(1, 3, -1, -1)
        expected = torch.sigmoid(net.layer(x))[0, 0, :height, :width].detach().numpy()
        assert probability.dtype == np.float32 and probability.shape == picture.shape
        assert np.allclose(probability, expected, atol=1e-6)


class Pyramid(nn.Module):
    """A network with strides, pooling and upsampling, whose logits depend on at most 16 pixels in each direction."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.near, self.halved = nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.quarter, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.pixels = []

    def forward(self, x, sizes):
        self.pixels.append(x.shape[-1] * x.shape[-2])
        near = torch.relu(self.near(x))
        far = self.quarter(F.max_pool2d(self.halved(near), 2))
        return 4 * self.last(torch.cat([near, F.interpolate(far, scale_factor=4)], dim=1))


def probability_of(net, picture, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(infer, "_PIXELS_AT_ONCE", at_once)
        return student_probabilities(net, [picture], NORMAL, CPU, False)[0]


@pytest.fixture(scope="module")
def small_tiles():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TILE": 96, "CONTEXT": 16, "OVERLAP": 64}.items():
            patch.setattr(infer, name, value)
        yield 96 * 96


@given(st.integers(1, 260), st.integers(1, 260), st.integers(0, 9))
@example(97, 97, 0)
@example(40, 400, 0)  # one short side
@example(260, 33, 0)
@settings(max_examples=12, deadline=None)
def test_tiles_give_what_the_whole_image_gives(small_tiles, height, width, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    net = Pyramid().eval()
    tiled = probability_of(net, picture, small_tiles)
    assert max(net.pixels) <= small_tiles
    whole = probability_of(net, picture, 1 << 40)
    assert tiled.shape == whole.shape
    assert np.abs(tiled - whole).max() < 1e-5
    assert abs(whole.max() - whole.min()) > 0.01 or picture.size < 100


def test_tiles_cover_every_extent_with_weights_that_sum_to_one():
    assert 2 * infer.CONTEXT < infer.OVERLAP < infer.TILE
    for extent in range(32, 32 * 300, 32):
        found, total = tiles(extent), torch.zeros(extent)
        for start, weights in found:
            assert start % infer.MULTIPLE == 0 and len(weights) <= infer.TILE
            total[start : start + len(weights)] += weights
        assert (total - 1).abs().max() < 1e-6
        assert (len(found) == 1) == (extent <= infer.TILE)


def test_a_target_on_a_seam_is_found_once_and_where_it_is():
    picture = np.full((1100, 1300), 20, np.uint8)
    targets = [(row, column) for row in range(5, 1095, 6) for column in range(5, 1295, 97)]
    for row, column in targets:
        picture[row - 1 : row + 2, column - 1 : column + 2] = 220
    (probability,) = bright_student().probabilities([picture])
    found = detections(probability)
    assert {(round(one.y), round(one.x), one.area) for one in found} == {(*target, 9) for target in targets}


def test_bf16_stays_near():
    net = Smoother().eval()
    (picture,) = images((64, 64))
    exact, fast = (student_probabilities(net, [picture], NORMAL, CPU, bf16)[0] for bf16 in (False, True))
    assert np.abs(exact - fast).max() < 0.02
