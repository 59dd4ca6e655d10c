"""Registration of masks with their points: how far those of a size are displaced against the image.

A point is the pixel nearest to the centre of a target, so that masks lie around their points at random, most of them
within half a pixel. Where the masks of a size lie to one side of their points, the annotation lies there, too: half of
the targets of NUDT-SIRST are annotated half a pixel up and to the left of what is seen. Of a single target that cannot
be told, of a hundred or two it can.
"""

from __future__ import annotations

import cv2
import numpy as np

NEIGHBOURS = 150  # targets of about the same size that are looked at together
CERTAIN = 4.0  # standard errors that a displacement must exceed
LEAST = 0.1  # pixels that it must exceed
WIDEST = 1.0  # pixels between the quartiles of offsets; points that scatter more are no centres
_TO_DEVIATION = 1.349  # quartiles of a normal distribution lie so many standard deviations apart
_OF_MEDIAN = 1.2533  # its median has so many times the standard error of its mean


def displacements(areas: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """How far the mask of each target is displaced, judged by the targets of about its size, rows and columns apart.

    It is the median offset of the `NEIGHBOURS` targets whose areas are nearest in ratio, and 0 where that is small, or
    not certain, or where points scatter so much that they cannot be centres. Offsets of exactly half a pixel tell
    nothing: the centre of an even number of pixels lies between two of them, of which annotators always take the same.

    Args:
        areas: (n,) of the masks, pixels.
        offsets: (n,2) float, the centroid of each mask less its point, rows and columns, pixels.

    Returns:
        (n,2) float; all 0 for fewer targets than `NEIGHBOURS`.
    """
    found = np.zeros((len(areas), 2))
    if len(areas) < NEIGHBOURS:
        return found
    sizes, told = np.log(areas), np.where(np.isclose(abs(offsets), 0.5), np.nan, offsets)
    for size in np.unique(sizes):
        distances = abs(sizes - size)
        near = told[distances <= np.partition(distances, NEIGHBOURS - 1)[NEIGHBOURS - 1]]
        count = np.isfinite(near).sum(axis=0)
        if (count < NEIGHBOURS / 3).any():
            continue
        low, median, high = np.nanpercentile(near, (25, 50, 75), axis=0)
        error = _OF_MEDIAN * (high - low) / _TO_DEVIATION / np.sqrt(count)
        sure = (abs(median) > np.maximum(CERTAIN * error, LEAST)) & (high - low <= WIDEST).all()
        found[sizes == size] = np.where(sure, median, 0.0)
    return found


def moved_back(probabilities: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Probabilities (H,W) float32, moved against a displacement (2,) of rows and columns, by linear interpolation."""
    rows, columns = displacement.tolist()
    matrix = np.array([[1.0, 0.0, -columns], [0.0, 1.0, -rows]])
    height, width = probabilities.shape
    moved: np.ndarray = cv2.warpAffine(probabilities, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return moved
