"""The private memory of one training process on the CPU: how much, and whether it grows.

    python -m benchmarks.memory [--data DIR] [--epochs N] [--settings KEY=VALUE ...] [--json]
    python -m benchmarks.memory --synthetic 20000 [--side PIXELS] [--epochs N] [--json]

It trains in a process of its own, `quick` by default, saves every epoch as a run does, and reads what /proc says is
private to it: its anonymous pages, after every epoch and, twenty times a second, the most there were within it. Decoded
images, seeds and feature banks lie in files that are mapped: trials share them through the page cache, which gives them
up when memory is short, so they do not count. In every epoch there is all that a run does now and then: from the second
on labels evolve, and student and teacher are evaluated on the holdout after outer steps.

With `--synthetic N`, N images are drawn for the purpose, of which no two are equal, so that what grows with the number
of images can be told from what does not. Crops are small there, batches large and the vision model is tiny: what they
hold is the same for any number of images, and so an epoch of 20,000 images takes minutes.

The first epochs fill what is kept for the whole run, so the second half is judged: a line is fitted through what is
held after each of its epochs, and memory is flat if that rises by at most 5 MB an epoch. Images of many sizes leave
holes in the heap, which grows, ever less often, until everything finds room: long runs were constant after some 16
evaluations, of which here each epoch has one, and so 32 epochs are the default. Drawn images have one size, and the
heap is full after some 30 steps, two epochs of 1,000 images: 6 are the default, and fewer images need more. Three
points make a rough line, and so 0.5 % of what is held is allowed there, 6 to 7 MB; 20,000 soft masks of 400 bytes, if
each epoch left its own behind, would be 8 MB.
"""

import argparse
import json
import re
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, linear_regression

import torch
from rich.console import Console

from benchmarks.apart import apart
from benchmarks.machine import describe_machine, peak_memory
from semprior.config.schema import parse_settings, resolve
from semprior.errors import UserError

DATA = Path("../shared/data/sirst-v1")
BAR_GB = 4.0
EPOCHS, EPOCHS_DRAWN, FEWEST = 32, 6, 6
GROWTH_MB = 5.0  # an epoch
GROWTH_DRAWN = 0.005  # of what is held, an epoch
OFTEN = (
    *("labels.refine=evolve", "labels.evolve_after=0", "labels.evolve_every=1"),
    *("select.after=0", "select.every=1", "outer.every=1"),
)
SMALL = ("data.crop=32", "data.batch=64", "vfm.name=test_efficientnet", "vfm.weights=random", "clusters.count=1")
_DISTINCT, _TARGETS = 256, 3
_SAMPLE = 0.05  # seconds


@dataclass(frozen=True)
class Usage:
    """Bytes of a training process.

    Attributes:
        images: it trains and validates on.
        private: after each epoch.
        largest: at most within each epoch.
        prepared: at most before the first epoch, while images, seeds and features are made.
        mapped: of files, after the last epoch; shared with whoever maps them.
        resident: at most, mapped files included; none where /proc does not say.
        evolved: number of epochs in which labels evolved.
    """

    images: int
    private: list[int]
    largest: list[int]
    prepared: int
    mapped: int
    resident: int | None
    evolved: int


@dataclass(frozen=True)
class Verdict:
    """Whether memory grows, in MB an epoch.

    Attributes:
        growth: of the line through what the judged epochs hold; below zero where memory shrinks.
        allowed: the most at which it is flat.
        judged: number of epochs.
    """

    growth: float
    allowed: float
    judged: int

    @property
    def flat(self) -> bool:
        """Whether memory grows no faster than is allowed."""
        return self.growth <= self.allowed


def judge(private: Sequence[int], drawn: bool) -> Verdict:
    """Fit a line, by least squares, to the second half of the epochs.

    Args:
        private: bytes after each of at least `FEWEST` epochs.
        drawn: whether the images were; then the share `GROWTH_DRAWN` is allowed, else `GROWTH_MB`.
    """
    late = [value / 1e6 for value in private[len(private) // 2 :]]
    allowed = GROWTH_DRAWN * fmean(late) if drawn else GROWTH_MB
    return Verdict(linear_regression(range(len(late)), late).slope, allowed, len(late))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, 1 where memory grows or passes the bar, 2 where data or settings have a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help=f"a data set (default {DATA})")
    parser.add_argument("--synthetic", type=int, metavar="N", help="train on N drawn images instead")
    parser.add_argument("--side", type=int, default=128, metavar="PIXELS", help="of drawn images (default 128)")
    parser.add_argument("--epochs", type=int, help=f"default {EPOCHS}, or {EPOCHS_DRAWN} on drawn images")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--settings", nargs="*", default=[], metavar="KEY=VALUE", help="leaves of the configuration")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    drawn = bool(options.synthetic)
    epochs = options.epochs if options.epochs is not None else EPOCHS_DRAWN if drawn else EPOCHS
    settings = [f"epochs={epochs}", *OFTEN, *(SMALL if drawn else ()), *options.settings]
    try:
        check_epochs(options.preset, settings)
        with tempfile.TemporaryDirectory(prefix="semprior-memory-") as folder:
            root = options.data
            if drawn:
                root = Path(folder) / "data"
                apart(draw_data, root, options.synthetic, options.side)
            usage = apart(train, root, options.preset, settings, Path(folder))
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    verdict = judge(usage.private, drawn)
    largest = max(usage.prepared, *usage.largest)
    figures = {
        "images": usage.images,
        "private_gb": [round(value / 1e9, 3) for value in usage.private],
        "largest_gb": [round(value / 1e9, 3) for value in usage.largest],
        "prepared_gb": round(usage.prepared / 1e9, 3),
        "mapped_gb": round(usage.mapped / 1e9, 3),
        "peak_resident_gb": usage.resident / 1e9 if usage.resident is not None else None,
        "evolved_epochs": usage.evolved,
        "growth_mb_per_epoch": round(verdict.growth, 2),
        "allowed_mb_per_epoch": round(verdict.allowed, 2),
        "judged_epochs": verdict.judged,
        "flat": verdict.flat,
        "under_bar": largest <= BAR_GB * 1e9,
        "settings": settings,
        "machine": describe_machine(),
    }
    if options.json:
        print(json.dumps(figures))
    else:
        after, within = (" ".join(f"{value / 1e9:.2f}" for value in of) for of in (usage.private, usage.largest))
        print(f"{usage.images} images: private memory after each epoch {after} GB")
        print(
            f"{'flat' if verdict.flat else 'GROWS'}: {verdict.growth:+.1f} MB an epoch in the last {verdict.judged}"
            f" (allowed {verdict.allowed:.1f})"
        )
        print(f"most within each {within} GB, before the first {usage.prepared / 1e9:.2f} GB (bar {BAR_GB:g} GB)")
        print(f"labels evolved in {usage.evolved} epochs; {usage.mapped / 1e9:.2f} GB of files mapped at the end")
        print(describe_machine())
    return 0 if verdict.flat and figures["under_bar"] else 1


def check_epochs(preset: str, settings: Sequence[str]) -> None:
    """Refuse, before anything is drawn or trained, a run too short to be judged.

    Raises:
        UserError: it is, or its settings have a fault.
    """
    epochs = resolve(preset, flags=parse_settings(settings)).config.epochs
    if epochs < FEWEST:
        raise UserError(f"--epochs: {epochs} are too few to tell whether memory grows; at least {FEWEST} are needed")


def draw_data(root: Path, count: int, side: int) -> None:
    """A data set of `count` noisy images with bright squares, no two of them equal; 1 in 20 validates.

    Noise is drawn for some and shifted for the others, and files are BMP: 20,000 images take seconds.
    """
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("images", "mode"):
        (root / name).mkdir(parents=True)
    noise = rng.normal(60, 12, (min(count, _DISTINCT), side, side)).clip(0, 255).astype(np.uint8)
    rows, names = ["name,x,y"], [f"{number:06d}" for number in range(count)]
    for number, name in enumerate(names):
        image = np.roll(noise[number % _DISTINCT], rng.integers(side, size=2), (0, 1))
        places = rng.integers(4, side - 4, (rng.integers(1, _TARGETS + 1), 2))
        kept = [place for i, place in enumerate(places) if all(abs(place - other).max() > 1 for other in places[:i])]
        for row, column in kept:
            image[row - 1 : row + 2, column - 1 : column + 2] = 220
            rows.append(f"{name},{column},{row}")
        cv2.imwrite(str(root / "images" / f"{name}.bmp"), image)
    validation = max(1, count // 20)
    (root / "mode" / "train.txt").write_text("\n".join(names[validation:]) + "\n", encoding="utf-8")
    (root / "mode" / "val.txt").write_text("\n".join(names[:validation]) + "\n", encoding="utf-8")
    (root / "points.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def train(root: Path, preset: str, settings: Sequence[str], folder: Path) -> Usage:
    """Train, with cache and checkpoints in a folder, and say what it took."""
    from semprior.io.checkpoint import CheckpointFolder
    from semprior.training.prepare import prepare_trainer

    watch = Watch()
    resolved, device = resolve(preset, flags=parse_settings(settings)), torch.device("cpu")
    cache, checkpoints = folder / "cache", CheckpointFolder(folder / "checkpoints")
    threads = torch.get_num_threads()
    trainer = prepare_trainer(resolved, root, device, threads=threads, cache=cache, say=_silent)
    prepared, private, largest, evolved = watch.largest(), [], [], 0
    for report in trainer.run():
        checkpoints.save(trainer.snapshot(), best=report.best)
        private.append(memory("RssAnon"))
        largest.append(watch.largest())
        evolved += report.evolved
    return Usage(
        len(trainer.training_set.scenes), private, largest, prepared, memory("RssFile"), peak_memory(), evolved
    )


class Watch:
    """The most private memory of this process since it was last asked for, from a thread that looks again and again."""

    def __init__(self) -> None:
        self._most = 0
        threading.Thread(target=self._look, daemon=True).start()

    def largest(self) -> int:
        """Bytes; begins anew."""
        most, self._most = self._most, 0
        return max(most, memory("RssAnon"))

    def _look(self) -> None:
        pause = threading.Event()
        while not pause.wait(_SAMPLE):
            self._most = max(self._most, memory("RssAnon"))


def memory(kind: str) -> int:
    """Bytes of this process: ``RssAnon``, private to it, or ``RssFile``, of mapped files."""
    found = re.search(rf"^{kind}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {kind}"
    return 1024 * int(found.group(1))


def _silent(_line: str) -> None:
    """Takes what a run would say."""


if __name__ == "__main__":
    raise SystemExit(main())
