"""Pseudo-masks from the judgement of a teacher that has not seen the image, and from the image itself.

A teacher agrees with the masks that it was trained on. One that was trained on other images only proposes: candidates
for the region of a target are its first pseudo-mask, the regions in which the teacher's probability exceeds shares of
its peak, and their unions and intersections with the first. The image decides among them: a region is the better, the
better one grey level inside and one outside explain the pixels around it, as Chan and Vese measure it ("Active contours
without edges", IEEE TIP 2001)::

    sum over the region of (I - mean inside)^2  +  sum over its surroundings of (I - mean outside)^2    -> smallest

The surroundings are the same for all candidates of a target. A target that the teacher does not find keeps its mask.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from semprior.labels.contrast_seed import inside_box, voronoi_cell
from semprior.labels.evolve import REACH, touching

LEVELS = (0.3, 0.5, 0.7, 0.85)  # shares of the peak of the probability near a point
FOUND = 0.1  # smallest probability of a region that belongs to a target
RIM = 2  # pixels that the surroundings extend beyond all candidates
_AROUND = np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)


def crossfit_mask(
    image: np.ndarray,
    points: np.ndarray,
    first: np.ndarray,
    probability: np.ndarray,
    boxes: np.ndarray | None = None,
) -> np.ndarray:
    """The next pseudo-mask of an image, one region around each point.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
        first: (H,W) bool, the first pseudo-mask.
        probability: (H,W) float32, of a teacher that was trained on other images, at the image's own size.
        boxes: (P,4) int, rows of (top, left, bottom, right), the last row and column exclusive, which no region leaves.
            None sets no limit.

    Returns:
        (H,W) bool; every point is in it.
    """
    mask = np.zeros(image.shape, bool)
    for index, (row, column) in enumerate(points.tolist()):
        top, left = max(row - REACH, 0), max(column - REACH, 0)
        window = (slice(top, row + REACH + 1), slice(left, column + REACH + 1))
        own = voronoi_cell(image[window].shape, points - (top, left), index)
        if boxes is not None:
            own &= inside_box(own.shape, (boxes[index] - (top, left, top, left)).tolist())
        place = (row - top, column - left)
        candidates = list(_candidates(first[window] & own, np.where(own, probability[window], 0), place))
        mask[window] |= _best(image[window].astype(np.float64), candidates)
    mask[points[:, 0], points[:, 1]] = True
    return mask


def _candidates(first: np.ndarray, probability: np.ndarray, place: tuple[int, int]) -> Iterator[np.ndarray]:
    """The regions of a target in its window, (h,w) bool: the first one, then those that the teacher proposes."""
    region = touching(first, *place)
    region[place] = True
    yield region
    near = touching(probability > FOUND, *place)
    if not near.any():
        return
    peak = float(probability[near].max())
    for level in LEVELS:
        found = touching(probability > level * peak, *place)
        if found.any():
            yield found
            yield found | region
            yield touching(found & region, *place)


def _best(window: np.ndarray, candidates: list[np.ndarray]) -> np.ndarray:
    """The candidate that explains the window best; of equal ones the earlier."""
    candidates = [region for region in candidates if region.any()]
    union = np.logical_or.reduce(candidates)
    around = cv2.dilate(union.view(np.uint8), _AROUND).view(bool)
    unexplained = [_spread(window[region]) + _spread(window[around & ~region]) for region in candidates]
    return candidates[int(np.argmin(unexplained))]


def _spread(values: np.ndarray) -> float:
    return float(values.var() * values.size) if values.size else 0.0
