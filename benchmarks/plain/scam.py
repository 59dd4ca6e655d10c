"""Semantic-conditioned affine modulation of the encoder's stages (method, section 3)."""

import torch
from torch import Tensor, nn


class Modulator(nn.Module):
    """SCAM on every stage, from `maps` VFM maps of `width` channels."""

    def __init__(self, stages: tuple[int, ...], scale: float, maps: int = 13, width: int = 384) -> None:
        super().__init__()
        self.stages = stages
        self.scale = scale
        self.fusion = nn.Parameter(torch.zeros(maps))
        self.score = nn.Linear(width, 1)
        self.mlp = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 2 * sum(stages)))
        self.gates = nn.Parameter(torch.ones(sum(stages)))

    def forward(self, features: list[Tensor], maps: list[Tensor]) -> list[Tensor]:
        """Modulate the stages' features (B, C_l, H_l, W_l) by VFM maps, each (B, width, h, w)."""
        shares = torch.softmax(self.fusion, dim=0)
        fused = torch.zeros_like(maps[0])
        for share, values in zip(shares, maps, strict=True):
            fused = fused + share * values
        tokens = fused.flatten(2).transpose(1, 2)  # (B, T, width)
        attention = torch.softmax(self.score(tokens), dim=1)  # (B, T, 1)
        pooled = (attention * tokens).sum(dim=1)  # (B, width)
        numbers = self.mlp(pooled)
        modulated = []
        start = 0
        gates = self.gates.split(list(self.stages))
        for level, channels in enumerate(self.stages):
            gamma = numbers[:, start : start + channels]
            beta = numbers[:, start + channels : start + 2 * channels]
            start += 2 * channels
            gamma = 1 + torch.tanh(gates[level] * gamma)
            gamma, beta = gamma[:, :, None, None], beta[:, :, None, None]
            modulated.append((1 + self.scale * (gamma - 1)) * features[level] + self.scale * beta)
        return modulated

    def gate_penalty(self) -> Tensor:
        """mean |g| over all modulated channels, a scalar."""
        return self.gates.abs().mean()


class Teacher(nn.Module):
    """One detector for both roles, and the modulator that makes a teacher of it."""

    def __init__(self, detector: nn.Module, modulator: Modulator) -> None:
        super().__init__()
        self.detector = detector
        self.modulator = modulator

    def student(self, x: Tensor) -> tuple[Tensor, ...]:
        """A full forward of the bare detector."""
        return self.detector.decode(self.detector.encode(x))

    def forward(self, x: Tensor, maps: list[Tensor]) -> tuple[Tensor, ...]:
        """A full forward of the modulated detector, its own pass of the encoder included."""
        features = self.detector.encode(x)
        return self.detector.decode(self.modulator(features, maps))
