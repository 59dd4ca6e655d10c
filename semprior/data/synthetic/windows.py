"""Windows around one made-up target each, whose mask is known: what the generator of masks learns from.

A target is opaque, has texture, is blurred by optics, may be sharpened by the camera, and has the noise of its
background. Its mask ends where an annotator would see its edge: where the blurred silhouette falls below a share of its
peak, and the share differs from annotator to annotator.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from semprior.data.synthetic.backgrounds import BACKGROUNDS
from semprior.data.synthetic.scenes import BACKGROUND_SHARES, sensed
from semprior.data.synthetic.silhouettes import draw_silhouette

SMALLEST, LARGEST = 2, 1500  # area of a mask, pixels
EDGE = (0.27, 0.47)  # share of the peak of the blurred silhouette at which a mask ends
DARK = 0.04  # share of targets that are darker than their surroundings
CENTRED = 0.65  # share of points at the centroid of a mask; the others are any pixel of it
GENEROUS = 0.15  # share of masks with a rim of one pixel around what is seen
FARTHEST = 12  # pixels from the centre of a target to its point, in rows or columns
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True)
class LabelledWindow:
    """A window whose centre is the point of its target.

    Attributes:
        image: (S,S) uint8, grey.
        mask: (S,S) bool, of the target.
    """

    image: np.ndarray
    mask: np.ndarray


def draw_background(rng: np.random.Generator, side: int) -> np.ndarray:
    """A background (side,side) uint8 without targets."""
    kind = str(rng.choice(list(BACKGROUND_SHARES), p=list(BACKGROUND_SHARES.values())))
    radiance = _blurred(BACKGROUNDS[kind](rng, (side, side)), rng.uniform(0.6, 1.0))
    return sensed(rng, np.clip(radiance, 4, 250), float(np.exp(rng.uniform(np.log(0.4), np.log(4)))))


def draw_window(rng: np.random.Generator, background: np.ndarray, side: int) -> LabelledWindow:
    """Put a target on a part of a background.

    Args:
        rng: the source of randomness.
        background: (H,W) uint8, at least side + 2 `FARTHEST` each.
        side: of the window, odd.
    """
    while True:
        window = _attempt(rng, _part(rng, background, side + 2 * FARTHEST), side)
        if window is not None:
            return window


def _part(rng: np.random.Generator, background: np.ndarray, side: int) -> np.ndarray:
    top, left = (int(rng.integers(0, length - side + 1)) for length in background.shape)
    part = background[top : top + side, left : left + side].astype(np.float32)
    if rng.random() < 0.5:
        part = part[:, ::-1]
    if rng.random() < 0.15:
        part = _blurred(part, rng.uniform(0.5, 1.5))
    return part * rng.uniform(0.5, 1.2) if rng.random() < 0.5 else part


def _attempt(rng: np.random.Generator, background: np.ndarray, side: int) -> LabelledWindow | None:
    """A window of a target, or None if the target is too small or large, in pieces, or not to be seen."""
    area = _area(rng)
    covered = draw_silhouette(rng, area, len(background))
    blur = np.exp(rng.uniform(np.log(0.35), np.log(1.3))) * np.sqrt(1 + 0.25 * np.log2(max(area / 60, 1)))
    alpha = _blurred(covered, blur)
    if alpha.max() < 0.02:
        return None
    alpha /= alpha.max()
    mask = _largest_piece(alpha > rng.uniform(*EDGE))
    if mask is None or not SMALLEST <= np.count_nonzero(mask) <= LARGEST:
        return None
    grain = _grain(background)
    amplitude = np.exp(rng.uniform(np.log(max(3 * grain, 5)), np.log(180))) * (-1 if rng.random() < DARK else 1)
    base = float(np.median(background[mask]))
    target = base + amplitude * _texture(rng, mask, area)
    weight = _blurred(covered, blur)
    target = np.where(weight > 1e-3, _blurred(target * covered, blur) / np.maximum(weight, 1e-3), base)
    image = background * (1 - alpha) + target * alpha
    if rng.random() < 0.3:  # sharpened by the camera, with a halo
        near = _blurred((alpha > 0.02).astype(np.float32), 1.5)
        image = image + rng.uniform(0.2, 1.0) * (image - _blurred(image, rng.uniform(0.8, 1.6))) * near
    image = image + alpha * rng.standard_normal(image.shape) * grain * rng.uniform(0.3, 1)
    if rng.random() < 0.25:
        image = image + rng.standard_normal(image.shape) * rng.uniform(0, 3)
    image = np.clip(np.rint(image), 0, 255)
    if np.abs(image - background)[mask].mean() < 2.5 * max(grain, 0.7):
        return None
    if rng.random() < GENEROUS:
        mask = cv2.dilate(mask.view(np.uint8), _CROSS) > 0
    return _centred_on_point(rng, image.astype(np.uint8), mask, side)


def _area(rng: np.random.Generator) -> float:
    low, high = (3, 200) if rng.random() < 0.75 else (60, 1100)
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _largest_piece(mask: np.ndarray) -> np.ndarray | None:
    """The largest 8-connected piece, or None if others hold more than 15 % of its pixels, or there is none."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    if count < 2:
        return None
    areas = statistics[1:, cv2.CC_STAT_AREA]
    return labels == 1 + int(areas.argmax()) if areas.sum() <= 1.15 * areas.max() else None


def _grain(background: np.ndarray) -> float:
    """The noise around the centre: a robust standard deviation of what a blur takes away."""
    middle = len(background) // 2
    fine = (background - _blurred(background, 1.2))[middle - 12 : middle + 13, middle - 12 : middle + 13]
    return 1.4826 * float(np.median(np.abs(fine)))


def _texture(rng: np.random.Generator, mask: np.ndarray, area: float) -> np.ndarray:
    """How bright each pixel of a target is, 1 at the 90th percentile: a slope, patches, a hot spot."""
    size, middle = np.sqrt(area), len(mask) // 2
    rows, columns = np.mgrid[-middle : middle + 1, -middle : middle + 1].astype(np.float32)
    texture = np.ones(mask.shape, np.float32)
    if rng.random() < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
        texture += rng.uniform(0, 0.6) * (np.cos(angle) * rows + np.sin(angle) * columns) / size
    if rng.random() < 0.6:
        patches = _blurred(rng.standard_normal(mask.shape).astype(np.float32), max(1.0, 0.2 * size))
        texture += rng.uniform(0, 0.4) * patches / patches.std()
    if rng.random() < 0.35 and area > 15:
        pixels = np.argwhere(mask)
        row, column = pixels[rng.integers(len(pixels))] - middle
        reach = rng.uniform(0.1, 0.35) * size + 0.5
        texture += rng.uniform(0.3, 2) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * reach**2))
    texture = np.clip(texture, 0.25, 4)
    scaled: np.ndarray = texture / np.percentile(texture[mask], 90)
    return scaled


def _centred_on_point(
    rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, side: int
) -> LabelledWindow | None:
    pixels = np.argwhere(mask)
    centred = rng.random() < CENTRED
    point = np.rint(pixels.mean(0)).astype(int) if centred else pixels[rng.integers(len(pixels))]
    top, left = (point - side // 2).tolist()
    if min(top, left) < 0 or max(top, left) + side > len(image):
        return None
    window = (slice(top, top + side), slice(left, left + side))
    return LabelledWindow(np.ascontiguousarray(image[window]), np.ascontiguousarray(mask[window]))


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma)
