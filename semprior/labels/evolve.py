"""Evolution of pseudo-masks towards the teacher (method, section 6).

Every few epochs the teacher looks at every image that trains. Around each region of the image's soft mask, what the
teacher sees there is mixed in; all else fades::

    if evolution_due(epoch, start=60, every=5):
        soft = evolve(soft, probability)

Masks are stored in 8 bit: 255 is permanent, 128 and above is target.
"""

from __future__ import annotations

import cv2
import numpy as np

from semprior.data.connected_components import find_regions

REACH = 16  # pixels from a region's centroid to the sides of its square
PEAK_SHARE = 0.5  # of the highest probability in the square: the threshold of a region without area
LARGE_REGION = 0.0015  # of the image: a region this large has its threshold
RISE = 0.5  # of the way up to the peak; one twice as large takes nothing in
DECAY = 0.97
_FADED = np.rint(255 * (DECAY * (np.arange(256) / 255))).astype(np.uint8)
_FADED[255] = 255


def evolve(soft: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """One evolution of a soft pseudo-mask.

    Args:
        soft: (H,W) uint8, 255 times the soft mask.
        probability: (H,W) float32, the teacher's, in eval mode and at the image's own size.

    Returns:
        (H,W) uint8, a new array.
    """
    evolved = cv2.LUT(soft, _FADED)
    regions = find_regions(soft > 127)
    shares = regions.areas / (LARGE_REGION * soft.size)
    for (row, column), share in zip(regions.centroids.astype(int).tolist(), shares.tolist(), strict=True):
        top, left = max(row - REACH, 0), max(column - REACH, 0)
        square = (slice(top, row + REACH + 1), slice(left, column + REACH + 1))
        around, own = probability[square].astype(np.float64), soft[square]
        peak = float(around.max())
        floor = PEAK_SHARE * peak
        grown = _touching(around > floor + RISE * (peak - floor) * share, row - top, column - left)
        np.copyto(
            evolved[square], np.rint(255 * ((own / 255 + around) / 2)), where=grown & (own < 255), casting="unsafe"
        )
    return evolved


def _touching(mask: np.ndarray, row: int, column: int) -> np.ndarray:
    """The 8-connected components of a mask that share a pixel with the 3x3 square at a position."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    touched = np.zeros(count, bool)
    touched[labels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]] = True
    touched[0] = False
    return touched[labels]
