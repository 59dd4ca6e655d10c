"""Seeds, the first pseudo-masks, from points.

    seed = SEEDS["contrast"](image, points)
    seed.mask, seed.succeeded

`edge_seed` is the published one (method, section 6); `contrast_seed` overlaps the true masks far better.
`python -m benchmarks.seeds` measures both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semprior.data.training_set import Seed
from semprior.labels.contrast_seed import contrast_region
from semprior.labels.edge_seed import edge_region

SEEDS_VERSION = 1  # increase it when a seed of any image changes: it keys cached seeds

RegionFinder = Callable[[np.ndarray, np.ndarray, int, np.ndarray | None], tuple[tuple[slice, slice], np.ndarray] | None]


def contrast_seed(image: np.ndarray, points: np.ndarray, boxes: np.ndarray | None = None) -> Seed:
    """The seed of regions that stand out from the background, one around each point; see `contrast_region`.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
        boxes: (P,4) int, rows of (top, left, bottom, right), the last row and column exclusive: limits that the region
            of each point never leaves. None sets no limit.
    """
    return _seed(contrast_region, image, points, boxes)


def edge_seed(image: np.ndarray, points: np.ndarray, boxes: np.ndarray | None = None) -> Seed:
    """The published seed of regions that closed edges enclose, one around each point; see `edge_region`.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
        boxes: (P,4) int, rows of (top, left, bottom, right), the last row and column exclusive: limits that the region
            of each point never leaves. None sets no limit.
    """
    return _seed(edge_region, image, points, boxes)


def _seed(find_region: RegionFinder, image: np.ndarray, points: np.ndarray, boxes: np.ndarray | None) -> Seed:
    mask, succeeded = np.zeros(image.shape, bool), np.zeros(len(points), bool)
    for index in range(len(points)):
        found = find_region(image, points, index, None if boxes is None else boxes[index])
        succeeded[index] = found is not None
        if found is not None:
            window, region = found
            mask[window] |= region
    mask[points[:, 0], points[:, 1]] = True
    return Seed(mask, succeeded)


SEEDS: dict[str, Callable[..., Seed]] = {"contrast": contrast_seed, "edges": edge_seed}
"""The seeds by their names in ``labels.seed``; each takes an image, its points and, if there are any, their boxes."""
