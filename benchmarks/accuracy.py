"""What a preset reaches on a real data set, with the method and without it, and how well points choose the epoch.

    python -m benchmarks.accuracy --data DIR [--preset quick] [--seeds 0 1 2] [--out runs/accuracy] [--json]
    python -m benchmarks.accuracy --data DIR --variants method fp32 exact --set epochs=25 --out runs/pairs

For each seed it trains twice: as the preset says (`method`), and with SCAM, outer steps and clusters off (`plain`);
`--variants` also knows `fp32`, which does without bf16; `exact`, which runs the foundation model on every crop
instead of cutting its features from the bank; `evolve` and `crossfit`, which refine the pseudo-masks while they train
or by short runs before (whose minutes count); and `ceiling`, the method on true masks instead of pseudo-masks, which
shows what better labels could gain at most.

Each is a run of `semprior train` in the output folder: one that was cut off goes on, and one that is done is not
repeated. The epoch is chosen by `point_score` on the holdout; the test split is read after training, at that epoch
alone. Beside it stands how much higher the holdout's IoU was at the epoch that the holdout's masks would have chosen,
and the Spearman correlation, over the evaluated epochs, of `point_score` with the holdout's IoU. Variants are compared
with the first image by image and seed by seed, on the same test images (`tune.comparison.paired`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.machine import describe_machine
from semprior.cli.train import Request, train
from semprior.config.schema import Config, flatten, parse_settings, resolve
from semprior.config.true_masks import TRUE_MASKS
from semprior.deployment.evaluate import Evaluation, evaluate
from semprior.deployment.load_model import LoadedTeacher, Student, find_checkpoint, load_student, load_teacher
from semprior.errors import UserError
from semprior.evaluation.conventions import CONVENTIONS
from semprior.evaluation.image_sums import MASK_TERMS, ImageSums, image_sums
from semprior.evaluation.metrics import metric_table
from semprior.io.checkpoint import load_checkpoint
from semprior.pages.run_images import run_images
from semprior.runtime.process_setup import keep_freed_memory
from semprior.training.run_folder import RunFolder
from tune.comparison.paired import Comparison

VARIANTS: dict[str, list[str]] = {
    "method": [],
    "plain": ["scam.stages=none", "outer.every=0", "clusters.count=1"],
    "fp32": ["precision=fp32"],
    "exact": ["vfm.features=exact"],
    "evolve": ["labels.refine=evolve"],
    "crossfit": ["labels.refine=crossfit"],
    "apart": ["outer.shared=false"],
    "ceiling": [f"labels.seed={TRUE_MASKS}", "labels.refine=none"],
}
METRICS = ("iou", "niou", "pd", "fa")
POINTS, MASKS = "holdout/point_score", "holdout/iou"
_WAY_OUT = "give another --out, or remove it"
IMAGES = "images"
"""Key of the terms of student and teacher image by image, which are compared and not printed."""


@dataclass(frozen=True)
class Gain:
    """How much higher the test IoU of some runs is than that of others.

    Attributes:
        iou: the mean over pairs of a seed.
        half: half of its 95% interval; None if it is not known.
        seeds: number of pairs. With a single one, the interval is over the images alone.
    """

    iou: float
    half: float | None
    seeds: int

    def __str__(self) -> str:
        if self.half is None:
            return f"{self.iou:+.4f}"
        over = f"images and {self.seeds} seeds" if self.seeds > 1 else "the images, with a single seed"
        return f"{self.iou:+.4f}, 95% interval {self.iou - self.half:+.4f} to {self.iou + self.half:+.4f} over {over}"


def train_to_the_end(request: Request, config: Config, console: Console) -> None:
    """Train a run, or the rest of one that was cut off; a run that is done is checked and left as it is.

    Args:
        request: the arguments of `semprior train` for a new run.
        config: the settings that the run is to have.
        console: shows the progress.

    Raises:
        UserError: as `semprior.cli.train.train`; or the run was made with other settings or other data.
    """
    if not request.out.exists():
        train(request, console)
        return
    run = RunFolder.open(request.out)
    check_settings(run, config)
    index = run.checkpoints.index()  # the last epoch may be recorded and not be saved yet
    if not index or load_checkpoint(run.checkpoints.path("last")).values["epoch"] < config.epochs:
        train(replace(request, resume=True), console)
        return
    info = load_student(run.root, torch.device("cpu")).info
    snapshot = load_checkpoint(find_checkpoint(run.root))
    if request.data is None or run_images(Path(request.data), info, snapshot) is None:
        raise UserError(f"{run.root}: was trained on other data than {request.data}; {_WAY_OUT}")


def check_settings(run: RunFolder, config: Config) -> None:
    """Check that a run has these settings.

    Raises:
        UserError: it was made with others; the message names the first of them.
    """
    made, asked = flatten(run.config()), flatten(config)
    if run.checkpoints.index():  # a run caps its clusters at the number of its images
        images = len(load_checkpoint(run.checkpoints.path("last")).arrays["clusters"])
        asked["clusters.count"] = min(asked["clusters.count"], images)
    else:
        asked["clusters.count"] = made["clusters.count"]
    other = [key for key, value in asked.items() if made[key] != value]
    if other:
        raise UserError(f"{run.root}: was made with another {other[0]}; {_WAY_OUT}")


def score(data: Path, device: torch.device, run: RunFolder) -> dict[str, Any]:
    """Read the test split for a run that is done; the figures of its student and teacher."""
    lines = run.lines()
    curve = [(line["epoch"], line[POINTS], line[MASKS]) for line in lines if line.get(MASKS) is not None]
    student, teacher = load_student(run.root, device), load_teacher(run.root, device)
    images = {}

    def on_test(model: Student | LoadedTeacher, who: str) -> dict[str, float]:
        found = evaluate(model, data)
        images[who] = sums_of(found)
        return {name: getattr(found.metrics, name) for name in METRICS}

    epoch = student.info.epoch - 1
    chosen = next((iou for at, _, iou in curve if at == epoch), None)
    by_masks = max(curve, key=lambda point: (point[2], point[0]), default=None)
    return {
        "seed": student.info.config.seed,
        "minutes": sum(line["seconds"] or 0.0 for line in lines) / 60,
        "epoch": epoch,
        "student": on_test(student, "student"),
        "teacher": on_test(teacher, "teacher"),
        "epoch_by_masks": by_masks[0] if by_masks else None,
        "holdout_iou_missed": by_masks[2] - chosen if by_masks and chosen is not None else None,
        "spearman": float(spearmanr([c[1] for c in curve], [c[2] for c in curve]).statistic)
        if len(curve) > 2
        else None,
        IMAGES: images,
    }


def sums_of(found: Evaluation) -> ImageSums:
    """The terms of the metrics of an evaluation, image by image."""
    table = metric_table([image.counts for image in found.images], CONVENTIONS[found.convention].empty_union)
    names = [image.name for image in found.images]
    return image_sums(names, dict(zip(MASK_TERMS, table.T, strict=True)))


def gain(runs: list[dict[str, Any]], others: list[dict[str, Any]], who: str) -> Gain:
    """How much higher the test IoU of `runs` is than that of `others`, over the seeds that both have.

    Raises:
        ValueError: they have no seed in common.
    """
    sides = [{found["seed"]: found[IMAGES][who] for found in side} for side in (runs, others)]
    difference = Comparison(sides, "iou").difference(0, 1)
    if difference is None:
        raise ValueError("the runs have no seed in common")
    return Gain(difference.value, difference.half_width(0.95), len(sides[0].keys() & sides[1].keys()))


def medians(runs: list[dict[str, Any]], who: str) -> dict[str, float]:
    """The median of each metric over runs."""
    return {name: statistics.median(found[who][name] for found in runs) for name in METRICS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 2 where data, settings or a kept run have a fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["method", "plain"])
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    keep_freed_memory()
    console = Console(stderr=options.json)
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in options.variants}
    device = torch.device(options.device)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for seed in options.seeds:
            for variant in options.variants:
                settings = [f"seed={seed}", *VARIANTS[variant], *options.settings]
                config = resolve(options.preset, flags=parse_settings(settings)).config
                out = options.out / f"{options.preset}-{variant}-{seed}"
                request = Request(options.data, out, options.preset, None, tuple(settings), options.device)
                train_to_the_end(request, config, console)
                results[variant].append(score(options.data, device, RunFolder.open(out)))
                console.print(_table(results))
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print(str(error), markup=False, highlight=False)
        return 2
    gains = {
        variant: {who: gain(results[variant], results[options.variants[0]], who) for who in ("student", "teacher")}
        for variant in options.variants[1:]
    }
    if options.json:
        summary = {
            variant: {
                "student": medians(runs, "student"),
                "teacher": medians(runs, "teacher"),
                "runs": [{key: value for key, value in found.items() if key != IMAGES} for found in runs],
            }
            for variant, runs in results.items()
        }
        gained = {variant: {who: asdict(one) for who, one in found.items()} for variant, found in gains.items()}
        compared = {"compared_with": options.variants[0], "iou_gain": gained}
        print(json.dumps({"machine": describe_machine(), "preset": options.preset, **summary, **compared}))
        return 0
    for variant, found in gains.items():
        for who, one in found.items():
            console.print(f"{who}, IoU, {variant} less {options.variants[0]}: {one}")
    return 0


def _table(results: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(title="test split: IoU / nIoU / Pd / Fa (1e-6)")
    for name in ("run", "student", "teacher", "epochs by points, masks", "holdout IoU missed", "Spearman", "min"):
        table.add_column(name)

    def four(found: dict[str, float]) -> str:
        return f"{found['iou']:.4f} / {found['niou']:.4f} / {found['pd']:.4f} / {found['fa']:.1f}"

    for variant, runs in results.items():
        for found in runs:
            table.add_row(
                f"{variant}, seed {found['seed']}",
                *(four(found[who]) for who in ("student", "teacher")),
                f"{found['epoch']}, {'-' if found['epoch_by_masks'] is None else found['epoch_by_masks']}",
                "-" if found["holdout_iou_missed"] is None else f"{found['holdout_iou_missed']:.4f}",
                "-" if found["spearman"] is None else f"{found['spearman']:.2f}",
                f"{found['minutes']:.1f}",
            )
        if runs:
            table.add_row(f"{variant}, median", *(four(medians(runs, who)) for who in ("student", "teacher")))
    return table


if __name__ == "__main__":
    sys.exit(main())
