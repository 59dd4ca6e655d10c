"""Large images in tiles: what the whole image gives, targets on seams found once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import logit
from torch import nn

from semprior.data.batches import Normalisation
from semprior.deployment.predict import detections
from semprior.evaluation import inference
from semprior.evaluation import tiles as tiling
from semprior.evaluation.inference import student_probabilities
from semprior.evaluation.tiles import tiles
from semprior.models.detector import create_detector
from tests.tiny import bright_student

CPU, aten = torch.device("cpu"), torch.ops.aten
NORMAL = Normalisation(0.4, 0.2)


class Pyramid(nn.Module):
    """A network with strides, pooling and upsampling, whose logits depend on at most 16 pixels in each direction."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.near, self.halved = nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.quarter, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
        self.pixels = []

    def forward(self, x, _sizes):
        self.pixels.append(x.shape[-1] * x.shape[-2])
        near = torch.relu(self.near(x))
        far = self.quarter(F.max_pool2d(self.halved(near), 2))
        far = F.interpolate(far, near.shape[-2:], mode="bilinear", align_corners=True)
        return 4 * self.last(torch.cat([near, far], dim=1))


def probability_of(net, picture, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "_PIXELS_AT_ONCE", at_once)
        return student_probabilities(net, [picture], NORMAL, CPU, False)[0]


@pytest.fixture(scope="module")
def small_tiles():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TILE": 96, "CONTEXT": 16, "OVERLAP": 64}.items():
            patch.setattr(tiling, name, value)
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


@pytest.mark.parametrize("name", ["alclnet", "mlclnet", "dnanet", "mshnet"])
def test_tiles_give_a_detector_what_the_whole_image_gives(monkeypatch, name):
    for constant, value in {"TILE": 512, "CONTEXT": 160, "OVERLAP": 384}.items():
        monkeypatch.setattr(tiling, constant, value)
    torch.manual_seed(0)
    net = create_detector(name, output_bias=0.0).eval()
    picture = np.random.default_rng(0).integers(0, 256, (64, 900)).astype(np.uint8)

    def difference():
        whole, tiled = (logit(probability_of(net, picture, at_once)) for at_once in (1 << 40, 64 * 512))
        return np.abs(tiled - whole).max() / whole.std()

    assert difference() < 1e-2
    # else the extent of a tile would decide where interpolation with aligned corners reads
    monkeypatch.setattr(tiling, "_interpolate", lambda x, size, _: aten.upsample_bilinear2d(x, list(size), True))
    assert difference() > 0.1


def test_tiles_cover_every_extent_with_weights_that_sum_to_one():
    assert 2 * tiling.CONTEXT < tiling.OVERLAP < tiling.TILE
    for extent in range(32, 32 * 300, 32):
        found, total = tiles(extent), torch.zeros(extent)
        for start, weights in found:
            assert start % tiling.MULTIPLE == 0 and len(weights) <= tiling.TILE
            total[start : start + len(weights)] += weights
        assert (total - 1).abs().max() < 1e-6
        assert (len(found) == 1) == (extent <= tiling.TILE)


def test_a_target_on_a_seam_is_found_once_and_where_it_is():
    picture = np.full((1100, 1300), 20, np.uint8)
    targets = [(row, column) for row in range(5, 1095, 6) for column in range(5, 1295, 97)]
    for row, column in targets:
        picture[row - 1 : row + 2, column - 1 : column + 2] = 220
    (probability,) = bright_student().probabilities([picture])
    found = detections(probability, 0.5)
    assert {(round(one.y), round(one.x), one.area) for one in found} == {(*target, 9) for target in targets}
