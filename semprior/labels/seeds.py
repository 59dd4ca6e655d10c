"""Seeds, the first pseudo-masks, from points.

    seed = SEEDS["contrast"](image, points)
    seed.mask, seed.succeeded

`edge_seed` is the published one (method, section 6); `contrast_seed` overlaps the true masks far better, and
`generator_seed` better still. `python -m benchmarks.seeds` measures all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from semprior.data.training_set import Seed
from semprior.labels.contrast_seed import contrast_region
from semprior.labels.edge_seed import edge_region
from semprior.labels.generator_seed import Region, generator_regions

SEEDS_VERSION = 1  # increase it when a seed of any image changes: it keys cached seeds

RegionFinder = Callable[[np.ndarray, np.ndarray, int, np.ndarray | None], Region | None]


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


def generator_seed(image: np.ndarray, points: np.ndarray, boxes: np.ndarray | None = None) -> Seed:
    """The seed of masks that the generator draws, one around each point; see `generator_regions`.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
        boxes: (P,4) int, rows of (top, left, bottom, right), the last row and column exclusive: limits that the region
            of each point never leaves. None sets no limit.
    """
    return assembled(image, points, generator_regions(image, points, boxes))


def _seed(find_region: RegionFinder, image: np.ndarray, points: np.ndarray, boxes: np.ndarray | None) -> Seed:
    limits = [None] * len(points) if boxes is None else list(boxes)
    found = [find_region(image, points, index, limit) for index, limit in enumerate(limits)]
    return assembled(image, points, found)


def assembled(image: np.ndarray, points: np.ndarray, found: Sequence[Region | None]) -> Seed:
    """The seed of an image (H,W) from the regions found around its points (P,2), None where nothing was found."""
    mask = np.zeros(image.shape, bool)
    for one in found:
        if one is not None:
            window, region = one
            mask[window] |= region
    mask[points[:, 0], points[:, 1]] = True
    return Seed(mask, np.array([one is not None for one in found], bool))


SEEDS: dict[str, Callable[..., Seed]] = {"contrast": contrast_seed, "edges": edge_seed, "generator": generator_seed}
"""The seeds by their names in ``labels.seed``; each takes an image, its points and, if there are any, their boxes."""
