"""Silhouettes of targets that are large enough to have a shape: blobs, bars, aircraft, ships and irregular ones."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

SUBPIXELS = 4  # along each side of a pixel
_PROBE = 40  # pixels a unit of length, on the canvas that measures a shape
_FRACTION_BITS = 4  # of the coordinates that OpenCV fills polygons by


def draw_silhouette(rng: np.random.Generator, area: float, side: int) -> np.ndarray:
    """Draw the silhouette of a target near the centre of a square.

    Args:
        rng: the source of randomness.
        area: in pixels, about.
        side: of the square, pixels.

    Returns:
        (side,side) float32, the share of each pixel that the target covers.
    """
    shape = _SHAPES[rng.choice(len(_SHAPES), p=_SHARES)]
    parts = shape(rng, rng.uniform(0, np.pi))
    probe = np.zeros((3 * _PROBE, 3 * _PROBE), np.uint8)
    for part in parts:
        _fill(probe, part * _PROBE + probe.shape[0] / 2)
    rows, columns = np.nonzero(probe)
    centre = (np.array([columns.mean(), rows.mean()]) - probe.shape[0] / 2) / _PROBE
    scale = np.sqrt(area / (len(rows) / _PROBE**2))
    canvas = np.zeros((side * SUBPIXELS, side * SUBPIXELS), np.uint8)
    place = rng.uniform(-0.5, 0.5, 2) + side / 2  # of the centre among the pixels
    for part in parts:
        _fill(canvas, ((part - centre) * scale + place) * SUBPIXELS - 0.5)
    return cv2.resize(canvas.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)


def _fill(canvas: np.ndarray, corners: np.ndarray) -> None:
    cv2.fillPoly(canvas, [np.rint(corners * 2**_FRACTION_BITS).astype(np.int32)], 1, shift=_FRACTION_BITS)


def _axes(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (x, y) along an angle and across it."""
    return np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])


def _bar(centre: np.ndarray, length: float, width: float, angle: float) -> np.ndarray:
    along, across = _axes(angle)
    half, side = along * length / 2, across * width / 2
    return np.array([centre + half + side, centre + half - side, centre - half - side, centre - half + side])


def _ellipse(centre: np.ndarray, length: float, width: float, angle: float) -> np.ndarray:
    along, across = _axes(angle)
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)[:, None]
    points: np.ndarray = centre + np.cos(turn) * along * length / 2 + np.sin(turn) * across * width / 2
    return points


def _blob(rng: np.random.Generator, angle: float) -> list[np.ndarray]:
    ratio = np.exp(rng.uniform(0, np.log(3)))
    return [_ellipse(np.zeros(2), ratio**0.5, ratio**-0.5, angle)]


def _rectangle(rng: np.random.Generator, angle: float) -> list[np.ndarray]:
    ratio = np.exp(rng.uniform(0, np.log(7)))
    angle = angle if rng.random() < 0.6 else float(rng.choice([0, np.pi / 2]))
    return [_bar(np.zeros(2), ratio**0.5, ratio**-0.5, angle)]


def _irregular(rng: np.random.Generator, angle: float) -> list[np.ndarray]:
    along, across = _axes(angle)
    turn = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 11)))[:, None]
    radius = rng.uniform(0.45, 1, turn.shape)
    star = radius * (np.cos(turn) * along + rng.uniform(0.4, 1) * np.sin(turn) * across)
    return [star, _ellipse(np.zeros(2), 0.7, 0.5, angle)]


def _aircraft(rng: np.random.Generator, angle: float) -> list[np.ndarray]:
    along, _ = _axes(angle)
    width, across = rng.uniform(0.12, 0.25), angle + np.pi / 2 + rng.normal(0, 0.15)
    wings = _bar(along * rng.uniform(-0.15, 0.2), rng.uniform(0.4, 1.1), rng.uniform(0.12, 0.3), across)
    parts = [_bar(np.zeros(2), 1, width, angle), wings]
    if rng.random() < 0.6:  # its tail
        parts.append(_bar(along * -0.42, rng.uniform(0.2, 0.5), 0.7 * width, across))
    return parts


def _ship(rng: np.random.Generator, _: float) -> list[np.ndarray]:
    angle, width = rng.normal(0, 0.25), rng.uniform(0.1, 0.3)
    along, across = _axes(angle)
    parts = [_bar(np.zeros(2), 1, width, angle)]
    for _cabin in range(rng.integers(1, 3)):
        centre = along * rng.uniform(-0.35, 0.35) - across * 0.7 * width
        parts.append(_bar(centre, rng.uniform(0.1, 0.35), width * rng.uniform(0.6, 1.4), angle))
    return parts


def _bent(rng: np.random.Generator, angle: float) -> list[np.ndarray]:
    parts, centre = [], np.zeros(2)
    for _piece in range(rng.integers(2, 4)):
        parts.append(_ellipse(centre, rng.uniform(0.4, 1), rng.uniform(0.25, 0.5), angle))
        centre = centre + rng.uniform(0.2, 0.5) * _axes(angle)[0]
        angle += rng.normal(0, 0.6)
    return parts


_SHAPES: tuple[Callable[[np.random.Generator, float], list[np.ndarray]], ...] = (
    _blob,
    _rectangle,
    _irregular,
    _aircraft,
    _ship,
    _bent,
)
_SHARES = (0.3, 0.14, 0.18, 0.14, 0.12, 0.12)
