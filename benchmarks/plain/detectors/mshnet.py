"""MSHNet: a U-shape of attentive blocks, four side logits and one of them all."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain.detectors.attention import blocks, up


class MSHEncoder(nn.Module):
    """Five levels; the stem is a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        widths = [16, 16, 32, 64, 128, 256]
        self.levels = nn.ModuleList([blocks(widths[i], widths[i + 1], 1 if i == 0 else 2) for i in range(5)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps."""
        x = self.stem(x)
        features = []
        for i in range(5):
            x = self.levels[i](x if i == 0 else F.max_pool2d(x, 2))
            features.append(x)
        return features


class MSHNet(nn.Module):
    """4,065,513 parameters; five logits: main, then sides at strides 1, 2, 4, 8."""

    stages = (16, 32, 64, 128, 256)
    scam_scale = 0.12
    learning_rate = 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MSHEncoder()
        self.decoder = nn.ModuleList([blocks(48, 16, 1), blocks(96, 32, 2), blocks(192, 64, 2), blocks(384, 128, 2)])
        self.sides = nn.ModuleList([nn.Conv2d(channels, 1, 1) for channels in (16, 32, 64, 128)])
        self.main = nn.Conv2d(4, 1, 3, padding=1)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps."""
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Five maps to five logits."""
        x = features[4]
        sides: list[Tensor] = []
        for i in (3, 2, 1, 0):
            x = self.decoder[i](torch.cat([features[i], up(x)], dim=1))
            sides.insert(0, self.sides[i](x))
        large = [sides[0], up(sides[1], 2), up(sides[2], 4), up(sides[3], 8)]
        return (self.main(torch.cat(large, dim=1)), *sides)
