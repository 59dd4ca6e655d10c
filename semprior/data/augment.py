"""Augmentation of 8-bit crops: three transforms, drawn with replacement (method, section 7)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import cv2
import numpy as np
import torch

ImageAndMask = tuple[np.ndarray, np.ndarray]  # (H,W) or (H,W,3) uint8, (H,W) uint8
Transform = Callable[[np.ndarray, np.ndarray, np.random.Generator], ImageAndMask]


def _vertical_flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImageAndMask:
    return image[::-1], mask[::-1]


def _horizontal_flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImageAndMask:
    return image[:, ::-1], mask[:, ::-1]


def _transpose(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImageAndMask:
    return np.swapaxes(image, 0, 1), mask.T


def _rot90(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImageAndMask:
    turns = int(rng.integers(4))
    return np.rot90(image, turns), np.rot90(mask, turns)


def _brightness(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, truncate: bool = False) -> ImageAndMask:
    return _look_up(image, np.arange(256) + rng.uniform(-0.3, 0.3) * 255, truncate), mask


def _contrast(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, truncate: bool = False) -> ImageAndMask:
    return _look_up(image, np.arange(256) * (1 + rng.uniform(-0.3, 0.3)), truncate), mask


def _rotation(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImageAndMask:
    return _warp(image, mask, angle=rng.uniform(-45, 45))


def _shift(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImageAndMask:
    dx, dy = rng.uniform(-0.1, 0.1, 2)
    return _warp(image, mask, dx=dx * mask.shape[1], dy=dy * mask.shape[0])


def _scale(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImageAndMask:
    return _warp(image, mask, scale=rng.uniform(0.8, 1.2))


def _noise(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, truncate: bool = False) -> ImageAndMask:
    deviation = math.sqrt(rng.uniform(10, 50))
    seed = int(rng.integers(np.iinfo(np.int64).max))
    # torch draws normal variates four times as fast as numpy.
    noise = torch.empty((*image.shape[:2], 3)).normal_(0, deviation, generator=torch.Generator().manual_seed(seed))
    noise += torch.from_numpy(np.ascontiguousarray(image if image.ndim == 3 else image[..., None]))
    noise = noise if truncate else noise.round_()
    return noise.clamp_(0, 255).to(torch.uint8).numpy(), mask


def _identity(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> ImageAndMask:
    return image, mask


TRANSFORMS: tuple[tuple[Transform, float], ...] = (
    (_vertical_flip, 0.5),
    (_horizontal_flip, 0.5),
    (_transpose, 0.5),
    (_rot90, 0.5),
    (_brightness, 0.2),
    (_contrast, 0.2),
    (_rotation, 0.3),
    (_shift, 0.5),
    (_scale, 0.5),
    (_noise, 0.2),
    (_identity, 0.5),
    (_identity, 0.5),
)
"""The transforms and their weights in the draw."""

_TRUNCATED: dict[Transform, Transform] = {
    transform: functools.partial(transform, truncate=True) for transform in (_brightness, _contrast, _noise)
}
_WEIGHTS = np.array([weight for _, weight in TRANSFORMS])
_CUMULATED = np.cumsum(_WEIGHTS / _WEIGHTS.sum())


def augment(
    image: np.ndarray, mask: np.ndarray, probability: float, rng: np.random.Generator, truncate: bool = False
) -> ImageAndMask:
    """With `probability`, apply three transforms that are drawn with replacement, in the order of the draw.

    Args:
        image: (S,S) uint8, a square grey crop.
        mask: (S,S) uint8, resampled by nearest neighbour, which preserves its values.
        probability: of augmenting at all.
        rng: the source of randomness.
        truncate: whether new grey levels lose their fraction, as published, rather than being rounded.

    Returns:
        The image, (S,S) uint8, or (S,S,3) if noise made its channels differ; and the mask, (S,S) uint8.
    """
    if rng.random() >= probability:
        return image, mask
    for drawn in np.searchsorted(_CUMULATED, rng.random(3), side="right"):
        transform = TRANSFORMS[min(int(drawn), len(TRANSFORMS) - 1)][0]
        image, mask = (_TRUNCATED.get(transform, transform) if truncate else transform)(image, mask, rng)
    return image, mask


def _look_up(image: np.ndarray, values: np.ndarray, truncate: bool) -> np.ndarray:
    table = np.clip(values if truncate else np.rint(values), 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(image), table)


def _warp(
    image: np.ndarray, mask: np.ndarray, angle: float = 0.0, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0
) -> ImageAndMask:
    """Rotate and scale about the centre, then shift; the border is mirrored (reflect-101)."""
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += np.array((dx, dy))
    size, border = (width, height), cv2.BORDER_REFLECT_101
    image = cv2.warpAffine(np.ascontiguousarray(image), matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
    if mask.any():  # an empty mask stays empty
        mask = cv2.warpAffine(np.ascontiguousarray(mask), matrix, size, flags=cv2.INTER_NEAREST, borderMode=border)
    return image, mask
