"""ALCLNet: five stages and gated fusion from the top down (method, section 1). 5,668,145 parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.convolution import can_fold, conv_relu, folded_conv
from semprior.kernels.layers import gated_sum
from semprior.kernels.maps import upsample
from semprior.kernels.winograd import convolve
from semprior.models.detector import Detector, published_init, register
from semprior.models.encoder import Encoder
from semprior.models.published import PUBLISHED


class LocalBlock(nn.Module):
    """1x1 conv, ReLU, 3x3 conv, ReLU; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(channels, channels, 1)
        self.local = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return conv_relu(self.local, conv_relu(self.point, x))


class GatedFusion(nn.Module):
    """``low + up(high) * gate(low)``: (B, C', H/2, W/2) and (B, C, H, W) to (B, C, H, W)."""

    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(high, low, 1)
        self.up_norm = nn.BatchNorm2d(low)
        self.gate = nn.Conv2d(low, low, 1)
        self.gate_norm = nn.BatchNorm2d(low)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        # A 1x1 convolution and bilinear interpolation, whose weights sum to 1, commute: convolving first is the same
        # function on a quarter of the pixels, and interpolates fewer channels. The norm has to see the result.
        # So does the norm in evaluation, where it is the same map at every pixel.
        if can_fold(self.up_norm, low):
            up = folded_conv(self.up, self.up_norm, high, "none")
            up = upsample(up, low)
            return torch.addcmul(low, F.relu_(up), folded_conv(self.gate, self.gate_norm, low, "sigmoid"))
        up = upsample(convolve(self.up, high), low)
        return gated_sum(low, self.up_norm, up, self.gate_norm, convolve(self.gate, low))


@register("alclnet", **vars(PUBLISHED["alclnet"]))
class ALCLNet(Detector):
    """The detector. Its last convolution, of one output, starts with std sqrt 2: the first logits are large."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(self.stages)
        self.local = nn.ModuleList(LocalBlock(width) for width in self.stages)
        self.fusion = nn.ModuleList(
            GatedFusion(high, low) for low, high in zip(self.stages[:-1], self.stages[1:], strict=True)
        )
        self.head = nn.Conv2d(self.stages[0], self.stages[0], 1)
        self.output = nn.Conv2d(self.stages[0], 1, 1)
        published_init(self)

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the five stages to logits (B, 1, H, W)."""
        maps = [block(feature) for block, feature in zip(self.local, features, strict=True)]
        x = maps.pop()
        for fuse, low in zip(reversed(self.fusion), reversed(maps), strict=True):
            x = fuse(x, low)
        return (self.output(conv_relu(self.head, x)),)

    def output_layers(self) -> tuple[nn.Conv2d, ...]:
        """The last 1x1 convolution."""
        return (self.output,)
