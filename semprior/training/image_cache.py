"""The images of a data set that a run trains on: points, masks, seeds, statistics, clusters, made once a machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

import semprior
from semprior.clustering.cluster import cluster
from semprior.clustering.statistics import STATISTICS, image_statistics
from semprior.data.annotations import POINT_FOLDER, POINT_TABLE
from semprior.data.layout import MASK_FOLDERS, IntensityRange, Layout, Masks, Scene, each_scene, intensity_range
from semprior.data.training_set import Seed
from semprior.io.array_cache import Arrays, key_of, shelved, unpack
from semprior.labels.seeds import SEEDS


class Pictures:
    """Training images, then validation images, in the order of their splits.

    Args:
        layout: of the data set.
        masks: whether those of the training images are wanted.
        cache: where arrays are shared; none: nowhere.

    Raises:
        UserError: the data set has a fault.
    """

    def __init__(self, layout: Layout, masks: Masks, cache: Path | None) -> None:
        self._layout, self._masks, self._cache = layout, masks, cache
        self._key = key_of([*_facts(layout), masks], _code("data")) if cache is not None else ""
        held = shelved(cache, self._key, self._read)
        self.intensity = IntensityRange(*held["intensity"].tolist())
        self.train = len(layout.splits["train"])
        self.scenes = _scenes([*layout.splits["train"], *layout.splits.get("val", ())], held)

    def test(self) -> list[Scene]:
        """The images of the test split with their masks, without points.

        Raises:
            UserError: there is no such split, or no masks.
        """

        def make() -> Iterator[Arrays]:
            return map(_parts, each_scene(self._layout, "test", self.intensity, masks="required"))

        held = shelved(self._cache, key_of([self._key, "test"]), make)
        return _scenes(self._layout.splits["test"], held)

    def seeds(self, how: str) -> list[Seed]:
        """The first pseudo-mask of each image, by the setting `labels.seed`."""

        def make() -> Iterator[Arrays]:
            for scene in self.scenes:
                seed = SEEDS[how](scene.image, scene.points)
                yield {"masks": seed.mask.reshape(-1), "succeeded": seed.succeeded}

        held = shelved(self._cache, key_of([self._key, "seeds", how], _code("labels")), make)
        masks = unpack(held["masks"], [scene.image.shape for scene in self.scenes])
        succeeded = unpack(held["succeeded"], [(len(scene.points),) for scene in self.scenes])
        return [Seed(mask, found) for mask, found in zip(masks, succeeded, strict=True)]

    def statistics(self) -> np.ndarray:
        """(n, 55) statistics of the images."""

        def make() -> Iterator[Arrays]:
            return ({"statistics": image_statistics(scene.image)[None]} for scene in self.scenes)

        return shelved(self._cache, self._statistics_key, make)["statistics"]

    def clusters(self, order: Sequence[int], count: int, seed: int) -> np.ndarray:
        """(n,) cluster of each image, in another order."""

        def make() -> Iterable[Arrays]:
            return [{"clusters": cluster(self.statistics()[np.asarray(order)], count, seed)}]

        code = [Path(semprior.__file__).parent / "clusters.py"]
        key = key_of([self._statistics_key, list(order), count, seed], code)
        return shelved(self._cache, key, make)["clusters"]

    @property
    def _statistics_key(self) -> str:
        return key_of([self._key, "statistics", STATISTICS], _code("statistics"))

    def _read(self) -> Iterator[Arrays]:
        intensity = intensity_range(self._layout)
        yield {"intensity": np.array([intensity.low, intensity.high])}
        yield from map(_parts, each_scene(self._layout, "train", intensity, masks=self._masks))
        yield from map(_parts, each_scene(self._layout, "val", intensity))


def _parts(scene: Scene) -> Arrays:
    """What lies on the shelf of a scene; `_scenes` takes it down."""
    return {
        "shapes": np.array([scene.image.shape]),
        "images": scene.image.reshape(-1),
        "counts": np.array([len(scene.points)]),
        "points": scene.points.astype(np.int64).reshape(-1),
        "masked": np.array([scene.mask is not None]),
        "masks": np.zeros(0, bool) if scene.mask is None else scene.mask.reshape(-1),
    }


def _scenes(names: Iterable[str], held: Arrays) -> list[Scene]:
    """Scenes whose arrays are views into the shelf's."""
    shapes = [tuple(shape) for shape in held["shapes"].tolist()]
    there = held["masked"].tolist()
    images = unpack(held["images"], shapes)
    points = unpack(held["points"], [(count, 2) for count in held["counts"].tolist()])
    masks = iter(unpack(held["masks"], [shape for shape, known in zip(shapes, there, strict=True) if known]))
    return [
        Scene(name, image, marked, next(masks) if known else None)
        for name, image, marked, known in zip(names, images, points, there, strict=True)
    ]


def _facts(layout: Layout) -> list[str]:
    """Everything that may change what is read: names of splits, and name, size and time of every file."""
    folders = [layout.root / name for name in ("images", *MASK_FOLDERS, POINT_FOLDER) if (layout.root / name).is_dir()]
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    files += [layout.root / POINT_TABLE] if (layout.root / POINT_TABLE).is_file() else []
    stamps = [(path.relative_to(layout.root), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return [str(layout.root.resolve()), str(layout.splits), *map(str, stamps)]


def _code(part: str) -> list[Path]:
    """The modules of a part of this package and this one, whose change makes anew what they made."""
    return [Path(__file__), *sorted((Path(semprior.__file__).parent / part).glob("*.py"))]
