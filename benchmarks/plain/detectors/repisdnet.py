"""RepISDNet: blocks of parallel branches, and a pyramid of pools before the logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain.detectors.attention import up


class EdgeBlock(nn.Module):
    """ReLU of a sum of branches: a 3x3 convolution, one that sees differences from the centre, a 1x1, and identity."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.conv_bn = nn.BatchNorm2d(out)
        self.difference = nn.Conv2d(channels, out, 3, padding=1, bias=False)
        self.difference_bn = nn.BatchNorm2d(out)
        self.point = nn.Conv2d(channels, out, 1)
        self.point_bn = nn.BatchNorm2d(out)
        self.identity_bn = nn.BatchNorm2d(out) if channels == out else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H, W)."""
        total = self.conv_bn(self.conv(x))
        centre = F.conv2d(x, self.difference.weight.sum(dim=(2, 3), keepdim=True))
        total = total + self.difference_bn(self.difference(x) - centre)
        total = total + self.point_bn(self.point(x))
        if self.identity_bn is not None:
            total = total + self.identity_bn(x)
        return F.relu(total)


def pair(channels: int, middle: int, out: int) -> nn.Sequential:
    """Two blocks."""
    return nn.Sequential(EdgeBlock(channels, middle), EdgeBlock(middle, out))


class RepISDEncoder(nn.Module):
    """A stem and two stages behind maxima."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.second = pair(32, 64, 64)
        self.third = pair(64, 64, 64)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to three maps."""
        first = self.stem(x)
        second = self.second(F.max_pool2d(first, 2))
        return [first, second, self.third(F.max_pool2d(second, 2))]


class RepISDNet(nn.Module):
    """558,497 parameters."""

    stages = (32, 64, 64)
    scam_scale = 0.12
    learning_rate = 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.encoder = RepISDEncoder()
        self.up2 = pair(128, 64, 32)
        self.up1 = pair(64, 32, 32)
        self.pools = nn.ModuleList([nn.Conv2d(32, 8, 1) for _ in range(4)])
        self.head = nn.Conv2d(64, 32, 3, padding=1)
        self.head_bn = nn.BatchNorm2d(32)
        self.dropout = nn.Dropout2d(0.1)
        self.output = nn.Conv2d(32, 1, 1)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to three maps."""
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Three maps to one logit map (B, 1, H, W)."""
        first, second, third = features
        x = self.up2(torch.cat([second, up(third)], dim=1))
        x = self.up1(torch.cat([first, up(x)], dim=1))
        parts = [x]
        for i, bins in enumerate((1, 2, 3, 6)):
            pooled = self.pools[i](F.adaptive_avg_pool2d(x, bins))
            parts.append(F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=True))
        x = F.relu(self.head_bn(self.head(torch.cat(parts, dim=1))))
        return (self.output(self.dropout(x)),)
