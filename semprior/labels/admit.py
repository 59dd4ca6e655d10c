"""Admission of hard images, whose seeds failed, once the teacher finds their targets (method, section 6)."""

from __future__ import annotations

import cv2
import numpy as np

MAX_FALSE_COMPONENTS = 5  # per point
FIRST_SHARE = 0.2  # of an image's points that may be missed when admission begins; at its end, all may be


def admission_threshold(epoch: int, start: int, end: float) -> float:
    """The share of an image's points that the teacher may miss, which rises from 0.2 to 1.

    The published formula, for 300 epochs and `start` 60, is ``0.2 + 0.8 (epoch - 59) / (0.8 epochs - 60)``. In a run of
    another length, `start` replaces 60, and 59 scales with it; if a run ends before evolution begins, the denominator
    is 1.

    Args:
        epoch: counted from 0.
        start: the epoch after which masks evolve.
        end: the epoch after which no image is admitted, ``0.8 epochs``.
    """
    span = max(end - start, 1.0)
    return FIRST_SHARE + (1 - FIRST_SHARE) * (epoch - start * 59 / 60) / span


def admit(probability: np.ndarray, points: np.ndarray, allowed: float) -> np.ndarray | None:
    """The first pseudo-mask of an image in the reserve, or None if the image stays there.

    A point is covered if it lies in a component of ``probability > 0.5`` with holes filled. The image is admitted if
    the share of points that are not covered is at most `allowed`, and there are at most 5 more components per point
    than covered points.

    Args:
        probability: (H,W) float32, of the teacher in eval mode at the image's own size.
        points: (P,2) int, rows of (row, column); without points, the mask is empty.
        allowed: the result of `admission_threshold`.

    Returns:
        (H,W) uint8, 255 in the filled components that contain a point and on the points; or None.
    """
    mask = np.zeros(probability.shape, np.uint8)
    if not len(points):
        return mask
    filled = fill_holes(probability > 0.5)
    count, labels = cv2.connectedComponents(filled.view(np.uint8), connectivity=8)
    components = labels[points[:, 0], points[:, 1]]
    covered = int(np.count_nonzero(components))
    if (len(points) - covered) / len(points) > allowed:
        return None
    if (count - 1 - covered) / len(points) > MAX_FALSE_COMPONENTS:
        return None
    mask[np.isin(labels, components[components > 0])] = 255
    mask[points[:, 0], points[:, 1]] = 255
    return mask


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a mask (H,W) bool: background from which no 4-connected path leads to the border.

    Components inside a hole are filled with it, so that only the outer 8-connected components remain.
    """
    outside = np.pad(~mask, 1, constant_values=True)
    _, labels = cv2.connectedComponents(outside.view(np.uint8), connectivity=4)
    filled: np.ndarray = labels[1:-1, 1:-1] != labels[0, 0]
    return filled
