"""SCTransNet: a U-shape whose skips pass a transformer over the channels of all scales. 11,203,635 parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.kernels.attention import mean_pixels
from semprior.kernels.convolution import can_fold, conv_norm, conv_norm_relu, folded_conv
from semprior.kernels.layers import norm_relu
from semprior.kernels.maps import concatenate, upsample
from semprior.kernels.winograd import convolve
from semprior.models.attention import scale_channels
from semprior.models.detector import Detector, published_init, register
from semprior.models.published import PUBLISHED

_STRIDE = 16  # of the transformer's tokens, in pixels of the image
_BLOCKS = 4
_EXPANSION = 2.66  # of the feed-forward networks


class LeakyBlock(nn.Module):
    """conv-BN-LeakyReLU-conv-BN plus the input, by a 1x1 conv-BN where the widths differ.

    (B, C, H, W) to (B, C', H, W).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(conv_norm(self.first, self.first_norm, x))
        y = conv_norm(self.second, self.second_norm, y)
        return y + (x if self.shortcut is None else conv_norm(self.shortcut, self.shortcut_norm, x))


class Encoder(nn.Module):
    """Five levels of one block with maxima between them: (B, 3, H, W) to [(B, C_l, H / 2^l, W / 2^l)]."""

    def __init__(self, stages: Sequence[int]) -> None:
        super().__init__()
        widths = (3, *stages)
        self.levels = nn.ModuleList(LeakyBlock(before, width) for before, width in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = []
        for level in self.levels:
            x = level(F.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features


class PixelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel; (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, self.weight.shape, self.weight, self.bias).permute(0, 3, 1, 2)


class CrossAttention(nn.Module):
    """The channels of each scale attend to those of all scales; four maps (B, C_i, h, w) to the same shapes."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        whole = sum(widths)
        self.norms = nn.ModuleList(PixelNorm(width) for width in widths)
        self.whole_norm = PixelNorm(whole)
        self.query = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for width in widths)
        self.query_local = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width // 2, bias=False) for width in widths
        )
        self.key = nn.Conv2d(whole, whole, 1, bias=False)
        self.key_local = nn.Conv2d(whole, whole, 3, padding=1, groups=whole, bias=False)
        self.value = nn.Conv2d(whole, whole, 1, bias=False)
        self.value_local = nn.Conv2d(whole, whole, 3, padding=1, groups=whole, bias=False)
        self.project = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        whole = self.whole_norm(concatenate(maps))
        keys = _directions(self.key_local(self.key(whole))).mT
        values = self.value_local(self.value(whole))
        attended = []
        layers = zip(maps, self.norms, self.query, self.query_local, self.project, strict=True)
        for x, norm, query, local, project in layers:
            scores = _directions(local(query(norm(x)))) @ keys / math.sqrt(values.shape[1])
            if scores.dtype == torch.bfloat16:
                scores = scores.float()
            scores = F.layer_norm(scores, scores.shape[1:])  # an instance norm: (B, C_i, C) are pixels of one channel
            mixed = torch.softmax(scores, dim=-1).to(values.dtype) @ values.flatten(2)
            attended.append(x + project(mixed.unflatten(2, x.shape[2:])))
        return attended


def _directions(x: Tensor) -> Tensor:
    """Each channel's pixels, (B, C, h, w) to (B, C, h w), with length 1."""
    return F.normalize(x.flatten(2), dim=-1)


class FeedForward(nn.Module):
    """1x1 conv, depthwise 3x3 and 5x5 conv-ReLU of half the channels each, 1x1 conv, channel weights, plus the input.

    (B, C, h, w) to the same shape. A channel's weight follows from its mean and those of its two neighbours.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = math.floor(_EXPANSION * channels)
        self.norm = PixelNorm(channels)
        self.widen = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.far = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False)
        self.narrow = nn.Conv2d(2 * hidden, channels, 1, bias=False)
        self.neighbours = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.widen(self.norm(x)).chunk(2, dim=1)
        y = self.narrow(concatenate([F.relu(self.near(near)), F.relu(self.far(far))]))
        y, mean = mean_pixels(y)
        weights = torch.sigmoid(self.neighbours(mean.flatten(1)[:, None]))[:, 0]
        return x + scale_channels(y, weights)


class TransformerBlock(nn.Module):
    """Attention across scales, then a feed-forward network a scale; four maps (B, C_i, h, w) to the same shapes."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.attention = CrossAttention(widths)
        self.feed_forward = nn.ModuleList(FeedForward(width) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        attended = self.attention(maps)
        return [feed(x) for feed, x in zip(self.feed_forward, attended, strict=True)]


class Reconstruction(nn.Module):
    """A scale's tokens, interpolated to its stage: norm, up, 1x1 conv-BN-ReLU, plus twice the stage's map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = PixelNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 1)
        self.conv_norm = nn.BatchNorm2d(channels)

    def forward(self, tokens: Tensor, skip: Tensor) -> Tensor:
        # The 1x1 convolution comes first, on fewer pixels: it and the interpolation commute; see ALCLNet's fusion.
        tokens = self.norm(tokens)
        if can_fold(self.conv_norm, skip):
            x = F.relu_(self._up(folded_conv(self.conv, self.conv_norm, tokens, "none"), skip))
        else:
            x = norm_relu(self.conv_norm, self._up(convolve(self.conv, tokens), skip))
        return torch.add(x, skip, alpha=2)

    @staticmethod
    def _up(tokens: Tensor, skip: Tensor) -> Tensor:
        return F.interpolate(tokens, skip.shape[-2:], mode="bilinear", align_corners=False)


class GatedDecoder(nn.Module):
    """Nearest x2, the skip times a weight per channel that follows from both maps, two conv-BN-ReLU.

    (B, C', H/2, W/2) and (B, C, H, W) to (B, C'', H, W).
    """

    def __init__(self, high: int, low: int, outputs: int) -> None:
        super().__init__()
        self.of_low = nn.Linear(low, low)
        self.of_high = nn.Linear(high, low)
        self.first = nn.Conv2d(high + low, outputs, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(outputs)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        # the mean of a map is that of its nearest-neighbour enlargement
        low, mean_low = mean_pixels(low)
        high, mean_high = mean_pixels(high)
        gate = torch.sigmoid((self.of_low(mean_low.flatten(1)) + self.of_high(mean_high.flatten(1))) / 2)
        low = F.relu_(scale_channels(low, gate))
        high = F.interpolate(high, low.shape[-2:], mode="nearest")
        x = conv_norm_relu(self.first, self.first_norm, concatenate([low, high]))
        return conv_norm_relu(self.second, self.second_norm, x)


@register("sctransnet", **vars(PUBLISHED["sctransnet"]))
class SCTransNet(Detector):
    """The detector; its layers start with Kaiming's normal weights, fan-in. It has no position embeddings."""

    def __init__(self) -> None:
        super().__init__()
        *widths, last = self.stages
        self.encoder = Encoder(self.stages)
        self.patches = nn.ModuleList(
            nn.Conv2d(width, width, _STRIDE >> level, stride=_STRIDE >> level) for level, width in enumerate(widths)
        )
        self.transformer = nn.ModuleList(TransformerBlock(widths) for _ in range(_BLOCKS))
        self.reconstruction = nn.ModuleList(Reconstruction(width) for width in widths)
        outputs = (*widths[:1], *widths[:-1])
        self.decoder = nn.ModuleList(
            GatedDecoder(high, low, output)
            for high, low, output in zip((*widths[:-1], last), widths, outputs, strict=True)
        )
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in (*outputs, last))
        self.main = nn.Conv2d(len(self.sides), 1, 1)
        published_init(self, nn.init.kaiming_normal_)

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of the five stages to six logits (B, 1, H, W): the main ones, then those of strides 1 to 16."""
        *skips, x = features
        tokens = [patch(skip) for patch, skip in zip(self.patches, skips, strict=True)]
        for block in self.transformer:
            tokens = block(tokens)
        skips = [make(token, skip) for make, token, skip in zip(self.reconstruction, tokens, skips, strict=True)]
        decoded = [x]
        for level, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            decoded.insert(0, level(decoded[0], skip))
        sides = [side(x) for side, x in zip(self.sides, decoded, strict=True)]
        sides = [sides[0], *(upsample(side, sides[0]) for side in sides[1:])]
        return (self.main(concatenate(sides)), *sides)

    def output_layers(self) -> tuple[nn.Conv2d, ...]:
        """The 1x1 convolution of the main logits and those of the sides."""
        return (self.main, *(cast(nn.Conv2d, side) for side in self.sides))

    def fusion_layer(self) -> nn.Conv2d:
        """The convolution of the main logits, over those of the sides."""
        return self.main
