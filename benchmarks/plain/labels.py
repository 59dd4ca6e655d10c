"""Seeds, evolution and admission of pseudo-masks on whole images (method, section 6)."""

import cv2
import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=bool)


def seed(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published seeds of an image (H, W) uint8 with points (P, 2) of (row, column).

    Returns:
        the mask (H, W) bool, and for each point whether its contour was found and small enough, (P,) bool.
    """
    mask = np.zeros(image.shape, dtype=bool)
    succeeded = np.zeros(len(points), dtype=bool)
    for index, (row, column) in enumerate(points):
        top, left = max(0, row - 10), max(0, column - 10)
        window = np.ascontiguousarray(image[top : row + 10, left : column + 10])
        smooth = cv2.GaussianBlur(window, (3, 3), 0, borderType=cv2.BORDER_REFLECT_101)
        edges = cv2.Canny(cv2.subtract(window, smooth), 20, 40, apertureSize=3, L2gradient=False)
        square = np.ones((3, 3), np.uint8)
        closed = cv2.erode(cv2.dilate(edges, square), square)
        contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        mask[row, column] = True
        for contour in contours:
            filled = np.zeros(window.shape, np.uint8)
            cv2.drawContours(filled, [contour], -1, 1, cv2.FILLED)
            if filled[row - top, column - left]:
                if cv2.contourArea(contour) <= 50:
                    succeeded[index] = True
                    mask[top : row + 10, left : column + 10] |= filled.astype(bool)
                break
    return mask, succeeded


def evolve(soft: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """One evolution of a stored soft mask (H, W) uint8 by the teacher's probability (H, W) float."""
    height, width = soft.shape
    q = soft.astype(np.float64) / 255
    p = probability.astype(np.float64)
    grown = np.zeros(soft.shape, dtype=bool)
    regions, count = ndimage.label(q > 0.5, structure=EIGHT)
    for label in range(1, count + 1):
        rows, columns = np.nonzero(regions == label)
        area = len(rows)
        row, column = int(rows.mean()), int(columns.mean())
        top, left = max(0, row - 16), max(0, column - 16)
        around = p[top : row + 17, left : column + 17]
        peak = around.max()
        threshold = 0.5 * peak + 0.5 * (peak - 0.5 * peak) * area / (0.0015 * height * width)
        parts, number = ndimage.label(around > threshold, structure=EIGHT)
        r, c = row - top, column - left
        near = parts[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2]
        for part in range(1, number + 1):
            if (near == part).any():
                grown[top : row + 17, left : column + 17] |= parts == part
    q = np.where(grown, (q + p) / 2, 0.97 * q)
    stored = np.rint(255 * q).astype(np.uint8)  # ties to even
    stored[soft == 255] = 255
    return stored


def admit(probability: np.ndarray, points: np.ndarray, epoch: int, epochs: int) -> np.ndarray | None:
    """The first mask (H, W) uint8 of a reserve image that is ready for training, or None.

    For `epochs` as published (the denominator 0.8 E - 60 must be positive).
    """
    components, count = ndimage.label(probability > 0.5, structure=EIGHT)
    filled = []
    for label in range(1, count + 1):
        filled.append(ndimage.binary_fill_holes(components == label))  # holes: what 4-connected background cannot reach
    # Outer components: one that lies in another's hole is no component of its own.
    outer = []
    for index, region in enumerate(filled):
        others = [other for j, other in enumerate(filled) if j != index]
        if not any((region & other).sum() == region.sum() for other in others):
            outer.append(region)
    covered = 0
    mask = np.zeros(probability.shape, dtype=np.uint8)
    for row, column in points:
        holders = [region for region in outer if region[row, column]]
        covered += bool(holders)
        for region in holders:
            mask[region] = 255
        mask[row, column] = 255
    allowed = 0.2 + 0.8 * (epoch - 59) / (0.8 * epochs - 60)
    if (len(points) - covered) / len(points) > allowed:
        return None
    if (len(outer) - covered) / len(points) > 5:
        return None
    return mask
