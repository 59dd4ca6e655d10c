"""Images a second on one core: the statistics by which images are clustered, and the clustering itself.

    python -m benchmarks.statistics [--data DIR] [--count N] [--rounds R] [--json]

The training and validation images, decoded beforehand; no point or mask is used. Images a second are those of the
fastest round, by processor time and by the clock, which agree on a machine that does nothing else.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from benchmarks.machine import describe_machine, load
from semprior.clusters import cluster
from semprior.data.layout import find_layout, intensity_range, read_scenes
from semprior.errors import UserError
from semprior.statistics import image_statistics

DATA = Path("../shared/data/sirst-v1")


def measure(images: Sequence[np.ndarray], count: int, rounds: int) -> dict[str, float]:
    """Figures for (H, W) uint8 images.

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
    """Run the benchmark; 0, or 2 where the data set has a fault."""
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
            figures = measure(images, min(options.count, len(images)), options.rounds)
    finally:
        cv2.setNumThreads(threads)
    if options.json:
        print(json.dumps(figures | {"load_before": busy, "machine": describe_machine()}))
        return 0
    table = Table("what", "figure", title=f"{describe_machine()}; load before: {busy}", title_justify="left")
    table.add_row("images", f"{figures['images']} of {figures['pixels']:.0f} pixels on average")
    table.add_row("statistics, processor time", f"{figures['images_per_s']:.0f} images/s")
    table.add_row("statistics, clock", f"{figures['images_per_s_clock']:.0f} images/s")
    table.add_row(f"{figures['clusters']} clusters", f"{figures['cluster_s']:.2f} s")
    Console(soft_wrap=True).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
