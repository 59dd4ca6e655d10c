"""The region around a point that stands out against what the background would be without the target.

1. From the point, climb to the local peak: a point need only lie somewhere on its target.
2. A first region: connected pixels above a level between the background, the median of a ring around the point, and the
   peak, and above the ring's noise.
3. Look again, closer: take the region and a rim of one pixel out of the image and span a membrane over the hole, the
   solution of Laplace's equation with the hole's surroundings as border. That is the background, slopes, bands and
   edges of clouds included. The pixels that rise from it by more than the same share of the peak's rise are the region
   now. So it grows or shrinks, until it stands still.

A dark target is sought in the negative. Where there are other points, a region keeps to the pixels nearer to its own.
"""

from __future__ import annotations

import cv2
import numpy as np

REACH = 16  # pixels from the point to the sides of the window
RING = (6, 12)  # the ring lies between the squares of 13x13 and 25x25 around the point
CLIMB = 3  # pixels from the point to the peak at most, in steps to the brightest neighbour
LEVEL = 0.27  # share of the peak's rise above the background at which the region ends
NOISE = 2.0  # standard deviations of the ring that the first region must rise
LARGEST = 400  # pixels
DARKER = 1.5  # a target is dark if it falls by this many times what it rises, and by 3 standard deviations
LOOKS = 4
_SWEEPS = 30  # of the membrane, enough for holes of some ten pixels across
_NEIGHBOURS = np.array([[0, 0.25, 0], [0.25, 0, 0.25], [0, 0.25, 0]], np.float32)
_RIM = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def contrast_region(image: np.ndarray, points: np.ndarray, index: int) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """The region around one point of an image.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column), of the same or other targets.
        index: of the point among them.

    Returns:
        where the window lies in the image and the region in it, bool; or none, if nothing stands out.
    """
    row, column = points[index].tolist()
    top, left = max(row - REACH, 0), max(column - REACH, 0)
    place = (slice(top, row + REACH + 1), slice(left, column + REACH + 1))
    window = image[place].astype(np.float32)
    start = (row - top, column - left)
    ring = window[_ring(window.shape, start)]
    background = float(np.median(ring)) if ring.size else float(np.median(window))
    noise = 1.4826 * float(np.median(np.abs(ring - background))) if ring.size else 0.0
    own = _own(window.shape, points - (top, left), index)

    peak = _climb(np.where(own, window, -np.inf), start)
    trough = _climb(np.where(own, -window, -np.inf), start)
    fall = background - float(window[trough])
    if fall > DARKER * (float(window[peak]) - background) and fall > 3 * noise:
        window, background, peak = -window, -background, trough
    rise = float(window[peak]) - background
    level = background + max(LEVEL * (float(window[peak]) - background), NOISE * noise)
    region = _component(own & (window > level), peak)
    if region is None or np.count_nonzero(region) > LARGEST:
        region = np.zeros(window.shape, bool)
        region[peak] = True
    for _ in range(LOOKS):
        rise = np.where(own, window - _membrane(window, cv2.dilate(region.view(np.uint8), _RIM) > 0), 0)
        closer = _component(rise > LEVEL * rise[peak], peak) if rise[peak] > 0 else None
        if closer is None or np.count_nonzero(closer) > LARGEST or np.array_equal(closer, region):
            break
        region = closer
    return (place, region) if np.count_nonzero(region) > 1 else None


def _ring(shape: tuple[int, int], centre: tuple[int, int]) -> np.ndarray:
    """What lies between the two squares of `RING` around a pixel."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.maximum(abs(rows - centre[0]), abs(columns - centre[1]))
    return (distance > RING[0]) & (distance <= RING[1])


def _own(shape: tuple[int, int], points: np.ndarray, index: int) -> np.ndarray:
    """The pixels that no other point is nearer to."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    squares = [(rows - row) ** 2 + (columns - column) ** 2 for row, column in points.tolist()]
    own = np.ones(shape, bool)
    for other in squares:
        own &= squares[index] <= other
    return own


def _climb(window: np.ndarray, position: tuple[int, int]) -> tuple[int, int]:
    """From neighbour to highest neighbour, `CLIMB` times or until none is higher."""
    row, column = position
    for _ in range(CLIMB):
        top, left = max(row - 1, 0), max(column - 1, 0)
        near = window[top : row + 2, left : column + 2]
        down, right = divmod(int(near.argmax()), near.shape[1])
        if near[down, right] <= window[row, column]:
            break
        row, column = top + down, left + right
    return row, column


def _component(mask: np.ndarray, position: tuple[int, int]) -> np.ndarray | None:
    """The 8-connected component of a mask that holds a pixel, or none."""
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return labels == labels[position] if labels[position] else None


def _membrane(window: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The window (H,W) float32 with the hole (H,W) bool replaced by the membrane that its surroundings span."""
    left, top, width, height = cv2.boundingRect(hole.view(np.uint8))
    near = (slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1))
    membrane = window[near].copy()
    inside = hole[near]
    if inside.all():
        return window
    membrane[inside] = membrane[~inside].mean()
    for _ in range(_SWEEPS):
        np.copyto(membrane, cv2.filter2D(membrane, -1, _NEIGHBOURS, borderType=cv2.BORDER_REPLICATE), where=inside)
    spanned = window.copy()
    spanned[near] = membrane
    return spanned
