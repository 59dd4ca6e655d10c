"""First pseudo-masks from points.

    seed = SEEDS["contrast"](image, points)
    seed.mask, seed.succeeded

`edge_seed` is the published one (method, section 6), `contrast_seed` overlaps the true masks far better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Seed:
    """The first pseudo-mask of an image.

    Attributes:
        mask: (H,W) bool; holds every point.
        succeeded: (P,) bool, whether a region was found around the point. A failed point gives its own pixel.
    """

    mask: np.ndarray
    succeeded: np.ndarray


def contrast_seed(image: np.ndarray, points: np.ndarray) -> Seed:
    """Regions that stand out against the ring around each point.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
    """
    mask, succeeded = np.zeros(image.shape, bool), np.zeros(len(points), bool)
    for index, (row, column) in enumerate(points.tolist()):
        top, left = max(row - 12, 0), max(column - 12, 0)
        square = (slice(top, row + 13), slice(left, column + 13))
        window = image[square].astype(np.float32)
        ring = np.ones(window.shape, bool)
        ring[max(row - 6 - top, 0) : row + 7 - top, max(column - 6 - left, 0) : column + 7 - left] = False
        background = np.median(window[ring])
        noise = 1.4826 * np.median(np.abs(window[ring] - background))
        r, c = row - top, column - left
        peak = window[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].max()
        _, labels = cv2.connectedComponents(
            (window > background + max(0.375 * (peak - background), 2 * noise)).view(np.uint8), connectivity=8
        )
        region = labels == labels[r, c]
        succeeded[index] = labels[r, c] > 0 and np.count_nonzero(region) <= 400
        if succeeded[index]:
            mask[square] |= region
        mask[row, column] = True
    return Seed(mask, succeeded)


def edge_seed(image: np.ndarray, points: np.ndarray) -> Seed:
    """The published seeds: what closed Canny edges enclose.

    Around each point a 20x20 window, cut at the image, less its own 3x3 blur; Canny edges of that, closed; the outer
    contour whose filled polygon holds the point, if its area through pixel centres is at most 50.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
    """
    mask, succeeded = np.zeros(image.shape, bool), np.zeros(len(points), bool)
    square = np.ones((3, 3), np.uint8)
    for index, (row, column) in enumerate(points.tolist()):
        top, left = max(row - 10, 0), max(column - 10, 0)
        place = (slice(top, row + 10), slice(left, column + 10))
        window = image[place].copy()  # apart from the image, or the blur would look beyond it
        detail = cv2.subtract(window, cv2.GaussianBlur(window, (3, 3), 0, borderType=cv2.BORDER_REFLECT_101))
        edges = cv2.Canny(detail, 20, 40, apertureSize=3, L2gradient=False)
        closed = cv2.erode(cv2.dilate(edges, square), square)
        contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        mask[row, column] = True
        for contour in contours:
            if cv2.pointPolygonTest(contour, (column - left, row - top), False) < 0:
                continue
            if cv2.contourArea(contour) <= 50:
                succeeded[index] = True
                filled = cv2.drawContours(np.zeros(window.shape, np.uint8), [contour], -1, 1, cv2.FILLED)
                mask[place] |= filled.astype(bool)
            break
    return Seed(mask, succeeded)


SEEDS: dict[str, Callable[[np.ndarray, np.ndarray], Seed]] = {"contrast": contrast_seed, "edges": edge_seed}
