"""SCTransNet: a U-shape whose skips pass a transformer over the channels of all stages."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain.detectors.attention import up

WIDTHS = (32, 64, 128, 256)
ALL = sum(WIDTHS)


class ResidualBlock(nn.Module):
    """conv3-BN-LeakyReLU-conv3-BN plus the shortcut."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(out)
        self.short = None
        if channels != out:
            self.short = nn.Sequential(nn.Conv2d(channels, out, 1), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H, W)."""
        y = self.bn2(self.conv2(F.leaky_relu(self.bn1(self.conv1(x)))))
        return y + (x if self.short is None else self.short(x))


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        mean = x.mean(dim=1, keepdim=True)
        variance = ((x - mean) ** 2).mean(dim=1, keepdim=True)
        normal = (x - mean) / torch.sqrt(variance + 1e-5)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class CrossAttention(nn.Module):
    """Channels of each scale attend to the channels of all scales."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ChannelNorm(c) for c in WIDTHS])
        self.norm = ChannelNorm(ALL)
        self.q1 = nn.ModuleList([nn.Conv2d(c, c, 1, bias=False) for c in WIDTHS])
        self.q3 = nn.ModuleList([nn.Conv2d(c, c, 3, padding=1, groups=c // 2, bias=False) for c in WIDTHS])
        self.k1 = nn.Conv2d(ALL, ALL, 1, bias=False)
        self.k3 = nn.Conv2d(ALL, ALL, 3, padding=1, groups=ALL, bias=False)
        self.v1 = nn.Conv2d(ALL, ALL, 1, bias=False)
        self.v3 = nn.Conv2d(ALL, ALL, 3, padding=1, groups=ALL, bias=False)
        self.out = nn.ModuleList([nn.Conv2d(c, c, 1, bias=False) for c in WIDTHS])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Four maps (B, C_i, h, w) to four of the same shapes."""
        shape = maps[0].shape[-2:]
        whole = self.norm(torch.cat(maps, dim=1))
        k = F.normalize(self.k3(self.k1(whole)).flatten(2), dim=-1)
        v = self.v3(self.v1(whole)).flatten(2)
        results = []
        for i in range(4):
            q = F.normalize(self.q3[i](self.q1[i](self.norms[i](maps[i]))).flatten(2), dim=-1)
            scores = q @ k.transpose(1, 2) / math.sqrt(ALL)  # (B, C_i, 480)
            scores = F.instance_norm(scores[:, None])[:, 0]
            attended = torch.softmax(scores, dim=-1) @ v
            results.append(maps[i] + self.out[i](attended.unflatten(2, shape)))
        return results


class FeedForward(nn.Module):
    """Two depthwise convolutions between 1x1 convolutions, a weight per channel, and the residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = math.floor(2.66 * channels)
        self.norm = ChannelNorm(channels)
        self.widen = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.far = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False)
        self.narrow = nn.Conv2d(2 * hidden, channels, 1, bias=False)
        self.weigh = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h, w)."""
        near, far = self.widen(self.norm(x)).chunk(2, dim=1)
        y = self.narrow(torch.cat([F.relu(self.near(near)), F.relu(self.far(far))], dim=1))
        means = y.mean(dim=(2, 3))
        weights = torch.sigmoid(self.weigh(means[:, None])[:, 0])
        return x + y * weights[:, :, None, None]


class TransformerBlock(nn.Module):
    """Attention across scales, then a feed-forward network for each scale."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = CrossAttention()
        self.feed = nn.ModuleList([FeedForward(c) for c in WIDTHS])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Four maps to four of the same shapes."""
        maps = self.attention(maps)
        return [self.feed[i](maps[i]) for i in range(4)]


class Reconstruction(nn.Module):
    """A map at stride 16, normalised, back to its stage's size."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.norm = ChannelNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 1)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, factor h, factor w)."""
        x = F.interpolate(self.norm(x), scale_factor=self.factor, mode="bilinear", align_corners=False)
        return F.relu(self.bn(self.conv(x)))


class Decoder(nn.Module):
    """One step up: the skip, weighed by both maps, and two convolutions."""

    def __init__(self, below: int, skip: int, out: int) -> None:
        super().__init__()
        self.of_skip = nn.Linear(skip, skip)
        self.of_up = nn.Linear(below, skip)
        self.convs = nn.Sequential(
            nn.Conv2d(below + skip, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, below, h, w) and (B, skip, 2h, 2w) to (B, out, 2h, 2w)."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        gate = (self.of_skip(skip.mean(dim=(2, 3))) + self.of_up(x.mean(dim=(2, 3)))) / 2
        skip = F.relu(skip * torch.sigmoid(gate)[:, :, None, None])
        return self.convs(torch.cat([skip, x], dim=1))


class SCTransEncoder(nn.Module):
    """Five levels of one block."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *WIDTHS, 256]
        self.levels = nn.ModuleList([ResidualBlock(widths[i], widths[i + 1]) for i in range(5)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps."""
        features = []
        for i in range(5):
            x = self.levels[i](x if i == 0 else F.max_pool2d(x, 2))
            features.append(x)
        return features


class SCTransNet(nn.Module):
    """11,203,635 parameters; six logits: of all maps, then of each of the five, from the finest."""

    stages = (*WIDTHS, 256)
    scam_scale = 0.12
    learning_rate = 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SCTransEncoder()
        patches = (16, 8, 4, 2)
        self.patch = nn.ModuleList([nn.Conv2d(c, c, p, stride=p) for c, p in zip(WIDTHS, patches, strict=True)])
        self.blocks = nn.ModuleList([TransformerBlock() for _ in range(4)])
        self.back = nn.ModuleList([Reconstruction(c, p) for c, p in zip(WIDTHS, patches, strict=True)])
        self.ups = nn.ModuleList(
            [Decoder(32, 32, 32), Decoder(64, 64, 32), Decoder(128, 128, 64), Decoder(256, 256, 128)]
        )
        self.sides = nn.ModuleList([nn.Conv2d(c, 1, 1) for c in (32, 32, 64, 128, 256)])
        self.main = nn.Conv2d(5, 1, 1)

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps."""
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Five maps to six logits of full size."""
        maps = [self.patch[i](features[i]) for i in range(4)]
        for block in self.blocks:
            maps = block(maps)
        skips = [self.back[i](maps[i]) + 2 * features[i] for i in range(4)]
        x = features[4]
        decoded = [x]
        for i in (3, 2, 1, 0):
            x = self.ups[i](x, skips[i])
            decoded.insert(0, x)
        sides = [self.sides[k](decoded[k]) for k in range(5)]
        large = [sides[0], *(up(sides[k], 2**k) for k in range(1, 5))]
        return (self.main(torch.cat(large, dim=1)), *large)
