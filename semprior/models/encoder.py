"""The residual encoder that MLCLNet and ALCLNet share (method, section 1).

The operations after a convolution are one layer of `semprior.kernels`. Nothing here reshapes, so channels-last images
give channels-last features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.convolution import can_fold, conv_norm_relu, folded_conv
from semprior.kernels.layers import join_relu, norm_pool_relu, norm_relu
from semprior.kernels.winograd import convolve


class ConvNorm(nn.Sequential):
    """A 3x3 convolution and its BatchNorm, which blocks apply one by one."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.BatchNorm2d(outputs))

    @property
    def parts(self) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        """The two layers."""
        conv, norm = self
        return cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)  # on several GPUs a SyncBatchNorm


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus the input, ReLU; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = ConvNorm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        (first, first_norm), (second, second_norm) = self.first.parts, self.second.parts
        if can_fold(first_norm, x):
            return folded_conv(second, second_norm, folded_conv(first, first_norm, x), residual=x)
        return norm_relu(second_norm, convolve(second, norm_relu(first_norm, convolve(first, x))), residual=x)


class HalvingBlock(nn.Module):
    """conv-BN-ReLU-maxpool-conv-BN plus a strided conv-BN-ReLU, ReLU; (B, C, H, W) to (B, C', H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs)
        self.second = ConvNorm(outputs, outputs)
        self.shortcut = ConvNorm(inputs, outputs, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        # The maximum and the ReLU commute in values and gradients, and after it the ReLU has a quarter of the pixels.
        (first, first_norm), (second, second_norm) = self.first.parts, self.second.parts
        short, short_norm = self.shortcut.parts
        if can_fold(first_norm, x):
            main = F.max_pool2d(folded_conv(first, first_norm, x), 2)
            return folded_conv(second, second_norm, main, residual=folded_conv(short, short_norm, x))
        main = convolve(second, norm_pool_relu(first_norm, convolve(first, x)))
        return join_relu(second_norm, main, short_norm, short(x))


class Encoder(nn.Module):
    """Stem and stages: images (B, 3, H, W) to [(B, C_l, H / 2^l, W / 2^l)] for l = 0, 1, ...

    Args:
        stages: channels C_l of the stages; the first is also the stem's.
        block: makes the second and the third block of a stage from its channels.
    """

    def __init__(self, stages: Sequence[int], block: Callable[[int], nn.Module] = ResidualBlock) -> None:
        super().__init__()
        first = stages[0]
        self.stem = nn.ModuleList([ConvNorm(3, first), ConvNorm(first, first)])
        self.stages = nn.ModuleList()
        before = None
        for width in stages:
            entry = ResidualBlock(width) if before is None else HalvingBlock(before, width)
            self.stages.append(nn.Sequential(entry, block(width), block(width)))
            before = width

    def enter(self, x: Tensor) -> Tensor:
        """The stem: images (B, 3, H, W) to (B, C_0, H, W)."""
        for layers in self.stem:
            x = conv_norm_relu(*cast(ConvNorm, layers).parts, x)
        return x

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.enter(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
