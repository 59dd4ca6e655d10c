"""Synthetic point-spread targets of the four kinds that the paper names, placed on a background.

Each is a sum of Gaussian spots at sub-pixel positions: the image of a source too small to resolve.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

KINDS = {"salient": 0.4, "filamentary": 0.2, "faint": 0.2, "camouflaged": 0.2}
"""The kinds of targets and their shares."""

MASK_FRACTION = 0.35
"""A pixel belongs to a target where its contribution exceeds this share of the target's peak."""

SMALLEST, LARGEST = 4, 80  # area of a mask, pixels
GAP = 4  # least distance between the masks of two targets, pixels
MARGIN = 8  # pixels between a target's centre and the border
REACH = 16  # half the side of the patch that a target is drawn in


@dataclass(frozen=True)
class Target:
    """A target on its own patch.

    Attributes:
        light: (2 REACH + 1, 2 REACH + 1) float32, its contribution in grey levels at amplitude 1.
        mask: the same shape, bool.
    """

    light: np.ndarray
    mask: np.ndarray


def draw_target(rng: np.random.Generator, kind: str) -> Target:
    """Draw a target whose mask is one component of 4 to 80 pixels.

    Args:
        rng: the source of randomness.
        kind: one of `KINDS`.
    """
    while True:
        light = _filament(rng) if kind == "filamentary" else _blob(rng, kind)
        light /= light.max()
        mask = light > MASK_FRACTION
        pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
        if pieces == 1 and SMALLEST <= mask.sum() <= LARGEST:
            return Target(light, mask)


def _spot(centre: np.ndarray, sigmas: tuple[float, float], angle: float) -> np.ndarray:
    rows, columns = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1].astype(np.float32)
    rows, columns = rows - centre[0], columns - centre[1]
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    spot: np.ndarray = np.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2)).astype(np.float32)
    return spot


def _blob(rng: np.random.Generator, kind: str) -> np.ndarray:
    """A spot; a salient one may have some shape, like a near aircraft."""
    sigma = rng.uniform(1.0, 2.4) if kind == "salient" else rng.uniform(0.9, 1.7)
    centre = rng.uniform(-0.5, 0.5, 2)
    light = _spot(centre, (sigma * rng.uniform(1, 1.5), sigma), rng.uniform(0, np.pi))
    if kind == "salient" and rng.random() < 0.5:
        for _ in range(rng.integers(1, 4)):
            part = centre + rng.normal(0, sigma, 2)
            light += rng.uniform(0.4, 1.0) * _spot(part, (sigma, 0.6 * sigma), rng.uniform(0, np.pi))
        light = np.minimum(light, 0.85 * light.max())  # near sources have a flat top
    return light


def _filament(rng: np.random.Generator) -> np.ndarray:
    """A thin streak, straight or slightly bent, brighter towards one end."""
    length, width, angle = rng.uniform(6, 17), rng.uniform(0.7, 1.1), rng.uniform(0, np.pi)
    bend, fall = rng.normal(0, 0.012), rng.uniform(0, 0.6)
    light = np.zeros((2 * REACH + 1, 2 * REACH + 1), np.float32)
    for step in np.linspace(-0.5, 0.5, 24):
        along, across = step * length, bend * (step * length) ** 2
        centre = np.array(
            [along * np.sin(angle) + across * np.cos(angle), along * np.cos(angle) - across * np.sin(angle)]
        )
        light += (1 - fall * (step + 0.5)) * _spot(centre, (width, width), 0.0)
    return light


def add_target(
    rng: np.random.Generator, radiance: np.ndarray, mask: np.ndarray, kind: str, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Place one target on a background where its kind belongs; without room for it, return both arguments unchanged.

    Faint targets lie on calm background, at a few times the noise; camouflaged ones lie on clutter, hardly brighter
    than the structures around them.

    Args:
        rng: the source of randomness.
        radiance: (H,W) float32 in grey levels.
        mask: (H,W) bool, the targets placed so far.
        kind: one of `KINDS`.
        noise: standard deviation of the sensor's noise in grey levels.

    Returns:
        Radiance and mask with the target added.
    """
    target = draw_target(rng, kind)
    taken = cv2.dilate(mask.astype(np.uint8), np.ones((2 * GAP + 1, 2 * GAP + 1), np.uint8)) > 0
    mean, spread = _surroundings(radiance)
    best: tuple[float, int, int, float] | None = None
    for _ in range(40):
        row, column = (int(rng.integers(MARGIN, side - MARGIN)) for side in radiance.shape)
        amplitude = _amplitude(rng, kind, float(spread[row, column]), noise)
        inside = _paste(np.zeros(mask.shape, bool), target.mask, row, column)
        if inside.sum() < target.mask.sum() or (inside & taken).any():
            continue
        if mean[row, column] + 2 * spread[row, column] + amplitude > 250:  # would saturate
            continue
        cost = {"faint": spread[row, column], "camouflaged": -spread[row, column]}.get(kind, 0.0)
        if best is None or cost < best[0]:
            best = (float(cost), row, column, amplitude)
    if best is None:
        return radiance, mask
    _, row, column, amplitude = best
    light = _paste(np.zeros_like(radiance), amplitude * target.light, row, column)
    return radiance + light, mask | _paste(np.zeros_like(mask), target.mask, row, column)


def _amplitude(rng: np.random.Generator, kind: str, spread: float, noise: float) -> float:
    """The peak of a target, in grey levels, over a background of the local standard deviation `spread`."""
    clutter = float(np.hypot(spread, noise))
    if kind == "faint":
        return max(9.0, rng.uniform(4, 7) * clutter)
    if kind == "camouflaged":
        return max(14.0, rng.uniform(2, 3.5) * clutter)
    return max(rng.uniform(50, 150) if kind == "salient" else rng.uniform(30, 100), 4 * clutter)


def _surroundings(radiance: np.ndarray, side: int = 21) -> tuple[np.ndarray, np.ndarray]:
    """Local mean and standard deviation, (H,W) each, over windows of `side` pixels."""
    image = radiance.astype(np.float64)
    mean = cv2.blur(image, (side, side))
    variance = cv2.blur(image * image, (side, side)) - mean * mean
    return mean, np.sqrt(np.clip(variance, 0, None))


def _paste(canvas: np.ndarray, patch: np.ndarray, row: int, column: int) -> np.ndarray:
    """Write a patch of odd side onto a canvas, centred at a pixel and clipped at the border."""
    top, left = row - REACH, column - REACH
    rows = slice(max(top, 0), min(top + patch.shape[0], canvas.shape[0]))
    columns = slice(max(left, 0), min(left + patch.shape[1], canvas.shape[1]))
    canvas[rows, columns] = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return canvas
