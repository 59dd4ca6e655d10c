"""SCAM, semantic-conditioned affine modulation: the part that only the teacher has (method, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.layers import scale_and_shift
from semprior.kernels.mixture import mix

HIDDEN = 128  # width of the network's hidden layer


class SCAM(nn.Module):
    """Scales and shifts the channels of a detector's features according to the semantics of the image.

    A learned mixture over the maps of a frozen vision model, then a learned attention over tokens, give one vector per
    image. A small network turns it into a factor and an offset per channel of every placed stage. Other stages pass
    unchanged and have no parameters.

    Args:
        map_channels: channels of each of the K maps.
        stages: channels of each of the detector's stages.
        placed: indices, from 0, of the stages to modulate.
        scale: strength `s` of the modulation.
        width: None for a ViT, whose maps have equal channels and are mixed directly; a number for a CNN, each of
            whose maps first passes through its own learned 1x1 convolution to that many channels (method, section 2).
            Published is to convolve and then resample to stride 16. These maps are resampled already; resampling is
            linear with weights that sum to 1, so it commutes with a 1x1 convolution, and this order takes less work.
    """

    def __init__(
        self,
        map_channels: Sequence[int],
        stages: Sequence[int],
        placed: Sequence[int],
        scale: float,
        width: int | None = None,
    ) -> None:
        super().__init__()
        if list(placed) != sorted(set(placed)) or any(not 0 <= index < len(stages) for index in placed):
            raise ValueError(f"placed={tuple(placed)} must be ascending indices of the {len(stages)} stages")
        if width is None and len(set(map_channels)) != 1:
            raise ValueError(f"maps of {tuple(map_channels)} channels need a width to be projected to")
        self.placed = tuple(placed)
        self.channels = tuple(stages[index] for index in placed)
        self.scale = scale
        if not self.placed:
            return
        self.project = None
        if width is not None:
            self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in map_channels)
        dim = map_channels[0] if width is None else width
        self.mixture = nn.Parameter(torch.zeros(len(map_channels)))
        self.score = nn.Linear(dim, 1)
        self.mlp = nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * sum(self.channels)))
        self.gates = nn.Parameter(torch.ones(sum(self.channels)))

    def forward(self, features: Sequence[Tensor], maps: Sequence[Tensor], bare: Tensor | None = None) -> list[Tensor]:
        """Modulate features.

        Args:
            features: (B, C_l, H_l, W_l) per stage, any float dtype, which the result keeps.
            maps: K tensors (B, C_k, h, w) of any float dtype, raw maps of the vision model, with equal h and w.
            bare: (B,) bool, samples to leave unmodulated; None modulates all samples.

        Returns:
            One tensor per stage; for unplaced stages the input itself.
        """
        modulated = list(features)
        for index, (factor, offset) in zip(self.placed, self.affine(maps), strict=True):
            feature = features[index]
            if bare is not None:
                factor, offset = factor.masked_fill(bare[:, None], 1), offset.masked_fill(bare[:, None], 0)
            modulated[index] = scale_and_shift(feature, factor, offset)
        return modulated

    def affine(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Factor ``1 + s (gamma - 1)`` and offset ``s beta``, (B, C_l) each, float32, for every placed stage."""
        if not self.placed:
            return []
        with torch.autocast(maps[0].device.type, enabled=False):
            numbers = self.mlp(self._pool(maps))
            sizes = [size for channels in self.channels for size in (channels, channels)]
            parts = torch.split(numbers, sizes, dim=1)
            gates = torch.split(self.gates, list(self.channels))
            return [
                (1 + self.scale * torch.tanh(gate * gamma), self.scale * beta)
                for gate, gamma, beta in zip(gates, parts[::2], parts[1::2], strict=True)
            ]

    def _pool(self, maps: Sequence[Tensor]) -> Tensor:
        """K maps (B, C_k, h, w) to one vector per image, (B, C)."""
        if self.project is not None:
            dtype = self.mixture.dtype
            maps = [project(values.to(dtype)) for project, values in zip(self.project, maps, strict=True)]
        tokens = mix(maps, torch.softmax(self.mixture, dim=0)).flatten(2)
        attention = torch.softmax(F.conv1d(tokens, self.score.weight[:, :, None], self.score.bias), dim=2)
        return (tokens * attention).sum(dim=2)

    def gate_penalty(self) -> Tensor:
        """Mean ``|g|`` over the modulated channels, a scalar; 0 if there are none."""
        return self.gates.abs().mean() if self.placed else torch.zeros(())
