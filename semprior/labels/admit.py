"""Admission of hard images: those whose seeds failed, once the teacher finds their targets (method, section 6)."""

from __future__ import annotations

import cv2
import numpy as np

MAX_FALSE_COMPONENTS = 5  # for each point
FIRST_SHARE = 0.2  # of an image's points that may be missed when admission begins; all of them at its end


def admission_threshold(epoch: int, start: int, end: float) -> float:
    """The share of an image's points that the teacher may miss, from 0.2 up to 1.

    Published for 300 epochs and `start` 60: ``0.2 + 0.8 (epoch - 59) / (0.8 epochs - 60)``. In a run of another length
    60 is `start`, and 59 shrinks with it; where a run ends before it begins to evolve, the denominator is 1.

    Args:
        epoch: counted from 0.
        start: the epoch after which masks evolve.
        end: the epoch after which nothing is admitted, ``0.8 epochs``.
    """
    span = max(end - start, 1.0)
    return FIRST_SHARE + (1 - FIRST_SHARE) * (epoch - start * 59 / 60) / span


def admit(probability: np.ndarray, points: np.ndarray, allowed: float) -> np.ndarray | None:
    """The first pseudo-mask of an image that waits, or none if it must wait on.

    A point is covered if it lies in an outer component of ``probability > 0.5``, holes filled. The image is admitted if
    the share of points not covered is at most `allowed`, and there are at most 5 components a point beyond the covered.

    Args:
        probability: (H,W) float32, the teacher's, in eval mode and at the image's own size.
        points: (P,2) int, rows of (row, column); without any, the mask is empty.
        allowed: from `admission_threshold`.

    Returns:
        (H,W) uint8, 255 in the filled components that hold a point and on the points, or none.
    """
    mask = np.zeros(probability.shape, np.uint8)
    if not len(points):
        return mask
    filled = fill_holes(probability > 0.5)
    count, labels = cv2.connectedComponents(filled.view(np.uint8), connectivity=8)
    held = labels[points[:, 0], points[:, 1]]
    covered = int(np.count_nonzero(held))
    if (len(points) - covered) / len(points) > allowed:
        return None
    if (count - 1 - covered) / len(points) > MAX_FALSE_COMPONENTS:
        return None
    mask[np.isin(labels, held[held > 0])] = 255
    mask[points[:, 0], points[:, 1]] = 255
    return mask


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """A mask (H,W) bool with its holes filled: background that no 4-connected path leads out of.

    What lies inside a hole goes under with it, so the 8-connected components of the result are the outer ones.
    """
    outside = np.pad(~mask, 1, constant_values=True)
    _, labels = cv2.connectedComponents(outside.view(np.uint8), connectivity=4)
    return labels[1:-1, 1:-1] != labels[0, 0]
