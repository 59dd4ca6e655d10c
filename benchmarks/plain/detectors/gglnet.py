"""GGLNet: ALCLNet with squeeze and excitation, guided by the gradient of the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain.detectors.attention import ChannelAttention, SpatialAttention, SqueezeExcitation, up
from benchmarks.plain.detectors.lcl import Block, HalvingBlock


class ExcitedBlock(nn.Module):
    """conv-BN-ReLU, squeeze and excitation, conv-BN, sum, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.se = SqueezeExcitation(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        y = self.se(F.relu(self.bn1(self.conv1(x))))
        return F.relu(self.bn2(self.conv2(y)) + x)


class GradientFusion(nn.Module):
    """Joins a stage's map and the gradient of the image at its size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.se1 = SqueezeExcitation(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(channels)
        self.se2 = SqueezeExcitation(channels)
        self.conv4 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn4 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, gradient: Tensor) -> Tensor:
        """(B, C, H, W) and (B, 3, H, W) to (B, C, H, W)."""
        g = self.se1(F.relu(self.bn1(self.conv1(gradient))))
        g = F.relu(self.bn2(self.conv2(g)))
        y = self.se2(F.relu(self.bn3(self.conv3(torch.cat([g, x], dim=1)))))
        return F.relu(self.bn4(self.conv4(y)) + x)


def gradient_magnitude(x: Tensor) -> Tensor:
    """Half central differences along rows and columns, 0 beyond the image, and their magnitude; same shape."""
    padded = F.pad(x, (1, 1, 1, 1))
    along_rows = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    along_columns = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return torch.sqrt(along_rows**2 + along_columns**2)


class GGLEncoder(nn.Module):
    """Stem and five stages, each ending in the fusion with the gradient."""

    def __init__(self, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        previous = None
        for channels in stages:
            start = Block(channels) if previous is None else HalvingBlock(previous, channels)
            layers.append(nn.Sequential(start, ExcitedBlock(channels), ExcitedBlock(channels)))
            previous = channels
        self.layers = nn.ModuleList(layers)
        self.fusions = nn.ModuleList([GradientFusion(channels) for channels in stages])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps."""
        gradient = gradient_magnitude(x)
        x = self.stem(x)
        features = []
        for i in range(5):
            x = self.layers[i](x)
            x = self.fusions[i](x, F.max_pool2d(gradient, 2**i))
            features.append(x)
        return features


class GGLUp(nn.Module):
    """One step down the pyramid: each of the two maps weighs the other."""

    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(high, low, 1)
        self.bn = nn.BatchNorm2d(low)
        self.channel = ChannelAttention(low, 8)
        self.spatial = SpatialAttention(bias=True)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Maps of two neighbouring stages to one of the lower stage's shape."""
        high = F.relu(self.bn(self.conv(up(high))))
        return low * self.channel(high) + high * self.spatial(low)


class GGLNet(nn.Module):
    """8,988,093 parameters."""

    stages = (16, 32, 64, 128, 256)
    scam_scale = 0.12
    learning_rate = 5e-4

    def __init__(self) -> None:
        super().__init__()
        self.encoder = GGLEncoder(self.stages)
        self.mixes = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1), nn.ReLU())
                for c in self.stages
            ]
        )
        pairs = zip(self.stages[:-1], self.stages[1:], strict=True)
        self.ups = nn.ModuleList([GGLUp(high, low) for low, high in pairs])
        self.head = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 1, 1))

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps."""
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Five maps to one logit map (B, 1, H, W)."""
        maps = [self.mixes[i](features[i]) for i in range(5)]
        x = maps[4]
        for i in (3, 2, 1, 0):
            x = self.ups[i](x, maps[i])
        return (self.head(x),)
