"""The metrics, image by image and component by component (method, section 9)."""

import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=bool)


def best_epoch(values: list[float]) -> int | None:
    """The epoch that the published scripts keep, of the student and of the teacher alike: IoU by epoch."""
    best, kept = 0.0, None
    for epoch, value in enumerate(values):
        if value > best:
            best, kept = value, epoch
    return kept


def metrics(predictions: list[np.ndarray], truths: list[np.ndarray]) -> tuple[float, float, float, float]:
    """IoU, nIoU (an empty union counts as 0), Pd and Fa (1e-6) of masks (H, W) bool."""
    intersection = union = targets = matched = false_pixels = pixels = 0
    shares = []
    for predicted, truth in zip(predictions, truths, strict=True):
        both, either = int((predicted & truth).sum()), int((predicted | truth).sum())
        intersection, union, pixels = intersection + both, union + either, pixels + truth.size
        shares.append(both / either if either else 0.0)
        found, number = ndimage.label(predicted, structure=EIGHT)
        free = {label: np.argwhere(found == label) for label in range(1, number + 1)}
        true, count = ndimage.label(truth, structure=EIGHT)
        targets += count
        for label in range(1, count + 1):
            centre = np.argwhere(true == label).mean(axis=0)
            for candidate, places in free.items():
                if np.linalg.norm(places.mean(axis=0) - centre) < 3:
                    matched += 1
                    del free[candidate]
                    break
        false_pixels += sum(len(places) for places in free.values())
    return intersection / union, float(np.mean(shares)), matched / targets, 1e6 * false_pixels / pixels
