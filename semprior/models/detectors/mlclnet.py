"""MLCLNet: three stages, multi-scale blocks and a sum from the top down (method, section 1). 657,249 parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from semprior.kernels.convolution import conv_relu
from semprior.kernels.maps import upsample
from semprior.kernels.winograd import convolve
from semprior.models.detector import Detector, published_init, register
from semprior.models.encoder import Encoder
from semprior.models.published import PUBLISHED

_WIDTH = 64  # channels of the lateral maps


class MultiScaleBlock(nn.Module):
    """Three branches of growing reach, concatenated and fused by a 1x1 convolution; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Conv2d(channels, channels, size, padding=size // 2),
                    nn.Conv2d(channels, channels, 3, padding=size, dilation=size),
                ]
            )
            for size in (1, 3, 5)
        )
        self.fuse = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pairs = [cast(Iterable[nn.Conv2d], branch) for branch in self.branches]
        results = [conv_relu(wide, conv_relu(near, x)) for near, wide in pairs]
        return convolve(self.fuse, torch.cat(results, dim=1))


@register("mlclnet", **vars(PUBLISHED["mlclnet"]))
class MLCLNet(Detector):
    """The detector; its head has no BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(self.stages)
        self.multiscale = nn.ModuleList(MultiScaleBlock(width) for width in self.stages)
        published_init(self)
        # These five keep PyTorch's default initialisation.
        self.lateral = nn.ModuleList(nn.Conv2d(width, _WIDTH, 1) for width in self.stages)
        self.head = nn.Conv2d(_WIDTH, _WIDTH, 1)
        self.output = nn.Conv2d(_WIDTH, 1, 1)

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the three stages to logits (B, 1, H, W)."""
        maps = [
            conv_relu(cast(nn.Conv2d, lateral), block(feature))
            for lateral, block, feature in zip(self.lateral, self.multiscale, features, strict=True)
        ]
        x = maps.pop()
        for low in reversed(maps):
            x = upsample(x, low).add_(low)
        return (self.output(conv_relu(self.head, x)),)

    def output_layers(self) -> tuple[nn.Conv2d, ...]:
        """The last 1x1 convolution."""
        return (self.output,)
