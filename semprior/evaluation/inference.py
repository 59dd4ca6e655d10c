"""Inference on whole images, by a detector or a teacher (method, section 7).

An image of more than 2^20 pixels is processed in overlapping tiles (`semprior.evaluation.tiles`). (**Ours**: the
published protocol cuts images whose sides both exceed 1024 into tiles without overlap.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from semprior.data.batches import Normalisation, normalise
from semprior.errors import UserError
from semprior.evaluation.tiles import AsInWhole, each_tile, padded
from semprior.models.teacher import Teacher

_PIXELS_AT_ONCE = 1 << 20

WholeFeatures = Callable[[Sequence[int] | None, Tensor], list[Tensor]]
"""Computes features of padded images: (their indices, or None for a tile; grey (B,1,H,W) in 0..1) -> K maps."""

Network = Callable[[Sequence[int] | None, Tensor, Tensor], Tensor]
"""Computes logits: (indices of images, or None for a tile; padded grey levels (B,1,H,W) uint8; heights and widths (B,2)
int64 without the padding) -> (B,1,H,W)."""

Probabilities = Iterator[tuple[int, np.ndarray]]
"""Yields the index of an image and its probabilities (H,W) float32; images of one padded size follow each other."""


class NonFiniteOutputError(UserError):
    """The probabilities that a network computes are not numbers, though its weights are."""


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

    Raises:
        NonFiniteOutputError: a probability is not a number.
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
    network: Network, images: Sequence[np.ndarray], device: torch.device, bf16: bool, whole: int | None = None
) -> Probabilities:
    """The probabilities of any network, with one batch at a time in memory.

    Args:
        network: computes the logits; it receives a large image in tiles.
        images: (H,W) uint8 each, of any size.
        device: of the network.
        bf16: whether to run it in bfloat16.
        whole: number of pixels, with padding, up to which it receives an image as a whole; None for 2^20.
    """
    whole = _PIXELS_AT_ONCE if whole is None else whole
    for indices, grey in _same_size_batches(images):
        grey = grey.to(device)
        sizes = torch.tensor([images[index].shape for index in indices], device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            tiled = grey.shape[-2] * grey.shape[-1] > whole
            logits = _tiled(network, grey, sizes) if tiled else network(indices, grey, sizes)
        probability = torch.sigmoid(logits.float())[:, 0].cpu().numpy()
        if np.isnan(probability).any():
            raise NonFiniteOutputError("the output of the network is not a number: its weights overflow")
        for index, values in zip(indices, probability, strict=True):
            height, width = images[index].shape
            yield index, values[:height, :width]


def _same_size_batches(images: Sequence[np.ndarray]) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of images with the same padded size: their indices and (B,1,H,W) uint8, padded with 0."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        groups[padded(image.shape[0]), padded(image.shape[1])].append(index)
    for (height, width), members in groups.items():
        at_once = max(1, _PIXELS_AT_ONCE // (height * width))
        for start in range(0, len(members), at_once):
            chunk = members[start : start + at_once]
            stack = np.zeros((len(chunk), 1, height, width), np.uint8)
            for slot, index in enumerate(chunk):
                image = images[index]
                stack[slot, 0, : image.shape[0], : image.shape[1]] = image
            yield chunk, torch.from_numpy(stack)


def _tiled(network: Network, grey: Tensor, sizes: Tensor) -> Tensor:
    """Logits of one image (1,1,H,W), float32, from overlapping tiles; the network runs on each separately."""
    logits = torch.zeros(grey.shape, dtype=torch.float32, device=grey.device)
    for tile, weights in each_tile(*grey.shape[-2:]):
        (row, column), (height, width) = tile.start, tile.size
        part = (..., slice(row, row + height), slice(column, column + width))
        within = torch.minimum(sizes - sizes.new_tensor(tile.start), sizes.new_tensor(tile.size))
        with AsInWhole(tile):
            logits[part] += network(None, grey[part], within).float() * weights.to(grey.device)
    return logits
