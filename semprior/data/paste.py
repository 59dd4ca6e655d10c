"""Targets of one image pasted into a crop of another, so that a detector sees them before more backgrounds.

What is pasted is not the patch itself but its difference from the grey level around its target, faded out at the edge:
the texture of the new background goes on below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

REACH = 24  # pixels from the drawn pixel of a target to the border of its patch
GAP = 5  # pixels, at least, between a pasted target and those of the crop
FAINTEST = 2.0  # grey levels, at least, that a pasted target stands out by
CONTRAST = (0.5, 1.2)  # range of the factor of a pasted target's contrast
_TRIES = 10  # draws of a place
_FADE = 2  # pixels around a target over which its patch fades out


@dataclass(frozen=True)
class Patch:
    """A target without its background.

    Attributes:
        excess: (h,w) float32, grey levels above those around the target, 0 away from it.
        target: (h,w) bool, its pseudo-mask.
    """

    excess: np.ndarray
    target: np.ndarray


def cut_target(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Patch | None:
    """Cut a target out of an image; None if it has none, or the drawn one is a single pixel, a point around which
    nothing was found, or is too large or too close to a border or another target for its surroundings to be seen.

    Args:
        image: (H,W) uint8.
        mask: (H,W) uint8; target pixels have a value of at least 128.
        rng: draws the target, with a probability in proportion to its pixels.
    """
    pixels = np.flatnonzero(mask >= 128)
    if not pixels.size:
        return None
    row, column = np.unravel_index(pixels[rng.integers(pixels.size)], mask.shape)
    top, left = max(int(row) - REACH, 0), max(int(column) - REACH, 0)
    window = slice(top, int(row) + REACH + 1), slice(left, int(column) + REACH + 1)
    targets = (mask[window] >= 128).astype(np.uint8)
    labels = cv2.connectedComponents(targets, connectivity=8)[1]
    target = labels == labels[int(row) - top, int(column) - left]
    rows, columns = np.flatnonzero(target.any(1)), np.flatnonzero(target.any(0))
    edge = _FADE + 3
    if min(rows[0], columns[0]) < edge or rows[-1] + edge >= len(target) or columns[-1] + edge >= target.shape[1]:
        return None
    part = slice(rows[0] - edge, rows[-1] + edge + 1), slice(columns[0] - edge, columns[-1] + edge + 1)
    grey, target = image[window][part].astype(np.float32), target[part]
    if np.count_nonzero(target) < 2 or np.count_nonzero(targets[part]) > np.count_nonzero(target):
        return None
    near = _dilated(target, _FADE)
    around = _dilated(target, edge) & ~near
    weight = cv2.GaussianBlur(near.astype(np.float32), (0, 0), 1.0)
    return Patch((grey - np.median(grey[around])) * np.maximum(weight, target), target)


def paste(
    image: np.ndarray, mask: np.ndarray, seen: tuple[int, int], patch: Patch, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Paste a target into a crop, away from the crop's own and where it is seen; None if no such place was found.

    Args:
        image: (S,S) uint8.
        mask: (S,S) uint8, 0 and 1.
        seen: rows and columns of the crop that are part of its image and no padding.
        patch: what to paste; it is turned by quarters, mirrored and made brighter or fainter.
        rng: draws how and where.

    Returns:
        Another image, (S,S) uint8, and another mask, (S,S) uint8.
    """
    excess, target = np.rot90(patch.excess, turns := int(rng.integers(4))), np.rot90(patch.target, turns)
    if rng.random() < 0.5:
        excess, target = excess[::-1], target[::-1]
    factor = rng.uniform(*CONTRAST)
    height, width = target.shape
    rows, columns = seen[0] - height + 1, seen[1] - width + 1  # places
    if rows < 1 or columns < 1:
        return None
    taken = _dilated(mask > 0, GAP)
    for _ in range(_TRIES):
        row, column = int(rng.integers(rows)), int(rng.integers(columns))
        place = slice(row, row + height), slice(column, column + width)
        below = image[place].astype(np.float32)
        pasted = np.clip(np.rint(below + factor * excess), 0, 255)
        if (taken[place] & target).any() or not _visible(below, pasted, factor * excess, target):
            continue
        image, mask = image.copy(), mask.copy()
        image[place] = pasted.astype(np.uint8)
        mask[place] |= target
        return image, mask
    return None


def _visible(below: np.ndarray, pasted: np.ndarray, excess: np.ndarray, target: np.ndarray) -> bool:
    """Whether a pasted target keeps half of its contrast where grey levels end, and exceeds the texture below it."""
    gained, meant = abs((pasted - below)[target].mean()), abs(excess[target].mean())
    return bool(gained >= max(meant / 2, below.std(), FAINTEST))


def _dilated(mask: np.ndarray, reach: int) -> np.ndarray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0
