"""GGLNet: ALCLNet guided by the gradient of the image. 8,988,093 parameters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.attention import pool_channels, pool_pixels
from semprior.kernels.convolution import can_fold, conv_norm_relu, conv_relu, folded_conv
from semprior.kernels.layers import norm_relu
from semprior.kernels.maps import concatenate, upsample
from semprior.kernels.winograd import convolve
from semprior.models.attention import ChannelAttention, SpatialAttention, SqueezeExcitation, scale_channels
from semprior.models.detector import Detector, published_init, register
from semprior.models.detectors.alclnet import LocalBlock
from semprior.models.encoder import ConvNorm, Encoder
from semprior.models.published import PUBLISHED


class ExcitedBlock(nn.Module):
    """conv-BN-ReLU, squeeze and excitation, conv-BN plus the input, ReLU; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.excitation = SqueezeExcitation(channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.excitation(conv_norm_relu(*self.first.parts, x))
        return conv_norm_relu(*self.second.parts, y, residual=x)


class GradientFusion(nn.Module):
    """Adds to a stage's map what follows from it and the image's gradient at its resolution.

    (B, C, H, W) and (B, 3, H, W) to (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(3, channels)
        self.first_excitation = SqueezeExcitation(channels)
        self.second = ConvNorm(channels, channels)
        self.third = ConvNorm(2 * channels, channels)
        self.second_excitation = SqueezeExcitation(channels)
        self.fourth = ConvNorm(channels, channels)

    def forward(self, x: Tensor, gradient: Tensor) -> Tensor:
        guide = self.first_excitation(conv_norm_relu(*self.first.parts, gradient))
        guide = conv_norm_relu(*self.second.parts, guide)
        y = self.second_excitation(conv_norm_relu(*self.third.parts, concatenate([guide, x])))
        return conv_norm_relu(*self.fourth.parts, y, residual=x)


def gradient_magnitude(x: Tensor) -> Tensor:
    """Magnitude of half the central differences of (B, C, H, W), which counts as 0 beyond its edges; same shape."""
    rows, columns = F.pad(x, (0, 0, 1, 1)), F.pad(x, (1, 1, 0, 0))
    down, right = rows[:, :, 2:] - rows[:, :, :-2], columns[..., 2:] - columns[..., :-2]
    return (down.square() + right.square()).sqrt() / 2


class GuidedEncoder(Encoder):
    """An encoder whose stages end in the fusion with the gradient: (B, 3, H, W) to [(B, C_l, H / 2^l, W / 2^l)]."""

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__(stages, ExcitedBlock)
        self.fusions = nn.ModuleList(GradientFusion(width) for width in stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        gradient = gradient_magnitude(x)
        x = self.enter(x)
        features: list[Tensor] = []
        for stage, fuse in zip(self.stages, self.fusions, strict=True):
            if features:
                gradient = F.max_pool2d(gradient, 2)
            x = fuse(stage(x), gradient)
            features.append(x)
        return features


class CrossFusion(nn.Module):
    """``low * channels(up(high)) + up(high) * pixels(low)``.

    (B, C', H/2, W/2) and (B, C, H, W) to (B, C, H, W).
    """

    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(high, low, 1)
        self.up_norm = nn.BatchNorm2d(low)
        self.channel = ChannelAttention(low, 8)
        self.spatial = SpatialAttention(bias=True)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        # A 1x1 convolution and bilinear interpolation commute; see ALCLNet's fusion.
        if can_fold(self.up_norm, low):
            up = F.relu_(upsample(folded_conv(self.up, self.up_norm, high, "none"), low))
        else:
            up = norm_relu(self.up_norm, upsample(convolve(self.up, high), low))
        up, *of_channels = pool_pixels(up)
        low, *of_pixels = pool_channels(low)
        return torch.addcmul(scale_channels(low, self.channel(*of_channels)), up, self.spatial(*of_pixels))


@register("gglnet", **vars(PUBLISHED["gglnet"]))
class GGLNet(Detector):
    """The detector; where it weighs channels or pixels it keeps PyTorch's initialisation."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = GuidedEncoder(self.stages)
        self.local = nn.ModuleList(LocalBlock(width) for width in self.stages)
        self.fusion = nn.ModuleList(
            CrossFusion(high, low) for low, high in zip(self.stages[:-1], self.stages[1:], strict=True)
        )
        self.head = nn.Conv2d(self.stages[0], self.stages[0], 1)
        self.output = nn.Conv2d(self.stages[0], 1, 1)
        published_init(self, kept=(SqueezeExcitation, ChannelAttention, SpatialAttention))

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
