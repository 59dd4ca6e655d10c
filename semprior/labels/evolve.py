"""Evolution of pseudo-masks towards the teacher (method, section 6).

Every few epochs the teacher predicts every training image. Around each region of an image's soft mask, the prediction
is averaged with the mask; all other pixels decay::

    if evolution_due(epoch, start=60, every=5):
        soft = evolve(soft, probability)

Masks are stored in 8 bit: values of at least 128 are target, and 255 is permanent.
"""

from __future__ import annotations

import cv2
import numpy as np

from semprior.data.connected_components import find_regions

REACH = 16  # pixels from a region's centroid to the sides of its square
PEAK_SHARE = 0.5  # of the highest probability in the square: the threshold of a region without area
LARGE_REGION = 0.0015  # share of the image: the threshold of a region this large lies
RISE = 0.5  # of the way up to the peak; a region twice as large does not grow
DECAY = 0.97
_FADED = np.rint(255 * (DECAY * (np.arange(256) / 255))).astype(np.uint8)
_FADED[255] = 255


def evolve(soft: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Evolve a soft pseudo-mask once.

    Args:
        soft: (H,W) uint8, 255 times the soft mask.
        probability: (H,W) float32, of the teacher in eval mode at the image's own size.

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
        grown = touching(around > floor + RISE * (peak - floor) * share, row - top, column - left)
        np.copyto(
            evolved[square], np.rint(255 * ((own / 255 + around) / 2)), where=grown & (own < 255), casting="unsafe"
        )
    return evolved


def touching(mask: np.ndarray, row: int, column: int) -> np.ndarray:
    """The 8-connected components of a mask that overlap the 3x3 square around a position."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    touched = np.zeros(count, bool)
    touched[labels[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]] = True
    touched[0] = False
    touching: np.ndarray = touched[labels]
    return touching
