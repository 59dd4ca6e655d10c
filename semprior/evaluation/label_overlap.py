"""How well pseudo-masks overlap the true masks, where there are any; only reported, nothing decides by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from semprior.data.training_set import TrainingSet


def label_overlap(
    training_set: TrainingSet, mask_of: Callable[[int], np.ndarray], indices: Iterable[int]
) -> dict[str, float]:
    """IoU and nIoU of pseudo-masks with the true masks, as `semprior.evaluation.metrics` defines them.

    Args:
        training_set: the images of a run.
        mask_of: gives the pseudo-mask of an image, (H,W) bool, for its index.
        indices: images to compare; those without a true mask are passed over.

    Returns:
        ``labels/iou`` and ``labels/niou``, in 0..1; empty if no image has a true mask, or no mask a target.
    """
    areas = []
    for index in indices:
        truth = training_set.scenes[index].mask
        if truth is not None:
            mask = mask_of(index)
            areas.append((np.count_nonzero(mask & truth), np.count_nonzero(mask | truth)))
    intersections, unions = np.array(areas, np.int64).reshape(-1, 2).T
    seen = unions > 0
    if not seen.any():
        return {}
    return {
        "labels/iou": float(intersections.sum() / unions.sum()),
        "labels/niou": float((intersections[seen] / unions[seen]).mean()),
    }
