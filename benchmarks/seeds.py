"""First pseudo-masks held against the true masks of training and validation images; the test split is never read.

    python -m benchmarks.seeds [--data DIR] [--json]

`edges` are the published seeds, `recipe` thresholds against the median of a ring around the point, as written out
below, `contrast` is what `semprior` uses. Each starts from centroid points, and from coarse ones: a random pixel of
each target, five times over. `contrast, boxes` never leaves the boxes of the true masks, and starts from the points
that `semprior data import` would give them, too. IoU and nIoU are those of the metrics. By size they are of one target
at a time: the component of the seed at its point against its own mask. Milliseconds are processor time per point.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from semprior.data.importing.targets import box_point
from semprior.data.layout import Scene, find_layout, intensity_range, read_scenes
from semprior.data.points import centroid_points, coarse_points, target_boxes
from semprior.data.training_set import Seed
from semprior.errors import UserError
from semprior.evaluation.metrics import count_image, summarise
from semprior.labels.seeds import SEEDS

Make = Callable[[Sequence[Scene], Mapping[str, str]], Iterable[Seed]]
DATA = Path("../shared/data/sirst-v1")
ROUNDS = 5  # of coarse points
SIZES = ((1, 9), (10, 19), (20, 39), (40, 79), (80, None))  # pixels of a target


def recipe_seed(image: np.ndarray, points: np.ndarray, fraction: float = 0.375) -> Seed:
    """The plain contrast seed that ours set out from.

    In a 25x25 window: the background is the median of what lies outside the inner 13x13, the noise 1.4826 times its
    median absolute deviation, the peak the maximum of the 3x3 at the point. Above background + max(`fraction` of the
    rise, 2 noise), the 8-connected component that holds the point; above 400 pixels, or without one, the point alone.

    Args:
        image: (H,W) uint8, grey.
        points: (P,2) int, rows of (row, column).
        fraction: of the peak's rise.
    """
    mask, succeeded = np.zeros(image.shape, bool), np.zeros(len(points), bool)
    for index, (row, column) in enumerate(points.tolist()):
        top, left = max(row - 12, 0), max(column - 12, 0)
        place = (slice(top, row + 13), slice(left, column + 13))
        window = image[place].astype(np.float64)
        r, c = row - top, column - left
        ring = np.ones(window.shape, bool)
        ring[max(r - 6, 0) : r + 7, max(c - 6, 0) : c + 7] = False
        background = np.median(window[ring])
        noise = 1.4826 * np.median(np.abs(window[ring] - background))
        peak = window[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].max()
        above = window > background + max(fraction * (peak - background), 2 * noise)
        _, labels = cv2.connectedComponents(above.astype(np.uint8), connectivity=8)
        region = (labels == labels[r, c]) & above
        succeeded[index] = above[r, c] and np.count_nonzero(region) <= 400
        if succeeded[index]:
            mask[place] |= region
        mask[row, column] = True
    return Seed(mask, succeeded)


METHODS: dict[str, Make] = {
    "edges": SEEDS["edges"],
    "recipe": lambda scenes, _: [recipe_seed(scene.image, scene.points) for scene in scenes],
    "contrast": SEEDS["contrast"],
    "generator": SEEDS["generator"],
}
BOXED = "contrast, boxes"


def measure(
    make: Make,
    scenes: Sequence[Scene],
    points: Sequence[Sequence[np.ndarray]],
    boxes: Sequence[np.ndarray | None] | None = None,
    subsets: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Figures of one kind of seed.

    Args:
        make: yields the seeds of a data set.
        scenes: of it, with masks.
        points: rounds of points, (P,2) for each scene.
        boxes: (P,4) for each scene, limits of the seeds; None for no limit, of one scene or of all.
        subsets: of a joined data set, by name.

    Returns:
        ``iou``, ``niou``, ``succeeded`` (share of the points), ``pixels`` (of an average round), ``ms_per_point``,
        and ``sizes``: ``targets`` and the mean ``iou`` by area.
    """
    counts, seeds, spent, single = [], [], 0.0, []
    limits = boxes or [None] * len(scenes)
    for given in points:
        asked = [replace(scene, points=own, boxes=box) for scene, own, box in zip(scenes, given, limits, strict=True)]
        began = time.process_time()
        made = list(make(asked, subsets))
        spent += time.process_time() - began
        for scene, seed in zip(asked, made, strict=True):
            counts.append(count_image(seed.mask, scene.mask))
            single += _single(seed.mask, scene.mask, scene.points)
        seeds += made
    summary = summarise(counts)
    succeeded = np.concatenate([seed.succeeded for seed in seeds])
    areas, overlaps = np.array(single).reshape(-1, 2).T
    sizes = {}
    for low, high in SIZES:
        chosen = (areas >= low) & (areas <= (np.inf if high is None else high))
        mean = float(overlaps[chosen].mean()) if chosen.any() else None
        sizes[f"{low}+" if high is None else f"{low}-{high}"] = {
            "targets": int(chosen.sum()) // len(points),
            "iou": mean,
        }
    return {
        "iou": summary.iou,
        "niou": summary.niou,
        "succeeded": float(succeeded.mean()) if succeeded.size else None,
        "pixels": sum(int(seed.mask.sum()) for seed in seeds) / len(points),
        "ms_per_point": 1000 * spent / max(succeeded.size, 1),
        "sizes": sizes,
    }


def _single(mask: np.ndarray, truth: np.ndarray, points: np.ndarray) -> list[tuple[int, float]]:
    """Area and IoU of each target, the component of the truth at a point against that of the mask."""
    _, found = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    _, true = cv2.connectedComponents(truth.view(np.uint8), connectivity=8)
    singles = []
    for row, column in points.tolist():
        ours, theirs = found == found[row, column], true == true[row, column]
        singles.append((np.count_nonzero(theirs), np.count_nonzero(ours & theirs) / np.count_nonzero(ours | theirs)))
    return singles


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 where the data set has a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help=f"a data set with masks (default {DATA})")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    try:
        layout = find_layout(options.data)
        intensity = intensity_range(layout)
        scenes = [s for split in ("train", "val") for s in read_scenes(layout, split, intensity, masks="required")]
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    given = {
        "centroid": [[centroid_points(scene.mask) for scene in scenes]],
        "coarse": [[coarse_points(s.mask, ROUNDS * i + k) for i, s in enumerate(scenes)] for k in range(ROUNDS)],
    }
    figures = {
        name: {kind: measure(make, scenes, points, subsets=layout.subsets) for kind, points in given.items()}
        for name, make in METHODS.items()
    }
    boxes = [target_boxes(scene.mask) for scene in scenes]
    of_boxes = [_box_points(scene.image, own) for scene, own in zip(scenes, boxes, strict=True)]
    figures[BOXED] = {
        kind: measure(SEEDS["contrast"], scenes, points, boxes)
        for kind, points in (given | {"box": [of_boxes]}).items()
    }
    images, count = len(scenes), sum(len(points) for points in given["centroid"][0])
    true_pixels = sum(int(scene.mask.sum()) for scene in scenes)
    if options.json:
        about = {"images": images, "points": count, "true_pixels": true_pixels, "machine": describe_machine()}
        print(json.dumps(figures | about))
        return 0
    _print(figures, f"{images} training and validation images, {count} targets of {true_pixels} pixels")
    return 0


def _box_points(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    points = [box_point(image, tuple(box)) for box in boxes.tolist()]
    return np.array(points, np.int64).reshape(-1, 2)


def _print(figures: dict[str, dict[str, dict[str, Any]]], title: str) -> None:
    sizes = list(figures["contrast"]["centroid"]["sizes"].items())
    table = Table(
        "seed", "points", "IoU", "nIoU", "succeeded", "pixels", "ms a point", title=title, title_justify="left"
    )
    by_size = Table("seed", "points", *(f"{size} px ({values['targets']})" for size, values in sizes))
    by_size.title, by_size.title_justify = "mean IoU of single targets by size (targets)", "left"
    for name, kinds in figures.items():
        for kind, found in kinds.items():
            overall = (f"{found[key]:.3f}" for key in ("iou", "niou", "succeeded"))
            table.add_row(name, kind, *overall, f"{found['pixels']:.0f}", f"{found['ms_per_point']:.2f}")
            singles = (values["iou"] for values in found["sizes"].values())
            by_size.add_row(name, kind, *("-" if iou is None else f"{iou:.3f}" for iou in singles))
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(by_size)


if __name__ == "__main__":
    raise SystemExit(main())
