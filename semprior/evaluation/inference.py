"""Inference on whole images, by a detector or a teacher (method, section 7).

**Tiles.** An image of more than 2^20 pixels is processed in tiles, so that memory does not grow with it. Neighbouring
tiles overlap. The outer `CONTEXT` pixels of a tile do not count, as their logits lack context; between those of two
neighbours, the weight passes linearly from one tile to the other. The weights at a pixel sum to one, so that a network
whose receptive field reaches no further than `CONTEXT` pixels gives the logits of the whole image, and one that reaches
further changes gradually from tile to tile. ALCLNet and MLCLNet differ from the whole image for another reason, too:
their interpolation (``align_corners``) places coarse maps by the extent of what they are given, a tile or the image.
Tiles begin at multiples of `MULTIPLE`, where pooling and strides begin in the whole image, too. (**Ours**: the
published protocol cuts images whose sides both exceed 1024 into tiles without overlap.)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from semprior.data.batches import Normalisation, normalise
from semprior.models.teacher import Teacher

MULTIPLE = 32  # of the sides of padded images and tiles
TILE = 1024  # pixels that a side of a tile has at most
CONTEXT = 96  # pixels at a tile's inner border whose logits do not count
OVERLAP = 256  # pixels that neighbouring tiles share at least; a multiple of MULTIPLE
_PIXELS_AT_ONCE = 1 << 20

WholeFeatures = Callable[[Sequence[int] | None, Tensor], list[Tensor]]
"""Computes features of padded images: (their indices, or None for a tile; grey (B,1,H,W) in 0..1) -> K maps."""

Network = Callable[[Sequence[int] | None, Tensor, Tensor], Tensor]
"""Computes logits: (indices of images, or None for a tile; padded grey levels (B,1,H,W) uint8; heights and widths (B,2)
int64 without the padding) -> (B,1,H,W)."""

Probabilities = Iterator[tuple[int, np.ndarray]]
"""Yields the index of an image and its probabilities (H,W) float32; images of one padded size follow each other."""


def student_probabilities(
    detector: nn.Module,
    images: Sequence[np.ndarray],
    normalisation: Normalisation,
    device: torch.device,
    bf16: bool,
) -> list[np.ndarray]:
    """The probability of a target at every pixel, by the student without modulation.

    Args:
        detector: in eval mode; called as ``detector(x, sizes) -> logits (B,1,H,W)``, see `Detector.forward`.
        images: (H,W) uint8 each, of any size.
        normalisation: of grey levels.
        device: of the detector.
        bf16: whether to run the network in bfloat16.

    Returns:
        (H,W) float32 for each image.
    """
    return in_order(iter_student_probabilities(detector, images, normalisation, device, bf16))


def teacher_probabilities(
    teacher: Teacher,
    images: Sequence[np.ndarray],
    features: WholeFeatures,
    normalisation: Normalisation,
    device: torch.device,
    bf16: bool,
) -> list[np.ndarray]:
    """Like `student_probabilities`, by the teacher; `features` computes the VFM's maps of the padded images."""
    return in_order(iter_teacher_probabilities(teacher, images, features, normalisation, device, bf16))


def iter_student_probabilities(
    detector: nn.Module,
    images: Sequence[np.ndarray],
    normalisation: Normalisation,
    device: torch.device,
    bf16: bool,
) -> Probabilities:
    """Like `student_probabilities`, with one batch at a time in memory."""

    def network(_: Sequence[int] | None, grey: Tensor, sizes: Tensor) -> Tensor:
        logits: Tensor = detector(_normal(grey, normalisation), sizes)
        return logits

    return iter_probabilities(network, images, device, bf16)


def iter_teacher_probabilities(
    teacher: Teacher,
    images: Sequence[np.ndarray],
    features: WholeFeatures,
    normalisation: Normalisation,
    device: torch.device,
    bf16: bool,
) -> Probabilities:
    """Like `teacher_probabilities`, with one batch at a time in memory."""

    def network(indices: Sequence[int] | None, grey: Tensor, sizes: Tensor) -> Tensor:
        logits: Tensor = teacher(_normal(grey, normalisation), features(indices, grey.float() / 255), sizes)
        return logits

    return iter_probabilities(network, images, device, bf16)


def in_order(probabilities: Probabilities) -> list[np.ndarray]:
    """The probabilities of all images, in the order of the images."""
    return [probability for _, probability in sorted(probabilities, key=lambda pair: pair[0])]


def _normal(grey: Tensor, normalisation: Normalisation) -> Tensor:
    return normalise(grey.expand(-1, 3, -1, -1), normalisation)


@torch.no_grad()
def iter_probabilities(
    network: Network, images: Sequence[np.ndarray], device: torch.device, bf16: bool
) -> Probabilities:
    """The probabilities of any network, with one batch at a time in memory.

    Args:
        network: computes the logits; it receives a large image in tiles.
        images: (H,W) uint8 each, of any size.
        device: of the network.
        bf16: whether to run it in bfloat16.
    """
    for indices, grey in _same_size_batches(images):
        grey = grey.to(device)
        sizes = torch.tensor([images[index].shape for index in indices], device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = _tiled(network, grey, sizes) if _needs_tiles(grey) else network(indices, grey, sizes)
        probability = torch.sigmoid(logits.float())[:, 0].cpu().numpy()
        for index, whole in zip(indices, probability, strict=True):
            height, width = images[index].shape
            yield index, whole[:height, :width]


def _same_size_batches(images: Sequence[np.ndarray]) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of images with the same padded size: their indices and (B,1,H,W) uint8, padded with 0."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[_padded(image.shape[0]), _padded(image.shape[1])].append(index)
    for (height, width), members in groups.items():
        at_once = max(1, _PIXELS_AT_ONCE // (height * width))
        for start in range(0, len(members), at_once):
            chunk = members[start : start + at_once]
            stack = np.zeros((len(chunk), 1, height, width), np.uint8)
            for slot, index in enumerate(chunk):
                image = images[index]
                stack[slot, 0, : image.shape[0], : image.shape[1]] = image
            yield chunk, torch.from_numpy(stack)


def _padded(extent: int) -> int:
    return -(-extent // MULTIPLE) * MULTIPLE


def _needs_tiles(grey: Tensor) -> bool:
    height, width = grey.shape[-2:]
    return height * width > _PIXELS_AT_ONCE


def _tiled(network: Network, grey: Tensor, sizes: Tensor) -> Tensor:
    """Logits of one image (1,1,H,W), float32, from overlapping tiles; the network runs on each separately."""
    logits = torch.zeros(grey.shape, dtype=torch.float32, device=grey.device)
    height, width = grey.shape[-2:]
    for row, row_weights in tiles(height):
        for column, column_weights in tiles(width):
            tile = (..., slice(row, row + len(row_weights)), slice(column, column + len(column_weights)))
            weights = torch.outer(row_weights, column_weights).to(grey.device)
            within = torch.minimum(sizes - sizes.new_tensor([row, column]), sizes.new_tensor(grey[tile].shape[-2:]))
            logits[tile] += network(None, grey[tile], within).float() * weights
    return logits


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
    length = _padded(math.ceil((extent + (count - 1) * OVERLAP) / count))
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
