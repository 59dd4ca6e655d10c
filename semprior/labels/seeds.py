"""Seeds, the first pseudo-masks, from points.

    for seed in SEEDS["generator"](scenes, {}):
        seed.mask, seed.succeeded

`edge_seed` is the published one (method, section 6); `contrast_seed` overlaps the true masks far better, and
`generator_seeds` better still. `python -m benchmarks.seeds` measures all three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from semprior.data.layout import Scene
from semprior.data.training_set import Seed
from semprior.labels.contrast_seed import contrast_region
from semprior.labels.edge_seed import edge_region
from semprior.labels.generator_seed import Region, generator_regions
from semprior.labels.registration import displacements

SEEDS_VERSION = 2  # increase it when a seed of any image changes: it keys cached seeds

RegionFinder = Callable[[np.ndarray, np.ndarray, int, np.ndarray | None], Region | None]
SeedsOfScenes = Callable[[Sequence[Scene], Mapping[str, str]], Iterator[Seed]]


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


def generator_seeds(scenes: Sequence[Scene], subsets: Mapping[str, str]) -> Iterator[Seed]:
    """The seeds of masks that the generator draws around the points of a data set, registered with the points.

    The regions of all images are found first, since it takes many targets to tell how far those of a size are displaced
    (`displacements`); images with displaced targets are drawn again.

    Args:
        scenes: the images of the data set.
        subsets: of a joined data set, by name; each is registered by itself, as each was annotated by itself.
    """
    regions = [[*map(_cropped, generator_regions(scene.image, scene.points, scene.boxes))] for scene in scenes]
    for scene, found, displacement in zip(scenes, regions, _displaced(scenes, regions, subsets), strict=True):
        if displacement.any():
            found = generator_regions(scene.image, scene.points, scene.boxes, displacement=displacement)
        yield assembled(scene.image, scene.points, found)


def _cropped(found: Region | None) -> Region | None:
    """The same region in the smallest window, since those of all targets are held at once."""
    if found is None:
        return None
    window, region = found
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    place = tuple(
        slice(own.start + part.start, own.start + part.stop) for own, part in zip(window, inside, strict=True)
    )
    return (place[0], place[1]), region[inside].copy()


def _displaced(
    scenes: Sequence[Scene], regions: Sequence[Sequence[Region | None]], subsets: Mapping[str, str]
) -> list[np.ndarray]:
    """The displacement of each target, (P,2) for each image; 0 where no region was found."""
    displaced = [np.zeros((len(scene.points), 2)) for scene in scenes]
    found: dict[str, list[tuple[np.ndarray, int, np.ndarray]]] = {}
    for scene, own, moves in zip(scenes, regions, displaced, strict=True):
        for point, one, move in zip(scene.points, own, moves, strict=True):
            if one is not None:
                window, region = one
                corner = np.array([window[0].start, window[1].start])
                offset = corner + np.argwhere(region).mean(axis=0) - point
                found.setdefault(subsets.get(scene.name, ""), []).append((move, int(region.sum()), offset))
    for targets in found.values():
        moves, areas, offsets = zip(*targets, strict=True)
        for move, by in zip(moves, displacements(np.array(areas), np.array(offsets)), strict=True):
            move[:] = by  # a row of `displaced`
    return displaced


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


def _one_by_one(make: Callable[..., Seed]) -> SeedsOfScenes:
    return lambda scenes, subsets: (make(scene.image, scene.points, scene.boxes) for scene in scenes)


SEEDS: dict[str, SeedsOfScenes] = {
    "contrast": _one_by_one(contrast_seed),
    "edges": _one_by_one(edge_seed),
    "generator": generator_seeds,
}
"""The seeds by their names in ``labels.seed``; each takes the images of a data set and, if it was joined, their subsets
by name, and yields the seeds in the order of the images."""
