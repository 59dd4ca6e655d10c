"""Edge seed, as published: the region around a point that closed Canny edges enclose (method, section 6)."""

from __future__ import annotations

import cv2
import numpy as np

REACH = 10  # rows r-10..r+9 and columns c-10..c+9 around a point at (r, c)
WEAK, STRONG = 20, 40  # thresholds of Canny
LARGEST = 50  # area of the polygon through pixel centres
_SQUARE = np.ones((3, 3), np.uint8)


def edge_region(
    image: np.ndarray, points: np.ndarray, index: int, box: np.ndarray | None = None
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """The region around one point of an image.

    A window of 20x20 pixels, clipped at the image, minus its own 3x3 blur gives Canny edges, which are closed
    morphologically. The region is the filled outer contour that contains the point, unless its area is above 50.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
        index: of the point among them.
        box: (4,) int, (top, left, bottom, right), the last row and column exclusive, to which the region is cut; not
            part of the published seed. None for none.

    Returns:
        The window as slices of the image, and the region in it, bool; or None.
    """
    row, column = points[index].tolist()
    top, left = max(row - REACH, 0), max(column - REACH, 0)
    window_slices = (slice(top, row + REACH), slice(left, column + REACH))
    window = image[window_slices].copy()  # a copy, as the blur reads beyond the borders of a view
    detail = cv2.subtract(window, cv2.GaussianBlur(window, (3, 3), 0, borderType=cv2.BORDER_REFLECT_101))
    edges = cv2.Canny(detail, WEAK, STRONG, apertureSize=3, L2gradient=False)
    closed = cv2.erode(cv2.dilate(edges, _SQUARE), _SQUARE)
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        if cv2.pointPolygonTest(contour, (column - left, row - top), False) >= 0:
            if cv2.contourArea(contour) > LARGEST:
                return None
            filled = cv2.drawContours(np.zeros(window.shape, np.uint8), [contour], -1, 1, cv2.FILLED)
            region = filled.astype(bool)
            if box is not None:
                rows, columns = np.ogrid[: region.shape[0], : region.shape[1]]
                region &= (rows + top >= box[0]) & (rows + top < box[2])
                region &= (columns + left >= box[1]) & (columns + left < box[3])
            return window_slices, region
    return None
