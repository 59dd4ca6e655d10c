"""DNANet: nested nodes between encoder and decoder, all logits at full size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain.detectors.attention import AttentiveBlock, blocks, up

WIDTHS = (16, 32, 64, 128, 256)


def down(x: Tensor) -> Tensor:
    """Bilinear interpolation to half the size, with aligned corners."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=True)


class DNAEncoder(nn.Module):
    """x00 to x40."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList([blocks((3, *WIDTHS)[i], WIDTHS[i], 1 if i == 0 else 2) for i in range(5)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps."""
        features = []
        for i in range(5):
            x = self.levels[i](x if i == 0 else F.max_pool2d(x, 2))
            features.append(x)
        return features


class DNANet(nn.Module):
    """4,696,888 parameters; four logits: of the fused maps, then of x01, x02, x03."""

    stages = WIDTHS
    scam_scale = 0.12
    learning_rate = 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.encoder = DNAEncoder()
        self.nodes = nn.ModuleDict()
        for j in range(1, 5):
            for i in range(5 - j):
                below = WIDTHS[i - 1] if i >= 1 else 0
                self.nodes[f"{i}{j}"] = blocks(j * WIDTHS[i] + WIDTHS[i + 1] + below, WIDTHS[i], 1 if i == 0 else 2)
        self.narrow = nn.ModuleList([nn.Conv2d(width, 16, 1) for width in WIDTHS[1:]])
        self.fuse = AttentiveBlock(80, 16)
        self.outputs = nn.ModuleList([nn.Conv2d(16, 1, 1) for _ in range(4)])

    def encode(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps."""
        return self.encoder(x)

    def decode(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Five maps to four logits."""
        x = {(i, 0): features[i] for i in range(5)}
        for j in range(1, 5):
            for i in range(5 - j):
                parts = [x[i, k] for k in range(j)] + [up(x[i + 1, j - 1])]
                if i >= 1:
                    parts.append(down(x[i - 1, j]))
                x[i, j] = self.nodes[f"{i}{j}"](torch.cat(parts, dim=1))
        parts = [up(self.narrow[i - 1](x[i, 4 - i]), 2**i) for i in (4, 3, 2, 1)]
        final = self.fuse(torch.cat([*parts, x[0, 4]], dim=1))
        return (
            self.outputs[3](final),
            self.outputs[0](x[0, 1]),
            self.outputs[1](x[0, 2]),
            self.outputs[2](x[0, 3]),
        )
