"""The private memory of one training process on the CPU: how much, and whether it grows.

    python -m benchmarks.memory [--data DIR] [--epochs N] [--settings KEY=VALUE ...] [--json]
    python -m benchmarks.memory --synthetic 20000 [--epochs N] [--json]

It trains in a process of its own, `quick` by default, and reads after every epoch what /proc says is private to it:
pages that no other process shares. Decoded images and feature banks that trials share through the page cache do not
count, as they do not count twice. With `--synthetic N`, N images of 64x64 are drawn for the purpose, so that what grows
with the number of images can be told from what does not.

The first epochs fill what is kept for the whole run; memory is flat if the last epoch holds less than 5 % more than
the one in the middle.
"""

import argparse
import json
import multiprocessing
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.machine import describe_machine, peak_memory
from semprior.errors import UserError

DATA = Path("../shared/data/sirst-v1")
BAR_GB = 4.0
GROWTH = 1.05
SMALL = ("data.crop=64", "vfm.name=tf_efficientnet_lite2", "vfm.weights=random", "clusters.count=1")
_SIDE, _TARGETS = 64, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, 1 where memory grows or passes the bar, 2 where the data set has a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help=f"a data set (default {DATA})")
    parser.add_argument("--synthetic", type=int, metavar="N", help="train on N drawn images of 64x64 instead")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--settings", nargs="*", default=[], metavar="KEY=VALUE", help="leaves of the configuration")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    settings = [f"epochs={options.epochs}", *(SMALL if options.synthetic else ()), *options.settings]
    try:
        with tempfile.TemporaryDirectory(prefix="semprior-memory-") as folder:
            root = options.data
            if options.synthetic:
                root = Path(folder) / "data"
                apart(draw_data, root, options.synthetic)
            images, private, peak = apart(train, root, options.preset, settings, Path(folder) / "cache")
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    flat = private[-1] <= GROWTH * private[len(private) // 2]
    figures = {
        "images": images,
        "private_gb": [round(value / 1e9, 3) for value in private],
        "largest_gb": max(private) / 1e9,
        "peak_resident_gb": peak / 1e9 if peak is not None else None,
        "flat": flat,
        "under_bar": max(private) <= BAR_GB * 1e9,
        "settings": settings,
        "machine": describe_machine(),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        by_epoch = " ".join(f"{value:.2f}" for value in figures["private_gb"])
        print(f"{images} images: private memory after each epoch {by_epoch} GB; {'flat' if flat else 'GROWS'}")
        print(f"largest {figures['largest_gb']:.2f} GB (bar {BAR_GB:g} GB); {describe_machine()}")
    return 0 if flat and figures["under_bar"] else 1


def apart(function, *arguments):  # noqa: ANN001, ANN002, ANN201
    """What `function` returns in a fresh process, whose memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def draw_data(root: Path, count: int) -> None:
    """A data set of `count` noisy images with bright squares; 1 in 20 validates."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("images", "mode"):
        (root / name).mkdir(parents=True)
    rows, names = ["name,x,y"], [f"{number:06d}" for number in range(count)]
    for name in names:
        image = rng.normal(60, 12, (_SIDE, _SIDE))
        for row, column in rng.integers(4, _SIDE - 4, (rng.integers(1, _TARGETS + 1), 2)):
            image[row - 1 : row + 2, column - 1 : column + 2] = 220
            rows.append(f"{name},{column},{row}")
        cv2.imwrite(str(root / "images" / f"{name}.png"), np.clip(image, 0, 255).astype(np.uint8))
    validation = max(1, count // 20)
    (root / "mode" / "train.txt").write_text("\n".join(names[validation:]) + "\n")
    (root / "mode" / "val.txt").write_text("\n".join(names[:validation]) + "\n")
    (root / "points.csv").write_text("\n".join(rows) + "\n")


def train(root: Path, preset: str, settings: Sequence[str], cache: Path) -> tuple[int, list[int], int | None]:
    """Train; images, private bytes after each epoch, and the most bytes that were ever resident."""
    from semprior.allocator import keep_freed_memory
    from semprior.config import parse_settings, resolve
    from semprior.data.layout import find_layout
    from semprior.prepare import load_features, read_training_set
    from semprior.trainer import Trainer

    keep_freed_memory()
    resolved, device = resolve(preset, flags=parse_settings(settings)), torch.device("cpu")
    training_set = read_training_set(find_layout(root), resolved, _silent)
    features = load_features(resolved.config, training_set, cache, device, _silent)
    trainer = Trainer(resolved.config, training_set, features, device)
    private = [private_memory() for _ in trainer.run()]
    return len(training_set.scenes), private, peak_memory()


def private_memory() -> int:
    """Bytes of this process's pages that are shared with nobody and backed by no file in the page cache."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(kb) for kb in re.findall(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE))


def _silent(_line: str) -> None:
    """Takes what a run would say."""


if __name__ == "__main__":
    raise SystemExit(main())
