"""The generator of masks: a small network that is given a window and its central point, and draws the target's mask.

It was trained on made-up windows alone (`semprior.data.synthetic.windows`) by `python -m benchmarks.generator`; its
weights lie beside this file.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.labels.contrast_seed import contrast_region, ring_around
from semprior.reading.tensors import parse_tensors

WEIGHTS = "generator.safetensors"
MIDDLE = 32  # row and column of the point in a window
SIDE = 2 * MIDDLE + 1  # of a window
CHANNELS = 5
_SEEN = 2 * MIDDLE  # rows and columns that the network sees: a multiple of 8


class MaskGenerator(nn.Module):
    """A U-Net of four levels.

    Args:
        width: channels at full resolution.
    """

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [_pair(CHANNELS, width), _pair(width, 2 * width), _pair(2 * width, 4 * width), _pair(4 * width, 6 * width)]
        )
        self.up = nn.ModuleList([_pair(3 * width, width), _pair(6 * width, 2 * width), _pair(10 * width, 4 * width)])
        self.output = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Channels (B, 5, 64, 64) of `window_channels` to logits (B, 1, 64, 64) of the mask."""
        maps = []
        for index, level in enumerate(self.down):
            x = level(x if index == 0 else F.max_pool2d(x, 2))
            maps.append(x)
        for level, skipped in zip(reversed(self.up), reversed(maps[:-1]), strict=True):
            wider = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = level(torch.cat([skipped, wider], 1))
        logits: Tensor = self.output(x)
        return logits


def _pair(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


def window_channels(window: np.ndarray) -> np.ndarray:
    """What the network sees of a window.

    Args:
        window: (65,65) uint8, grey, the point in its middle.

    Returns:
        (5,65,65) float32: the rise above the median of a ring around the point, in units of the point's own rise, and
        in units of the ring's noise; the rise above the point; where the point is; the contrast seed.
    """
    grey = window.astype(np.float32)
    ring = grey[ring_around(window.shape, (MIDDLE, MIDDLE))]
    background = float(np.median(ring))
    noise = 1.4826 * float(np.median(np.abs(ring - background)))
    near = grey[MIDDLE - 2 : MIDDLE + 3, MIDDLE - 2 : MIDDLE + 3]
    rise = max(float(near.max()) - background, background - float(near.min()), 3 * noise, 4.0)
    peak = grey[MIDDLE - 1 : MIDDLE + 2, MIDDLE - 1 : MIDDLE + 2].max()
    seed = np.zeros(window.shape, np.float32)
    found = contrast_region(window, np.array([[MIDDLE, MIDDLE]]), 0)
    if found is not None:
        place, region = found
        seed[place] = region
    channels = [
        np.clip((grey - background) / rise, -3, 3),
        np.tanh((grey - background) / (6 * noise + 4)),
        np.clip((grey - peak) / rise, -3, 3),
        _point_map(),
        seed,
    ]
    return np.stack(channels).astype(np.float32)


def _point_map() -> np.ndarray:
    spot = cv2.getGaussianKernel(SIDE, 1.5, cv2.CV_32F)
    outer: np.ndarray = spot @ spot.T / spot.max() ** 2
    return outer


def seen(channels: np.ndarray) -> Tensor:
    """Channels (..., 65, 65) as the network takes them, (..., 64, 64): without the last row and column."""
    return torch.from_numpy(np.ascontiguousarray(channels[..., :_SEEN, :_SEEN]))


@cache
def load_generator() -> MaskGenerator:
    """The generator with the weights that come with the package."""
    network = MaskGenerator()
    content = (resources.files("semprior") / "labels" / WEIGHTS).read_bytes()
    network.load_state_dict({name: tensor.float() for name, tensor in parse_tensors(content, WEIGHTS).items()})
    return network.eval()


@torch.inference_mode()
def draw_probabilities(network: MaskGenerator, windows: np.ndarray) -> np.ndarray:
    """The probability of each pixel to be of the target, the mean over the eight symmetries of a square.

    Args:
        network: the generator.
        windows: (N,65,65) uint8, grey, the points in their middles.

    Returns:
        (N,65,65) float32.
    """
    channels = np.stack([window_channels(window) for window in windows])
    total = np.zeros((len(windows), SIDE, SIDE), np.float32)
    for turned in (False, True):
        for axes in ((), (-1,), (-2,), (-2, -1)):
            given = np.flip(channels.swapaxes(-1, -2) if turned else channels, axes)
            drawn = np.zeros((len(windows), SIDE, SIDE), np.float32)
            drawn[:, :_SEEN, :_SEEN] = torch.sigmoid(network(seen(given)))[:, 0].numpy()
            drawn = np.flip(drawn, axes)
            total += drawn.swapaxes(-1, -2) if turned else drawn
    return total / 8
