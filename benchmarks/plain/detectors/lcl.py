"""MLCLNet and ALCLNet as the method describes them (method, section 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block with identity shortcut: conv-BN-ReLU-conv-BN, sum, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        main = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(main + x)


class HalvingBlock(nn.Module):
    """The first block of every stage but the first: half the resolution, new channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out)
        self.short_conv = nn.Conv2d(channels, out, 3, stride=2, padding=1)
        self.short_bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H/2, W/2)."""
        main = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        main = self.bn2(self.conv2(main))
        shortcut = F.relu(self.short_bn(self.short_conv(x)))
        return F.relu(main + shortcut)


class Encoder(nn.Module):
    """The shared encoder: a stem of two convolutions, then three residual blocks a stage."""

    def __init__(self, stages: tuple[int, ...]) -> None:
        super().__init__()
        first = stages[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, first, 3, padding=1),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        )
        layers: list[nn.Module] = []
        previous = None
        for channels in stages:
            start = Block(channels) if previous is None else HalvingBlock(previous, channels)
            layers.append(nn.Sequential(start, Block(channels), Block(channels)))
            previous = channels
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to one map a stage: (B, C_l, H / 2^l, W / 2^l)."""
        x = self.stem(x)
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


class MultiScale(nn.Module):
    """Three branches of growing reach, concatenated and fused by a 1x1 convolution (MLCLNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def branch(kernel: int, reach: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, channels, kernel, padding=kernel // 2),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=reach, dilation=reach),
                nn.ReLU(),
            )

        self.near = branch(1, 1)
        self.middle = branch(3, 3)
        self.far = branch(5, 5)
        self.fuse = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        return self.fuse(torch.cat([self.near(x), self.middle(x), self.far(x)], dim=1))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _kaiming(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(part.bias)


class MLCLNet(nn.Module):
    """Three stages, multi-scale blocks, a top-down sum of 64 channels: 657,249 parameters."""

    stages = (16, 32, 64)
    scam_scale = 0.55
    learning_rate = 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(self.stages)
        self.scales = nn.ModuleList([MultiScale(channels) for channels in self.stages])
        _kaiming(self)
        # Made after the Kaiming pass: these five keep PyTorch's default initialisation.
        self.laterals = nn.ModuleList([nn.Conv2d(channels, 64, 1) for channels in self.stages])
        self.head = nn.Sequential(nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 1, 1))

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to the three stages' maps."""
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """The stages' maps to one logit map (B, 1, H, W)."""
        maps = [F.relu(self.laterals[i](self.scales[i](features[i]))) for i in range(len(self.stages))]
        x = maps[-1]
        for low in reversed(maps[:-1]):
            x = low + _double(x)
        return (self.head(x),)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to logits (B, 1, H, W)."""
        return self.decode(self.encode(x))


class Up(nn.Module):
    """One gated step down the pyramid of ALCLNet: `low + up(high) * gate(low)`."""

    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        self.up_conv = nn.Conv2d(high, low, 1)
        self.up_bn = nn.BatchNorm2d(low)
        self.gate_conv = nn.Conv2d(low, low, 1)
        self.gate_bn = nn.BatchNorm2d(low)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Maps of two neighbouring stages to one of the lower stage's shape."""
        up = F.relu(self.up_bn(self.up_conv(_double(high))))
        gate = torch.sigmoid(self.gate_bn(self.gate_conv(low)))
        return low + up * gate


class ALCLNet(nn.Module):
    """Five stages and gated top-down fusion: 5,668,145 parameters."""

    stages = (16, 32, 64, 128, 256)
    scam_scale = 0.12
    learning_rate = 5e-4

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder(self.stages)
        self.mixes = nn.ModuleList(
            [
                nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1), nn.ReLU())
                for c in self.stages
            ]
        )
        self.ups = nn.ModuleList([Up(high, low) for low, high in zip(self.stages[:-1], self.stages[1:], strict=True)])
        self.head = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 1, 1))
        _kaiming(self)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to the five stages' maps."""
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """The stages' maps to one logit map (B, 1, H, W)."""
        maps = [self.mixes[i](features[i]) for i in range(len(self.stages))]
        x = maps[-1]
        for i in reversed(range(len(self.stages) - 1)):
            x = self.ups[i](x, maps[i])
        return (self.head(x),)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to logits (B, 1, H, W)."""
        return self.decode(self.encode(x))
