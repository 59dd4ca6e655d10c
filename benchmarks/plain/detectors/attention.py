"""Attention over channels and over pixels, as several detectors have it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelAttention(nn.Module):
    """A weight per channel, from its largest and its mean value, through shared 1x1 convolutions without bias."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 1, 1)."""
        largest = self.fc2(F.relu(self.fc1(F.adaptive_max_pool2d(x, 1))))
        mean = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1))))
        return torch.sigmoid(largest + mean)


class SpatialAttention(nn.Module):
    """A weight per pixel, from the largest and the mean value of its channels, by a 7x7 convolution."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 1, H, W)."""
        largest = x.max(dim=1, keepdim=True).values
        mean = x.mean(dim=1, keepdim=True)
        return torch.sigmoid(self.conv(torch.cat([largest, mean], dim=1)))


class SqueezeExcitation(nn.Module):
    """Channels times a weight of each, from their means through two 1x1 convolutions without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class AttentiveBlock(nn.Module):
    """The residual block of MSHNet and DNANet: attention over channels, then over pixels, before the sum."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out)
        self.channel = ChannelAttention(out, 16)
        self.spatial = SpatialAttention(bias=False)
        self.short = None
        if channels != out:
            self.short = nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H, W)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y = y * self.channel(y)
        y = y * self.spatial(y)
        return F.relu(y + (x if self.short is None else self.short(x)))


def blocks(channels: int, out: int, count: int) -> nn.Sequential:
    """So many blocks, the first of which changes the number of channels."""
    return nn.Sequential(AttentiveBlock(channels, out), *(AttentiveBlock(out, out) for _ in range(count - 1)))


def up(x: Tensor, factor: int = 2) -> Tensor:
    """Bilinear interpolation with aligned corners."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)
