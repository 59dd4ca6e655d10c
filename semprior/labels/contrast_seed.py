"""Contrast seed: the region around a point that rises above an estimate of the background without the target.

1. From the point, climb to the local peak: a point may lie anywhere on its target.
2. The first region consists of connected pixels above a level between the peak and the background (the median of a ring
   around the point), and above the noise of the ring.
3. Refine the region: cut it, with a rim of one pixel, out of the image and fill the hole with a membrane, the solution
   of Laplace's equation with the pixels around the hole as boundary values. The membrane estimates the background,
   including slopes, bands and edges of clouds. The pixels that rise above it by more than the same share of the peak's
   rise are the new region. Repeat until it no longer changes.

A dark target is sought in the negative image. A region has no pixel that is nearer to another point, and none outside
the box that its target was marked with.
"""

from __future__ import annotations

import cv2
import numpy as np

REACH = 16  # pixels from the point to the sides of the window
RING = (6, 12)  # the ring lies between the squares of 13x13 and 25x25 pixels around the point
CLIMB = 3  # most steps from the point to the peak, each to the brightest neighbour
LEVEL = 0.27  # share of the peak's rise above the background at which the region ends
NOISE = 2.0  # least rise of the first region, in standard deviations of the ring
LARGEST = 400  # pixels
DARKER = 1.5  # a target is dark if it falls by this many times what it rises, and by 3 standard deviations
REFINEMENTS = 4  # at most
_SWEEPS = 30  # of the relaxation, enough for holes of some ten pixels across
_NEIGHBOURS = np.array([[0, 0.25, 0], [0.25, 0, 0.25], [0, 0.25, 0]], np.float32)
_RIM = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def contrast_region(
    image: np.ndarray, points: np.ndarray, index: int, box: np.ndarray | None = None
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """The region around one point of an image.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column), of the same or other targets.
        index: of the point among them.
        box: (4,) int, (top, left, bottom, right) around the point, the last row and column exclusive; None for none.

    Returns:
        The window as slices of the image, and the region in it, bool; or None if nothing stands out.
    """
    row, column = points[index].tolist()
    top, left = max(row - REACH, 0), max(column - REACH, 0)
    window_slices = (slice(top, row + REACH + 1), slice(left, column + REACH + 1))
    window = image[window_slices].astype(np.float32)
    start = (row - top, column - left)
    ring = window[ring_around(window.shape, start)]
    background = float(np.median(ring)) if ring.size else float(np.median(window))
    noise = 1.4826 * float(np.median(np.abs(ring - background))) if ring.size else 0.0
    cell = voronoi_cell(window.shape, points - (top, left), index)
    if box is not None:
        cell &= inside_box(window.shape, (box - (top, left, top, left)).tolist())

    peak = _climb(np.where(cell, window, -np.inf), start)
    trough = _climb(np.where(cell, -window, -np.inf), start)
    fall = background - float(window[trough])
    if fall > DARKER * (float(window[peak]) - background) and fall > 3 * noise:
        window, background, peak = -window, -background, trough
    level = background + max(LEVEL * (float(window[peak]) - background), NOISE * noise)
    region = component(cell & (window > level), peak)
    if region is None or np.count_nonzero(region) > LARGEST:
        region = np.zeros(window.shape, bool)
        region[peak] = True
    for _ in range(REFINEMENTS):
        rise = np.where(cell, window - _membrane(window, cv2.dilate(region.view(np.uint8), _RIM) > 0), 0)
        refined = component(rise > LEVEL * rise[peak], peak) if rise[peak] > 0 else None
        if refined is None or np.count_nonzero(refined) > LARGEST or np.array_equal(refined, region):
            break
        region = refined
    return (window_slices, region) if np.count_nonzero(region) > 1 else None


def ring_around(shape: tuple[int, int], centre: tuple[int, int]) -> np.ndarray:
    """The pixels between the two squares of `RING` around a pixel, (H,W) bool."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.maximum(abs(rows - centre[0]), abs(columns - centre[1]))
    ring: np.ndarray = (distance > RING[0]) & (distance <= RING[1])
    return ring


def voronoi_cell(shape: tuple[int, int], points: np.ndarray, index: int) -> np.ndarray:
    """The pixels to which no other point is nearer, (H,W) bool."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    squares = [(rows - row) ** 2 + (columns - column) ** 2 for row, column in points.tolist()]
    cell = np.ones(shape, bool)
    for other in squares:
        cell &= squares[index] <= other
    return cell


def inside_box(shape: tuple[int, int], box: list[int]) -> np.ndarray:
    """The pixels of a box (top, left, bottom, right), (H,W) bool; it may reach beyond the window."""
    inside = np.zeros(shape, bool)
    inside[max(box[0], 0) : max(box[2], 0), max(box[1], 0) : max(box[3], 0)] = True
    return inside


def _climb(window: np.ndarray, position: tuple[int, int]) -> tuple[int, int]:
    """Step to the highest neighbour `CLIMB` times, or until no neighbour is higher."""
    row, column = position
    for _ in range(CLIMB):
        top, left = max(row - 1, 0), max(column - 1, 0)
        near = window[top : row + 2, left : column + 2]
        down, right = divmod(int(near.argmax()), near.shape[1])
        if near[down, right] <= window[row, column]:
            break
        row, column = top + down, left + right
    return row, column


def component(mask: np.ndarray, position: tuple[int, int]) -> np.ndarray | None:
    """The 8-connected component of a mask that contains a pixel, or None."""
    _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return labels == labels[position] if labels[position] else None


def _membrane(window: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The window (H,W) float32 with the hole (H,W) bool filled by the membrane over it."""
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
