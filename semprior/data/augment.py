"""Augmentation of 8-bit crops (method, section 7): three transforms with replacement, in the order drawn."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch

Pair = tuple[np.ndarray, np.ndarray]  # image (H,W) or (H,W,3) uint8, mask (H,W) uint8


def _vertical_flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return image[::-1], mask[::-1]


def _horizontal_flip(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return image[:, ::-1], mask[:, ::-1]


def _transpose(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return np.swapaxes(image, 0, 1), mask.T


def _rot90(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    turns = int(rng.integers(4))
    return np.rot90(image, turns), np.rot90(mask, turns)


def _brightness(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return _look_up(image, np.arange(256) + rng.uniform(-0.3, 0.3) * 255), mask


def _contrast(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return _look_up(image, np.arange(256) * (1 + rng.uniform(-0.3, 0.3))), mask


def _rotation(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return _warp(image, mask, angle=rng.uniform(-45, 45))


def _shift(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    dx, dy = rng.uniform(-0.1, 0.1, 2)
    return _warp(image, mask, dx=dx * mask.shape[1], dy=dy * mask.shape[0])


def _scale(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return _warp(image, mask, scale=rng.uniform(0.8, 1.2))


def _noise(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    deviation = math.sqrt(rng.uniform(10, 50))
    seed = int(rng.integers(np.iinfo(np.int64).max))
    # torch draws normal numbers four times as fast as numpy.
    noise = torch.empty((*image.shape[:2], 3)).normal_(0, deviation, generator=torch.Generator().manual_seed(seed))
    noise += torch.from_numpy(np.ascontiguousarray(image if image.ndim == 3 else image[..., None]))
    return noise.round_().clamp_(0, 255).to(torch.uint8).numpy(), mask


def _nothing(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return image, mask


TRANSFORMS: tuple[tuple[Callable[[np.ndarray, np.ndarray, np.random.Generator], Pair], float], ...] = (
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
    (_nothing, 0.5),
    (_nothing, 0.5),
)
"""Every transform with its weight in the draw."""

_WEIGHTS = np.array([weight for _, weight in TRANSFORMS])
_CUMULATED = np.cumsum(_WEIGHTS / _WEIGHTS.sum())


def augment(image: np.ndarray, mask: np.ndarray, probability: float, rng: np.random.Generator) -> Pair:
    """With `probability`, three transforms drawn with replacement, in the order drawn.

    Args:
        image: (S,S) uint8, a square grey crop.
        mask: (S,S) uint8, moved along with the image by nearest neighbour; its values stay.
        probability: of augmenting at all.
        rng: draws everything.

    Returns:
        Image, (S,S) or, where noise made its channels differ, (S,S,3) uint8; and mask, (S,S) uint8.
    """
    if rng.random() >= probability:
        return image, mask
    for drawn in np.searchsorted(_CUMULATED, rng.random(3), side="right"):
        image, mask = TRANSFORMS[min(int(drawn), len(TRANSFORMS) - 1)][0](image, mask, rng)
    return image, mask


def _look_up(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    table = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(image), table)


def _warp(
    image: np.ndarray, mask: np.ndarray, angle: float = 0.0, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0
) -> Pair:
    """Turn, scale and shift about the centre; reflect-101 borders."""
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += (dx, dy)
    size, border = (width, height), cv2.BORDER_REFLECT_101
    image = cv2.warpAffine(np.ascontiguousarray(image), matrix, size, flags=cv2.INTER_LINEAR, borderMode=border)
    if mask.any():  # without targets it stays as it is
        mask = cv2.warpAffine(np.ascontiguousarray(mask), matrix, size, flags=cv2.INTER_NEAREST, borderMode=border)
    return image, mask
