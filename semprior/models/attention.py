"""Weights over channels and pixels, and the residual block of MSHNet and DNANet that uses both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.attention import mean_pixels, weighted_residual_relu
from semprior.kernels.convolution import can_fold, conv_norm, conv_norm_relu, folded_conv
from semprior.kernels.layers import scale_and_shift
from semprior.kernels.winograd import convolve


def scale_channels(x: Tensor, weights: Tensor) -> Tensor:
    """``weights * x`` in the dtype of x: (B, C, H, W) times (B, C) or (B, C, 1, 1)."""
    weights = weights.flatten(1)
    return scale_and_shift(x, weights, torch.zeros_like(weights))


class SqueezeExcitation(nn.Module):
    """Channels times a weight of each, in 0..1, from their means; (B, C, H, W) to the same shape.

    Args:
        channels: C.
        reduction: channels per channel of the hidden layer.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.excite = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, mean = mean_pixels(x)
        return scale_channels(x, torch.sigmoid(self.excite(F.relu_(self.squeeze(mean)))))


class ChannelAttention(nn.Module):
    """A weight per channel, in 0..1, from its largest and its mean value, (B, C, 1, 1) all.

    Args:
        channels: C.
        reduction: channels per channel of the hidden layer.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.excite = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, largest: Tensor, mean: Tensor) -> Tensor:
        high, middle = (self.excite(F.relu_(self.squeeze(pool))) for pool in (largest, mean))
        return torch.sigmoid(high + middle)


class SpatialAttention(nn.Module):
    """A weight per pixel, in 0..1, from its largest and its mean channel, (B, 1, H, W) all.

    The original of MSHNet has the mean first, so that the two slices of its weights are in the other order.

    Args:
        bias: whether its convolution has one.
    """

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=bias)

    def forward(self, largest: Tensor, mean: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(torch.cat((largest, mean), dim=1)))


class AttentiveBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, weighed by channels and then by pixels, plus the input, ReLU.

    (B, C, H, W) to (B, C', H, W); where the widths differ, the shortcut is a 1x1 convolution and its BatchNorm.

    Args:
        inputs: C.
        outputs: C'.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.channel = ChannelAttention(outputs, 16)
        self.spatial = SpatialAttention(bias=False)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm_relu(self.first, self.first_norm, x)
        short = x if self.shortcut is None else conv_norm(self.shortcut, self.shortcut_norm, x)
        if can_fold(self.second_norm, y):
            y = folded_conv(self.second, self.second_norm, y, "none")
            return weighted_residual_relu(None, y, self.channel, self.spatial, short)
        y = convolve(self.second, y)
        return weighted_residual_relu(self.second_norm, y, self.channel, self.spatial, short)


def attentive_blocks(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """So many blocks in a row, the first of which changes the width."""
    return nn.Sequential(AttentiveBlock(inputs, outputs), *(AttentiveBlock(outputs, outputs) for _ in range(count - 1)))
