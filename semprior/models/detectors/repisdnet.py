"""RepISDNet: blocks of parallel branches that are one convolution once deployed. 558,497 parameters, then 279,073."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.convolution import can_fold, conv_norm_relu, conv_relu, conv_with, normal_form
from semprior.kernels.layers import sum_relu
from semprior.kernels.maps import concatenate, upsample
from semprior.kernels.winograd import convolve
from semprior.models.detector import Detector, published_init, register
from semprior.models.dropout import ChannelDropout
from semprior.models.published import PUBLISHED

_BINS = (1, 2, 3, 6)  # of the pyramid's pools, along each side
_POOLED = 8  # channels of each


class EdgeBlock(nn.Module):
    """ReLU of the sum of branches, each with its own BatchNorm; (B, C, H, W) to (B, C', H, W).

    The branches are a 3x3 convolution, one of differences from the central pixel, a 1x1 convolution and, if C' = C, the
    input. All are linear in evaluation, and their sum is one 3x3 convolution.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv_norm = nn.BatchNorm2d(outputs)
        self.difference = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.difference_norm = nn.BatchNorm2d(outputs)
        self.point = nn.Conv2d(inputs, outputs, 1)
        self.point_norm = nn.BatchNorm2d(outputs)
        self.identity_norm = nn.BatchNorm2d(outputs) if inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        if can_fold(self.conv_norm, x):
            return conv_with(self.conv, *self.fused(), x)
        norms = [self.conv_norm, self.difference_norm, self.point_norm]
        maps = [convolve(self.conv, x), convolve(self.difference, x, self._difference_weight())]
        maps.append(convolve(self.point, x))
        if self.identity_norm is not None:
            norms.append(self.identity_norm)
            maps.append(x)
        return sum_relu(norms, maps)

    def _difference_weight(self) -> Tensor:
        """The weight that sees differences from the central pixel: its taps sum to 0."""
        weight = self.difference.weight
        return weight - F.pad(weight.sum((2, 3), keepdim=True), (1, 1, 1, 1))

    def fused(self) -> tuple[Tensor, Tensor]:
        """Weight (C', C, 3, 3) and bias (C',) of the one convolution that equals all branches in evaluation."""
        branches = [
            (self.conv_norm, self.conv.weight, None),
            (self.difference_norm, self._difference_weight(), None),
            (self.point_norm, F.pad(self.point.weight, (1, 1, 1, 1)), self.point.bias),
        ]
        if self.identity_norm is not None:
            one = torch.eye(self.conv.out_channels, dtype=self.conv.weight.dtype, device=self.conv.weight.device)
            branches.append((self.identity_norm, F.pad(one[:, :, None, None], (1, 1, 1, 1)), None))
        weights, biases = [], []
        for norm, weight, shift in branches:
            factor, bias = normal_form(norm, shift)
            weights.append(weight * factor[:, None, None, None])
            biases.append(bias)
        return torch.stack(weights).sum(0), torch.stack(biases).sum(0)


class FusedBlock(nn.Module):
    """The deployed form of an `EdgeBlock`: a 3x3 convolution and a ReLU."""

    def __init__(self, block: EdgeBlock) -> None:
        super().__init__()
        weight, bias = block.fused()
        self.conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, device=weight.device, dtype=weight.dtype)
        self.conv.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, x: Tensor) -> Tensor:
        return conv_relu(self.conv, x)


def _pair(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(EdgeBlock(inputs, middle), EdgeBlock(middle, outputs))


class Encoder(nn.Module):
    """Stem and two stages behind maxima: images (B, 3, H, W) to [(B, C_l, H / 2^l, W / 2^l)]."""

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__()
        first, second, third = stages
        self.stem = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(inputs, first, 3, padding=1, bias=False), nn.BatchNorm2d(first)])
            for inputs in (3, first)
        )
        self.second = _pair(first, second, second)
        self.third = _pair(second, third, third)

    def forward(self, x: Tensor) -> list[Tensor]:
        for layers in self.stem:
            conv, norm = cast(nn.ModuleList, layers)
            x = conv_norm_relu(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm), x)
        second = self.second(F.max_pool2d(x, 2))
        return [x, second, self.third(F.max_pool2d(second, 2))]


class PyramidPooling(nn.Module):
    """A map and what 1x1 convolutions make of its means over coarse grids: (B, C, H, W) to (B, C + 4 * 8, H, W).

    The grids cover the image alone, without padding. Means and interpolation are products with matrices for rows and
    for columns, in which the size of the image may be a variable of an exported graph.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.points = nn.ModuleList(nn.Conv2d(channels, _POOLED, 1) for _ in _BINS)

    def forward(self, x: Tensor, sizes: Tensor) -> Tensor:
        """Extend x by the means over images of `sizes`, (B, 2) or (1, 2) int64 height and width, in its corner."""
        rows, columns = (
            torch.arange(extent, device=x.device, dtype=x.dtype if x.dtype.itemsize > 2 else torch.float32)
            for extent in x.shape[-2:]
        )
        heights, widths = sizes[:, :1].to(rows.dtype), sizes[:, 1:].to(rows.dtype)
        pixels = x.permute(0, 2, 3, 1)
        across = torch.cat([_means(columns, widths, bins) for bins in _BINS], dim=1)
        narrow = torch.matmul(across.to(x.dtype)[:, None], pixels)  # (B, H, all bins, C)
        lines = []
        for place, (bins, point) in enumerate(zip(_BINS, self.points, strict=True)):
            start = sum(_BINS[:place])
            means = torch.matmul(_means(rows, heights, bins).to(x.dtype), narrow[:, :, start : start + bins].flatten(2))
            pooled = point(torch.unflatten(means, 2, (bins, -1)).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            high = torch.matmul(_steps(rows, heights, bins).to(pooled.dtype), pooled.flatten(2))
            beside = _POOLED * place, _POOLED * (len(_BINS) - 1 - place)  # zeros, for the channels of the other grids
            lines.append(F.pad(torch.unflatten(high, 2, (bins, -1)), beside))
        across = torch.cat([_steps(columns, widths, bins) for bins in _BINS], dim=2)
        wide = torch.matmul(across.to(lines[0].dtype)[:, None], torch.cat(lines, dim=2))
        return concatenate([x, wide.permute(0, 3, 1, 2)])


def _means(places: Tensor, extents: Tensor, bins: int) -> Tensor:
    """Weights of the pixels `places` (N,) in each bin of images of `extents` (B, 1) pixels: (B, bins, N).

    Bin i covers the pixels from ``floor(i * extent / bins)`` to ``ceil((i + 1) * extent / bins)``, as
    `F.adaptive_avg_pool2d` has it.
    """
    numbers = torch.arange(bins, device=places.device, dtype=places.dtype)
    low = torch.floor(numbers * extents / bins)[..., None]
    high = torch.ceil((numbers + 1) * extents / bins)[..., None]
    inside = (places >= low) & (places < high)
    return inside / (high - low)


def _steps(places: Tensor, extents: Tensor, bins: int) -> Tensor:
    """Weights of the bins in bilinear interpolation, with aligned corners, to `extents` pixels: (B, N, bins).

    Beyond the image, at `places` in its padding, the last bin counts alone.
    """
    numbers = torch.arange(bins, device=places.device, dtype=places.dtype)
    positions = torch.clamp(places * (bins - 1) / torch.clamp(extents - 1, min=1), max=bins - 1)
    return torch.clamp(1 - (positions[..., None] - numbers).abs(), min=0)


@register("repisdnet", **vars(PUBLISHED["repisdnet"]))
class RepISDNet(Detector):
    """The detector; its convolutions start with Xavier's uniform weights."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third = self.stages
        self.encoder = Encoder(self.stages)
        self.second = _pair(second + third, second, first)
        self.first = _pair(2 * first, first, first)
        self.pyramid = PyramidPooling(first)
        self.head = nn.Conv2d(first + _POOLED * len(_BINS), first, 3, padding=1)
        self.head_norm = nn.BatchNorm2d(first)
        self.dropout = ChannelDropout(0.1)
        self.output = nn.Conv2d(first, 1, 1)
        published_init(self, nn.init.xavier_uniform_)

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the three stages to logits (B, 1, H, W)."""
        sizes = torch.tensor([features[0].shape[-2:]], device=features[0].device)
        return self.decode_padded(features, sizes)

    def decode_padded(self, features: Sequence[Tensor], sizes: Tensor) -> tuple[Tensor, ...]:
        """`decode` with pools over the images alone."""
        first, second, third = features
        x = self.second(concatenate([second, upsample(third, second)]))
        x = self.first(concatenate([first, upsample(x, first)]))
        x = conv_norm_relu(self.head, self.head_norm, self.pyramid(x, sizes))
        return (self.output(self.dropout(x)),)

    def deployed(self) -> Detector:
        """Each block's branches as one convolution: half the parameters and operations."""
        fused = copy.deepcopy(self)
        for parent in fused.modules():
            for name, child in parent.named_children():
                if isinstance(child, EdgeBlock):
                    setattr(parent, name, FusedBlock(child))
        return fused

    def output_layers(self) -> tuple[nn.Conv2d, ...]:
        """The last 1x1 convolution."""
        return (self.output,)
