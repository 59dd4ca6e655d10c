"""Images a second on one core: the statistics by which images are clustered, plain against ours, and the clustering.

    python -m benchmarks.statistics [--data DIR] [--count N] [--rounds R] [--json]

The training and validation images, decoded beforehand; no point or mask is used. First both paths must agree on every
image. Plain goes over the images once; ours over the same ones in rounds, of which the fastest counts. Images a second
are by processor time, on which the ratio rests, and by the clock; both agree on a machine that does nothing else.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.machine import describe_machine, load
from benchmarks.plain import statistics as plain
from semprior.clustering.cluster import cluster
from semprior.clustering.statistics import STATISTICS, image_statistics
from semprior.data.layout import find_layout, intensity_range, read_scenes
from semprior.errors import UserError

DATA = Path("../shared/data/sirst-v1")


# By how much plain, in float64, and ours may differ: relative, and absolute for values near 0. What ours computes in
# single precision has its own, by the beginning of the name.
EXACT = (1e-6, 1e-9)
ROUNDED = {
    "edge_anisotropy": (1e-5, 1e-7),
    "mscn_variance": (2e-4, 1e-5),  # ours subtracts squares from each other in single precision
    "mscn_kurtosis": (1e-3, 1e-3),
    "spectrum_": (2e-5, 5e-6),
    "gabor_": (2e-4, 1e-5),  # plain cuts the filters off
    "dog_": (1e-5, 1e-4),
    "illumination": (1e-5, 2e-4),
    "scale_variance_": (1e-5, 5e-6),
}


class Disagreement(Exception):
    """Plain and ours differ; a ratio of their speeds would mean nothing."""


def disagreements(expected: Mapping[str, float], found: np.ndarray) -> list[str]:
    """In what two computations of one picture's statistics differ by more than the tolerances above.

    Args:
        expected: plain, by name, in the order of `STATISTICS`.
        found: (55,) float64, ours.

    Returns:
        ``name: plain VALUE, ours VALUE`` each; a missing value agrees with a missing value only.
    """
    apart = []
    for name, ours in zip(STATISTICS, found, strict=True):
        relative, absolute = next((t for start, t in ROUNDED.items() if name.startswith(start)), EXACT)
        if not np.isclose(ours, expected[name], relative, absolute, equal_nan=True):
            apart.append(f"{name}: plain {expected[name]:.9g}, ours {ours:.9g}")
    return apart


def measure_plain(images: Sequence[np.ndarray]) -> dict[str, float]:
    """Figures of the plain path for (H, W) uint8 images, which ours must agree with.

    Returns:
        ``plain_images_per_s`` and ``plain_images_per_s_clock``.

    Raises:
        Disagreement: for the first image on which the paths differ, saying in what.
    """
    plain.image_statistics(images[0])  # first calls load what they need
    began = time.process_time(), time.perf_counter()
    expected = [plain.image_statistics(image) for image in images]
    processor, clock = time.process_time() - began[0], time.perf_counter() - began[1]
    for index, (image, values) in enumerate(zip(images, expected, strict=True)):
        if apart := disagreements(values, image_statistics(image)):
            raise Disagreement(f"plain and ours differ on image {index}: {'; '.join(apart)}")
    return {"plain_images_per_s": len(images) / processor, "plain_images_per_s_clock": len(images) / clock}


def measure(images: Sequence[np.ndarray], count: int, rounds: int) -> dict[str, float]:
    """Figures of ours for (H, W) uint8 images.

    Returns:
        ``images``, ``pixels`` (of an average image), ``images_per_s`` and ``images_per_s_clock`` (best round each),
        ``clusters`` (asked for), ``clusters_found`` and ``cluster_s`` (processor time of one clustering).
    """
    processor, clock = [], []
    for _ in range(rounds):
        began = time.process_time(), time.perf_counter()
        statistics = np.stack([image_statistics(image) for image in images])
        processor.append(time.process_time() - began[0])
        clock.append(time.perf_counter() - began[1])
    began_clustering = time.process_time()
    labels = cluster(statistics, count)
    return {
        "images": len(images),
        "pixels": sum(image.size for image in images) / len(images),
        "images_per_s": len(images) / min(processor),
        "images_per_s_clock": len(images) / min(clock),
        "clusters": count,
        "clusters_found": int(labels.max()) + 1,
        "cluster_s": time.process_time() - began_clustering,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, 1 where plain and ours differ, or 2 where the data set has a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.statistics", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help=f"a data set (default {DATA})")
    parser.add_argument("--count", type=int, default=64, help="clusters, at most one an image (default 64)")
    parser.add_argument("--rounds", type=int, default=5, help="passes over the images (default 5)")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.rounds < 1:
        parser.error("--count and --rounds must be at least 1")
    try:
        layout = find_layout(options.data)
        intensity = intensity_range(layout)
        splits = [split for split in ("train", "val") if split in layout.splits]
        images = [scene.image for split in splits for scene in read_scenes(layout, split, intensity)]
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    busy = load()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with threadpool_limits(limits=1):
            figures = measure_plain(images) | measure(images, min(options.count, len(images)), options.rounds)
    except Disagreement as difference:
        print(difference, file=sys.stderr)
        return 1
    finally:
        cv2.setNumThreads(threads)
    figures["ratio"] = figures["images_per_s"] / figures["plain_images_per_s"]
    if options.json:
        print(json.dumps(figures | {"load_before": busy, "machine": describe_machine()}))
        return 0
    table = Table("what", "figure", title=f"{describe_machine()}; load before: {busy}", title_justify="left")
    table.add_row("images", f"{figures['images']} of {figures['pixels']:.0f} pixels on average")
    for what, suffix in (("processor time", ""), ("clock", "_clock")):
        table.add_row(f"plain, {what}", f"{figures[f'plain_images_per_s{suffix}']:.1f} images/s")
        table.add_row(f"ours, {what}", f"{figures[f'images_per_s{suffix}']:.0f} images/s")
    table.add_row("ratio, processor time", f"{figures['ratio']:.1f}")
    table.add_row(f"{figures['clusters']} clusters", f"{figures['cluster_s']:.2f} s")
    Console(soft_wrap=True).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
