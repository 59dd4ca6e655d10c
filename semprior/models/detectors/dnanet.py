"""DNANet: nested nodes between encoder and decoder. 4,696,888 parameters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.maps import concatenate, upsample
from semprior.models.attention import AttentiveBlock, attentive_blocks
from semprior.models.detector import Detector, register
from semprior.models.published import PUBLISHED

_WIDTH = 16  # channels of the maps that the main logits are made of


class Encoder(nn.Module):
    """Five levels with maxima between them: images (B, 3, H, W) to [(B, C_l, H / 2^l, W / 2^l)]."""

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList([attentive_blocks(3, stages[0], 1)])
        for before, width in itertools.pairwise(stages):
            self.levels.append(attentive_blocks(before, width, 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for level in self.levels:
            x = level(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features


@register("dnanet", **vars(PUBLISHED["dnanet"]))
class DNANet(Detector):
    """The detector; all of it keeps PyTorch's initialisation.

    A node ``(i, j)``, at the stride of stage i, takes all earlier nodes of its row, the node below it and, but for the
    first row, the node above it in the same column. Column 0 is the encoder.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = self.stages
        self.encoder = Encoder(widths)
        self.nodes = nn.ModuleDict()
        for row, column in self._places():
            above = widths[row - 1] if row else 0
            inputs = column * widths[row] + widths[row + 1] + above
            self.nodes[f"{row}{column}"] = attentive_blocks(inputs, widths[row], 2 if row else 1)
        self.narrow = nn.ModuleList(nn.Conv2d(width, _WIDTH, 1) for width in widths[1:])
        self.fuse = AttentiveBlock(len(widths) * _WIDTH, _WIDTH)
        self.outputs = nn.ModuleList(nn.Conv2d(_WIDTH, 1, 1) for _ in widths[1:])  # of x01, x02, x03 and the main ones

    def _places(self) -> list[tuple[int, int]]:
        """Row and column of the nodes, in the order in which they can be computed."""
        rows = len(self.stages)
        return [(row, column) for column in range(1, rows) for row in range(rows - column)]

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the five stages to four logits (B, 1, H, W): the main ones, then those of x01, x02 and x03."""
        x = {(row, 0): feature for row, feature in enumerate(features)}
        for row, column in self._places():
            like = features[row]
            parts = [*(x[row, earlier] for earlier in range(column)), upsample(x[row + 1, column - 1], like)]
            if row:
                parts.append(upsample(x[row - 1, column], like))
            x[row, column] = self.nodes[f"{row}{column}"](concatenate(parts))
        last = len(self.stages) - 1
        whole = features[0]
        narrowed = [upsample(self.narrow[row - 1](x[row, last - row]), whole) for row in range(last, 0, -1)]
        final = self.fuse(concatenate([*narrowed, x[0, last]]))
        *sides, main = self.outputs
        return (main(final), *(side(x[0, column]) for column, side in enumerate(sides, 1)))

    def output_layers(self) -> tuple[nn.Conv2d, ...]:
        """The 1x1 convolutions of the main logits and of the others."""
        *sides, main = (cast(nn.Conv2d, layer) for layer in self.outputs)
        return (main, *sides)
