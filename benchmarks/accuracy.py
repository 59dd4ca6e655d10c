"""What a preset reaches on a real data set, with the method and without it, and how well points choose the epoch.

    python -m benchmarks.accuracy --data DIR [--preset quick] [--seeds 0 1 2] [--out runs/accuracy] [--json]
    python -m benchmarks.accuracy --data DIR --variants method fp32 exact --set epochs=25 --out runs/pairs

For each seed it trains twice: as the preset says (`method`), and with SCAM, outer steps and clusters off (`plain`);
`--variants` also knows `fp32`, which does without bf16; `exact`, which runs the foundation model on every crop
instead of cutting its features from the bank; `unrefined` and `crossfit`, which refine the pseudo-masks not at all or
by short runs before (whose minutes count); and `ceiling`, the method on true masks instead of pseudo-masks, which
shows what better labels could gain at most. The epoch is chosen by `point_score` on the holdout; the test split is
read once, after training. Beside it stands the test IoU of the epoch that the holdout's masks would have chosen, and
the Spearman correlation, over the evaluated epochs, of `point_score` with the holdout's IoU. Variants are compared
with the first image by image and seed by seed, on the same test images (`tune.comparison.paired`). A run that is done
is kept in the output folder, its two checkpoints too, and not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.machine import describe_machine
from semprior.config.schema import Config, Resolved, flatten, parse_settings, resolve
from semprior.config.true_masks import TRUE_MASKS
from semprior.deployment.evaluate import Evaluation, evaluate
from semprior.deployment.load_model import LoadedTeacher, Student, load_student, load_teacher
from semprior.errors import UserError
from semprior.evaluation.conventions import CONVENTIONS
from semprior.evaluation.image_sums import MASK_TERMS, ImageSums, image_sums
from semprior.evaluation.metrics import metric_table
from semprior.io.atomic_files import write_atomically
from semprior.io.checkpoint import save_checkpoint
from semprior.runtime.process_setup import keep_freed_memory
from semprior.training.crossfit import crossfit_before
from semprior.training.prepare import prepare_trainer
from tune.comparison.paired import Comparison

VARIANTS: dict[str, list[str]] = {
    "method": [],
    "plain": ["scam.stages=none", "outer.every=0", "clusters.count=1"],
    "fp32": ["precision=fp32"],
    "exact": ["vfm.features=exact"],
    "unrefined": ["labels.refine=none"],
    "crossfit": ["labels.refine=crossfit"],
    "ceiling": [f"labels.seed={TRUE_MASKS}", "labels.refine=none"],
}
METRICS = ("iou", "niou", "pd", "fa")
CHOSEN_BY = {"by-points": "holdout/point_score", "by-masks": "holdout/iou"}
REPORTS = "reports.jsonl"
IMAGES = "images"
"""Key of the terms of student and teacher image by image, which are compared and not printed."""


def train(data: Path, resolved: Resolved, device: torch.device, kept: Path, say: Callable[[str], None]) -> None:
    """Train once; leaves the epochs chosen by points and by masks, and last of all the reports of all epochs."""
    threads, cache = torch.get_num_threads(), kept.parent / "features"
    trainer = prepare_trainer(resolved, data, device, threads=threads, cache=cache, say=say)
    best = dict.fromkeys(CHOSEN_BY, -1.0)
    lines = []
    crossfit = crossfit_before(trainer)
    before = sum(short.seconds for short in crossfit.run()) if crossfit is not None else 0.0
    for report in trainer.run():
        kept_of_report = {name: value for name, value in vars(report).items() if name != "images"}
        kept_of_report["seconds"], before = report.seconds + before, 0.0
        lines.append(json.dumps(kept_of_report))
        for by, metric in CHOSEN_BY.items():
            if report.scores and report.scores[metric] >= best[by]:
                best[by] = report.scores[metric]
                save_checkpoint(kept / by, trainer.snapshot())
        say(f"{kept.name}: epoch {report.epoch + 1} of {resolved.config.epochs}")
    write_atomically(kept / REPORTS, ("\n".join(lines) + "\n").encode())


def score(data: Path, device: torch.device, kept: Path) -> dict[str, Any]:
    """Read the test split once for a run that `train` left; the figures of its student and teacher."""
    reports = [json.loads(line) for line in (kept / REPORTS).read_text(encoding="utf-8").splitlines()]
    curve = [[report["scores"][metric] for metric in CHOSEN_BY.values()] for report in reports if report["scores"]]
    students = {by: load_student(kept / by, device) for by in CHOSEN_BY}
    teacher = load_teacher(kept / "by-points", device)

    images = {}

    def on_test(model: Student | LoadedTeacher, who: str = "") -> dict[str, float]:
        found = evaluate(model, data)
        if who:
            images[who] = sums_of(found)
        return {name: getattr(found.metrics, name) for name in METRICS}

    return {
        "seed": teacher.info.config.seed,
        "minutes": sum(report["seconds"] for report in reports) / 60,
        "epoch": students["by-points"].info.epoch - 1,
        "student": on_test(students["by-points"], "student"),
        "teacher": on_test(teacher, "teacher"),
        "epoch_by_masks": students["by-masks"].info.epoch - 1,
        "student_by_masks": on_test(students["by-masks"]),
        "spearman": float(spearmanr(*zip(*curve, strict=True)).statistic) if len(curve) > 2 else None,
        IMAGES: images,
    }


def sums_of(found: Evaluation) -> ImageSums:
    """The terms of the metrics of an evaluation, image by image."""
    table = metric_table([image.counts for image in found.images], CONVENTIONS[found.convention].empty_union)
    names = [image.name for image in found.images]
    return image_sums(names, dict(zip(MASK_TERMS, table.T, strict=True)))


def gain(runs: list[dict[str, Any]], others: list[dict[str, Any]], who: str) -> tuple[float, float | None]:
    """How much higher the test IoU of `runs` is than that of `others`, over the seeds that both have.

    Returns:
        The mean over pairs of a seed, and half of its 95 % interval, over images and seeds; None for the latter if it
        is not known.
    """
    sides = [{found["seed"]: found[IMAGES][who] for found in side} for side in (runs, others)]
    difference = Comparison(sides, "iou").difference(0, 1)
    if difference is None:
        raise ValueError("the runs have no seed in common")
    return difference.value, difference.half_width(0.95)


def medians(runs: list[dict[str, Any]], who: str) -> dict[str, float]:
    """The median of each metric over runs."""
    return {name: statistics.median(found[who][name] for found in runs) for name in METRICS}


def check_kept(kept: Path, config: Config) -> None:
    """Whether the run that `train` left in a folder is one of `config`.

    Raises:
        UserError: it was made with other settings.
    """
    made = flatten(load_student(kept / "by-points", torch.device("cpu")).info.config)
    made["clusters.count"] = max(made["clusters.count"], config.clusters.count)  # a run caps it at the number of images
    other = [key for key, value in flatten(config).items() if made[key] != value]
    if other:
        raise UserError(f"{kept}: was made with another {other[0]}; give another --out, or remove it")


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
                resolved = resolve(options.preset, flags=parse_settings(settings))
                kept = options.out / f"{options.preset}-{variant}-{seed}"
                if (kept / REPORTS).exists():
                    check_kept(kept, resolved.config)
                else:
                    train(options.data, resolved, device, kept, console.print)
                results[variant].append(score(options.data, device, kept))
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
        compared = {"compared_with": options.variants[0], "iou_gain": gains}
        print(json.dumps({"machine": describe_machine(), "preset": options.preset, **summary, **compared}))
        return 0
    for variant, found in gains.items():
        for who, (mean, half) in found.items():
            interval = "" if half is None else f", 95 % interval {mean - half:+.4f} to {mean + half:+.4f}"
            console.print(f"{who}, IoU, {variant} less {options.variants[0]}: {mean:+.4f}{interval}")
    return 0


def _table(results: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(title="test split: IoU / nIoU / Pd / Fa (1e-6)")
    for name in ("run", "student", "teacher", "student, epoch by masks", "Spearman", "epochs", "min"):
        table.add_column(name)

    def four(found: dict[str, float]) -> str:
        return f"{found['iou']:.4f} / {found['niou']:.4f} / {found['pd']:.4f} / {found['fa']:.1f}"

    for variant, runs in results.items():
        for found in runs:
            table.add_row(
                f"{variant}, seed {found['seed']}",
                *(four(found[who]) for who in ("student", "teacher", "student_by_masks")),
                "-" if found["spearman"] is None else f"{found['spearman']:.2f}",
                f"{found['epoch']}, {found['epoch_by_masks']}",
                f"{found['minutes']:.1f}",
            )
        if runs:
            table.add_row(f"{variant}, median", *(four(medians(runs, who)) for who in ("student", "teacher")))
    return table


if __name__ == "__main__":
    sys.exit(main())
