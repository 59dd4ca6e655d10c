"""The residual encoder that MLCLNet and ALCLNet share (method, section 1).

What follows a convolution is one layer of `semprior.kernels`. Nothing here reshapes, so channels-last images give
channels-last features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.convolution import folded, folds
from semprior.kernels.layers import join_relu, norm_pool_relu, norm_relu
from semprior.kernels.winograd import convolve


def _conv_bn(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.BatchNorm2d(outputs))


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus the input, ReLU; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv_bn(channels, channels)
        self.second = _conv_bn(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        (first, first_norm), (second, second_norm) = self.first, self.second
        if folds(first_norm, x):
            return folded(second, second_norm, folded(first, first_norm, x), residual=x)
        return norm_relu(second_norm, convolve(second, norm_relu(first_norm, convolve(first, x))), residual=x)


class HalvingBlock(nn.Module):
    """conv-BN-ReLU-maxpool-conv-BN plus a strided conv-BN-ReLU, ReLU; (B, C, H, W) to (B, C', H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _conv_bn(inputs, outputs)
        self.second = _conv_bn(outputs, outputs)
        self.shortcut = _conv_bn(inputs, outputs, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        # The maximum and the ReLU commute, values and gradients alike: the ReLU sees a quarter of the pixels.
        (first, first_norm), (second, second_norm), (short, short_norm) = self.first, self.second, self.shortcut
        if folds(first_norm, x):
            main = F.max_pool2d(folded(first, first_norm, x), 2)
            return folded(second, second_norm, main, residual=folded(short, short_norm, x))
        main = convolve(second, norm_pool_relu(first_norm, convolve(first, x)))
        return join_relu(second_norm, main, short_norm, short(x))


class Encoder(nn.Module):
    """Stem and stages: images (B, 3, H, W) to [(B, C_l, H / 2^l, W / 2^l)] for l = 0, 1, ...

    Args:
        stages: channels C_l of the stages; the first is also the stem's.
    """

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__()
        first = stages[0]
        self.stem = nn.ModuleList([_conv_bn(3, first), _conv_bn(first, first)])
        self.stages = nn.ModuleList()
        before = None
        for width in stages:
            entry = ResidualBlock(width) if before is None else HalvingBlock(before, width)
            self.stages.append(nn.Sequential(entry, ResidualBlock(width), ResidualBlock(width)))
            before = width

    def forward(self, x: Tensor) -> list[Tensor]:
        for conv, norm in self.stem:
            x = folded(conv, norm, x) if folds(norm, x) else norm_relu(norm, convolve(conv, x))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features
