"""Where a teacher fires away from every target: the hard background that crops can be placed on (`data.hard_crops`).

Its targets are known by points, so that what it finds far from all of them is false. Near a target nothing is: there
the extent of the pseudo-mask itself is uncertain.
"""

from __future__ import annotations

import cv2
import numpy as np

FIRES = 0.2  # least probability; on images that it trains on, a teacher is seldom sure of a false alarm
AWAY = 16  # pixels; a false alarm is at least as far from every point and every pixel of the pseudo-mask


def false_alarms(probability: np.ndarray, points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The pixels of an image at which a teacher fires away from every target.

    Args:
        probability: (H,W) float32, of the teacher at the image's own size.
        points: (P,2) int, rows of (row, column).
        mask: (H,W) bool, the pseudo-mask.

    Returns:
        (H,W) bool.
    """
    fires: np.ndarray = probability > FIRES
    if not fires.any():
        return fires
    away = (~mask).astype(np.uint8)
    away[points[:, 0], points[:, 1]] = 0
    if away.all():
        return fires
    return fires & (cv2.distanceTransform(away, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) >= AWAY)
