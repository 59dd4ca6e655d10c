"""MSHNet: a U-shape of attentive blocks with a logit at each scale. 4,065,513 parameters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.maps import concatenate, upsample
from semprior.models.attention import attentive_blocks
from semprior.models.detector import Detector, register
from semprior.models.published import PUBLISHED


class Encoder(nn.Module):
    """A 1x1 convolution and five levels with maxima between them.

    Images (B, 3, H, W) to [(B, C_l, H / 2^l, W / 2^l)].
    """

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__()
        first = stages[0]
        self.stem = nn.Conv2d(3, first, 1)
        self.levels = nn.ModuleList([attentive_blocks(first, first, 1)])
        for before, width in itertools.pairwise(stages):
            self.levels.append(attentive_blocks(before, width, 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features: list[Tensor] = []
        for level in self.levels:
            x = level(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features


@register("mshnet", **vars(PUBLISHED["mshnet"]))
class MSHNet(Detector):
    """The detector; all of it keeps PyTorch's initialisation.

    Its main logits are a convolution over those of four scales, the sides. The published training takes another way to
    the loss for its first five epochs; here the full one is always taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(self.stages)
        self.decoder = nn.ModuleList(
            attentive_blocks(low + high, low, 1 if level == 0 else 2)
            for level, (low, high) in enumerate(zip(self.stages[:-1], self.stages[1:], strict=True))
        )
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in self.stages[:-1])
        self.main = nn.Conv2d(len(self.sides), 1, 3, padding=1)

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the five stages to five logits: the main ones, then the sides at strides 1, 2, 4 and 8."""
        *skips, x = features
        sides: list[Tensor] = []
        for level, side, skip in zip(reversed(self.decoder), reversed(self.sides), reversed(skips), strict=True):
            x = level(concatenate([skip, upsample(x, skip)]))
            sides.insert(0, side(x))
        whole = sides[0]
        return (self.main(concatenate([whole, *(upsample(side, whole) for side in sides[1:])])), *sides)

    def output_layers(self) -> tuple[nn.Conv2d, ...]:
        """The 3x3 convolution of the main logits and the 1x1 ones of the sides."""
        return (self.main, *(cast(nn.Conv2d, side) for side in self.sides))

    def fusion_layer(self) -> nn.Conv2d:
        """The convolution of the main logits, over those of the sides."""
        return self.main
