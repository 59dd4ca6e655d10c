"""The images of a run with points, masks, seeds, statistics and clusters, computed once per machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from semprior.clustering.cluster import CLUSTERS_VERSION, cluster
from semprior.clustering.statistics import STATISTICS, STATISTICS_VERSION, image_statistics
from semprior.config.true_masks import TRUE_MASKS
from semprior.data.images import IntensityRange
from semprior.data.layout import SCENES_VERSION, Layout, Scene, content_of, intensity_range, iter_scenes
from semprior.data.training_set import Seed
from semprior.errors import UserError
from semprior.io.array_cache import COMPUTED_BY, Arrays, cached_arrays, key_of, unpack
from semprior.labels.seeds import SEEDS, SEEDS_VERSION


class CachedImages:
    """Training images, then validation images, in the order of their splits, and the arrays computed from them.

    Args:
        layout: of the data set.
        cache: folder of arrays that runs share; None to compute them for this run alone.

    Raises:
        UserError: the data set has a fault.
    """

    def __init__(self, layout: Layout, cache: Path | None) -> None:
        self._layout, self._cache = layout, cache
        self._key = key_of([SCENES_VERSION, *COMPUTED_BY, *content_of(layout)]) if cache is not None else ""
        arrays = cached_arrays(cache, self._key, self._read)
        self.intensity = IntensityRange.restored(arrays["intensity"].tolist())
        self.train = len(layout.splits["train"])
        self.scenes = _scenes([*layout.splits["train"], *layout.splits.get("val", ())], arrays)

    def test(self) -> list[Scene]:
        """The images of the test split with their masks, without points.

        Raises:
            UserError: the data set has no test split, or no masks.
        """

        def make() -> Iterator[Arrays]:
            return map(_parts, iter_scenes(self._layout, "test", self.intensity, masks="required"))

        arrays = cached_arrays(self._cache, key_of([self._key, "test"]), make)
        return _scenes(self._layout.splits["test"], arrays)

    def seeds(self, how: str) -> list[Seed]:
        """The first pseudo-mask of each image, made by the method that the setting `labels.seed` names.

        Raises:
            UserError: they are to be the true masks, and an image has none.
        """
        if how == TRUE_MASKS:
            return [_true_mask(scene) for scene in self.scenes]

        def make() -> Iterator[Arrays]:
            for seed in SEEDS[how](self.scenes, self._layout.subsets):
                yield {"masks": seed.mask.reshape(-1), "succeeded": seed.succeeded}

        arrays = cached_arrays(self._cache, key_of([self._key, SEEDS_VERSION, how]), make)
        masks = unpack(arrays["masks"], [scene.image.shape for scene in self.scenes])
        succeeded = unpack(arrays["succeeded"], [(len(scene.points),) for scene in self.scenes])
        return [Seed(mask, found) for mask, found in zip(masks, succeeded, strict=True)]

    def statistics(self) -> np.ndarray:
        """Statistics of the images, (n, 55) float64."""

        def make() -> Iterator[Arrays]:
            return ({"statistics": image_statistics(scene.image)[None]} for scene in self.scenes)

        return cached_arrays(self._cache, self._statistics_key, make)["statistics"]

    def clusters(self, order: Sequence[int], count: int, seed: int) -> np.ndarray:
        """The cluster of each image, (n,) int64, for the images in the given order."""

        def make() -> Iterable[Arrays]:
            return [{"clusters": cluster(self.statistics()[np.asarray(order)], count, seed)}]

        key = key_of([self._statistics_key, CLUSTERS_VERSION, list(order), count, seed])
        return cached_arrays(self._cache, key, make)["clusters"]

    @property
    def _statistics_key(self) -> str:
        return key_of([self._key, STATISTICS_VERSION, STATISTICS])

    def _read(self) -> Iterator[Arrays]:
        intensity = intensity_range(self._layout)
        yield {"intensity": np.array(intensity.stored())}
        yield from map(_parts, iter_scenes(self._layout, "train", intensity, masks="optional"))
        yield from map(_parts, iter_scenes(self._layout, "val", intensity, masks="optional"))


def _true_mask(scene: Scene) -> Seed:
    if scene.mask is None:
        raise UserError(f"labels.seed={TRUE_MASKS}: image {scene.name} has no mask; start from points: contrast")
    return Seed(scene.mask, np.ones(len(scene.points), bool))


def _parts(scene: Scene) -> Arrays:
    """The arrays of a scene; `_scenes` is the inverse."""
    return {
        "shapes": np.array([scene.image.shape]),
        "images": scene.image.reshape(-1),
        "counts": np.array([len(scene.points)]),
        "points": scene.points.astype(np.int64).reshape(-1),
        "boxed": np.array([scene.boxes is not None]),
        "boxes": np.zeros(0, np.int64) if scene.boxes is None else scene.boxes.astype(np.int64).reshape(-1),
        "masked": np.array([scene.mask is not None]),
        "graded": np.array([scene.graded]),
        "masks": np.zeros(0, bool) if scene.mask is None else scene.mask.reshape(-1),
    }


def _scenes(names: Iterable[str], arrays: Arrays) -> list[Scene]:
    """Scenes whose arrays are views of the cached ones."""
    shapes = [tuple(shape) for shape in arrays["shapes"].tolist()]
    masked = arrays["masked"].tolist()
    images = unpack(arrays["images"], shapes)
    counts, boxed = arrays["counts"].tolist(), arrays["boxed"].tolist()
    points = unpack(arrays["points"], [(count, 2) for count in counts])
    boxes = iter(unpack(arrays["boxes"], [(count, 4) for count, has in zip(counts, boxed, strict=True) if has]))
    masks = iter(unpack(arrays["masks"], [shape for shape, known in zip(shapes, masked, strict=True) if known]))
    return [
        Scene(name, image, targets, next(masks) if known else None, next(boxes) if has else None, graded)
        for name, image, targets, known, has, graded in zip(
            names, images, points, masked, boxed, arrays["graded"].tolist(), strict=True
        )
    ]
