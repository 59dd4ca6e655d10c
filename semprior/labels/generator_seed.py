"""Generator seed: the mask that the generator of masks draws around a point; see `generator_network`.

The contrast region around the point, where there is one, has a say where the generator is in doubt: its pixels count
from a probability of .4 on, all others from .6 on. Together they are closer to the true masks than either is alone.

The generator sees windows of 65 pixels, which is enough for targets of some 40 pixels across. A region has no pixel
that is nearer to another point, and none outside the box that its target was marked with.
"""

from __future__ import annotations

import cv2
import numpy as np

from semprior.labels.contrast_seed import component, contrast_region, inside_box, voronoi_cell
from semprior.labels.generator_network import MIDDLE, MaskGenerator, draw_probabilities, load_generator
from semprior.labels.registration import moved_back

Region = tuple[tuple[slice, slice], np.ndarray]
"""A window as slices of an image, and the region in it, bool."""

LIKELY = 0.5  # probability above which a pixel is of the target
EVIDENCE = 0.1  # what the contrast region adds to the probability of its pixels, and takes from that of all others
RISE = 1.0  # grey levels, at least, from the rim around a region to its inside, or back
NEAR = 3  # pixels, in rows or columns, from the point to the most likely pixel of its target


def generator_regions(
    image: np.ndarray,
    points: np.ndarray,
    boxes: np.ndarray | None = None,
    *,
    displacement: np.ndarray | None = None,
    network: MaskGenerator | None = None,
) -> list[Region | None]:
    """The regions around the points of an image.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
        boxes: (P,4) int, rows of (top, left, bottom, right), the last row and column exclusive; None for no limits.
        displacement: (P,2) float, how far the mask of each target is moved back, rows and columns, pixels; see
            `registration`. None moves none.
        network: the generator; by default the one that comes with the package.

    Returns:
        For each point its window as slices of the image and the region in it, bool; or None if nothing stands out.
    """
    if not len(points):
        return []
    windows = np.stack([_window(image, point) for point in points.tolist()])
    drawn = draw_probabilities(network or load_generator(), windows)
    drawn = np.stack([_with_contrast(likely, image, points, i, boxes) for i, likely in enumerate(drawn)])
    if displacement is not None:
        moves = zip(drawn, displacement, strict=True)
        drawn = np.stack([moved_back(likely, by) if by.any() else likely for likely, by in moves])
    found = [_region(likely, image.shape, points, index, boxes) for index, likely in enumerate(drawn)]
    return [one if one is not None and _stands_out(image, one) else None for one in found]


def _window(image: np.ndarray, point: list[int]) -> np.ndarray:
    """The window (65,65) around a point; beyond the borders of the image its last pixels go on."""
    row, column = point
    return cv2.copyMakeBorder(
        image[max(row - MIDDLE, 0) : row + MIDDLE + 1, max(column - MIDDLE, 0) : column + MIDDLE + 1],
        max(MIDDLE - row, 0),
        max(row + MIDDLE + 1 - image.shape[0], 0),
        max(MIDDLE - column, 0),
        max(column + MIDDLE + 1 - image.shape[1], 0),
        cv2.BORDER_REPLICATE,
    )


def _with_contrast(
    likely: np.ndarray, image: np.ndarray, points: np.ndarray, index: int, boxes: np.ndarray | None
) -> np.ndarray:
    """Probabilities (65,65), more of them within the contrast region around the point, and less outside of it."""
    found = contrast_region(image, points, index, None if boxes is None else boxes[index])
    if found is None:
        return likely
    (rows, columns), region = found
    row, column = points[index].tolist()
    top, left = rows.start - (row - MIDDLE), columns.start - (column - MIDDLE)
    weighed = likely - EVIDENCE
    weighed[top : top + region.shape[0], left : left + region.shape[1]] += 2 * EVIDENCE * region
    return weighed


def _region(
    probabilities: np.ndarray,
    shape: tuple[int, ...],
    points: np.ndarray,
    index: int,
    boxes: np.ndarray | None,
) -> Region | None:
    """The likely pixels connected to the most likely one near the point, cut at the borders of the image."""
    row, column = points[index].tolist()
    top, left = max(row - MIDDLE, 0), max(column - MIDDLE, 0)
    place = (slice(top, min(row + MIDDLE + 1, shape[0])), slice(left, min(column + MIDDLE + 1, shape[1])))
    size = (place[0].stop - top, place[1].stop - left)
    above, before = top - (row - MIDDLE), left - (column - MIDDLE)
    inside = probabilities[above : above + size[0], before : before + size[1]]
    cell = voronoi_cell(size, points - (top, left), index)
    if boxes is not None:
        cell &= inside_box(size, (boxes[index] - (top, left, top, left)).tolist())
    rows, columns = np.ogrid[: size[0], : size[1]]
    near = (abs(rows - (row - top)) <= NEAR) & (abs(columns - (column - left)) <= NEAR) & cell
    peak = np.unravel_index(int(np.where(near, inside, -1).argmax()), size)
    region = component(cell & (inside > LIKELY), (int(peak[0]), int(peak[1])))
    return None if region is None or np.count_nonzero(region) < 2 else (place, region)


def _stands_out(image: np.ndarray, found: Region) -> bool:
    place, region = found
    rim = cv2.dilate(region.view(np.uint8), np.ones((5, 5), np.uint8)) > 0
    rim &= ~region
    window = image[place]
    return bool(rim.any() and abs(float(window[region].mean()) - float(window[rim].mean())) >= RISE)
