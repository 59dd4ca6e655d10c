"""Inference on whole images: padding, batches of equal sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from semprior.data.batches import Normalisation
from semprior.evaluation.inference import NonFiniteOutputError, student_probabilities

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


def test_outputs_that_are_not_numbers_are_refused():
    net = Smoother().eval()
    with torch.no_grad():
        net.layer.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteOutputError, match="not a number"):
        student_probabilities(net, images((40, 40)), NORMAL, CPU, False)


def test_bf16_stays_near():
    net = Smoother().eval()
    (picture,) = images((64, 64))
    exact, fast = (student_probabilities(net, [picture], NORMAL, CPU, bf16)[0] for bf16 in (False, True))
    assert np.abs(exact - fast).max() < 0.02
