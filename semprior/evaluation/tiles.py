"""Large images in overlapping tiles, so that memory does not grow with the image.

The outer `CONTEXT` pixels of a tile do not count, as their logits lack context; between those of two neighbours, the
weight passes linearly from one tile to the other. The weights at a pixel sum to one, so that a network whose receptive
field reaches no further than `CONTEXT` pixels gives the logits of the whole image, and one that reaches further changes
gradually from tile to tile. Tiles begin at multiples of `MULTIPLE`, where pooling and strides begin in the whole image,
too. Interpolation with aligned corners depends on the extents of the whole map; `AsInWhole` gives it those. A detector
that pools over or attends to the whole image (all but ALCLNet and MLCLNet) does so within a tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

MULTIPLE = 32  # of the sides of padded images and tiles
TILE = 1024  # pixels that a side of a tile has at most
CONTEXT = 96  # pixels at a tile's inner border whose logits do not count
OVERLAP = 256  # pixels that neighbouring tiles share at least; a multiple of MULTIPLE


@dataclass(frozen=True)
class Tile:
    """A part of an image: its first pixel, its size and the size of the whole, each as (rows, columns)."""

    start: tuple[int, int]
    size: tuple[int, int]
    whole: tuple[int, int]


class AsInWhole(TorchFunctionMode):
    """Within this context, a network interpolates the maps of a tile to the values that the whole image's would have.

    With aligned corners, pixel i of N is read at i (n - 1) / (N - 1) of the n coarse pixels, so that it depends on
    where the map ends. Here n and N are those of the whole image. Other operations are unchanged.
    """

    def __init__(self, tile: Tile) -> None:
        super().__init__()
        self.tile = tile

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - the protocol of torch.overrides
        kwargs = kwargs or {}
        if func is F.interpolate and kwargs.get("align_corners") and kwargs.get("mode") == "bilinear":
            x, size = args if len(args) == 2 else (args[0], kwargs["size"])
            return _interpolate(x, size, self.tile)
        return func(*args, **kwargs)


def _interpolate(x: Tensor, size: Sequence[int], tile: Tile) -> Tensor:
    """Maps (B,C,h,w) of a tile, bilinearly at (H,W) `size`, as the maps of the whole image have it there."""
    maps = x.float()  # as torch interpolates maps of bfloat16, whose 8 bits are too few for shares
    for axis in (0, 1):
        dim, coarse, fine, extent = axis - 2, x.shape[axis - 2], size[axis], tile.size[axis]
        first = tile.start[axis]
        last_coarse, last_fine = tile.whole[axis] * coarse // extent - 1, tile.whole[axis] * fine // extent - 1
        position = torch.arange(fine, device=x.device, dtype=torch.float64) + first * fine // extent
        position = position * (last_coarse / max(1, last_fine)) - first * coarse // extent
        position = position.clamp(0, coarse - 1)  # beyond the tile only at its border, which does not count
        lower = position.floor().long()
        upper = (lower + 1).clamp(max=coarse - 1)
        share = (position - lower).float()
        share = share[:, None] if axis == 0 else share
        maps = torch.lerp(maps.index_select(dim, lower), maps.index_select(dim, upper), share)
    return maps.to(x.dtype)


def padded(extent: int) -> int:
    """The next multiple of `MULTIPLE`."""
    return -(-extent // MULTIPLE) * MULTIPLE


def each_tile(height: int, width: int) -> Iterator[tuple[Tile, Tensor]]:
    """The tiles of a padded image, with the weight of each of their pixels, (h,w) float32."""
    for row, row_weights in tiles(height):
        for column, column_weights in tiles(width):
            size = (len(row_weights), len(column_weights))
            yield Tile((row, column), size, (height, width)), torch.outer(row_weights, column_weights)


def tiles(extent: int) -> list[tuple[int, Tensor]]:
    """The tiles along one side of a padded image.

    Args:
        extent: pixels of the side, a multiple of `MULTIPLE`.

    Returns:
        For each tile, the index of its first pixel and the weight of each of its pixels, (n,) float32. The tiles are
        as few as possible, of one length of at most `TILE`, and overlap by at least `OVERLAP`; at every pixel of the
        side the weights sum to 1.
    """
    count = max(1, math.ceil((extent - OVERLAP) / (TILE - OVERLAP)))
    length = padded(math.ceil((extent + (count - 1) * OVERLAP) / count))
    gaps = max(1, count - 1)
    starts = [number * (extent - length) // gaps // MULTIPLE * MULTIPLE for number in range(count)]
    position = torch.arange(extent, dtype=torch.float32)
    found = []
    for number, start in enumerate(starts):
        pixels = position[start : start + length]
        weights = torch.ones(length)
        if number > 0:
            weights = weights * _share(pixels, start, starts[number - 1] + length)
        if number < count - 1:
            weights = weights * (1 - _share(pixels, starts[number + 1], start + length))
        found.append((start, weights))
    return found


def _share(position: Tensor, start: int, end: int) -> Tensor:
    """The weight of the later of two tiles, whose overlap is ``start..end - 1``: 0 before its middle part, 1 after."""
    return ((position - (start + CONTEXT - 0.5)) / (end - start - 2 * CONTEXT)).clamp(0, 1)
