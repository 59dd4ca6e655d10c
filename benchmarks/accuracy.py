"""What a preset reaches on a real data set, with the method and without it, and how well points choose the epoch.

    python -m benchmarks.accuracy --data DIR [--preset quick] [--seeds 3] [--out runs/accuracy] [--json]

For each seed it trains twice: as the preset says (`method`), and with SCAM, outer steps and clusters off (`plain`). The
epoch is chosen by `point_score` on the holdout; the test split is read once, after training. Beside it stands the test
IoU of the epoch that the holdout's masks would have chosen, and the Spearman correlation, over the evaluated epochs, of
`point_score` with the holdout's IoU. A run that is done is kept in the output folder and not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.machine import describe_machine
from semprior.allocator import keep_freed_memory
from semprior.config import parse_settings, resolve
from semprior.data.layout import find_layout, read_scenes
from semprior.infer import student_probabilities, teacher_probabilities
from semprior.metrics import count_image, summarise
from semprior.models.teacher import Teacher
from semprior.prepare import load_features, read_training_set
from semprior.trainer import Trainer

VARIANTS: dict[str, list[str]] = {
    "method": [],
    "plain": ["scam.stages=none", "outer.every=0", "clusters.count=1"],
}
METRICS = ("iou", "niou", "pd", "fa")


def run(data: Path, preset: str, settings: list[str], seed: int, device: torch.device, log: Path) -> dict[str, Any]:
    """Train once and read the test split once; the figures of student and teacher."""
    started = time.perf_counter()
    resolved = resolve(preset, flags=parse_settings([f"seed={seed}", *settings]))
    layout = find_layout(data)
    training_set = read_training_set(layout, resolved, print)
    features = load_features(resolved.config, training_set, log.parent / "features", device, print)
    trainer = Trainer(resolved.config, training_set, features, device)
    chosen: dict[str, tuple[float, int, Teacher]] = {}
    curve = []
    with log.open("w") as lines:
        for report in trainer.run():
            lines.write(json.dumps(asdict(report)) + "\n")
            lines.flush()
            if not report.scores:
                continue
            curve.append((report.scores["holdout/point_score"], report.scores["holdout/iou"]))
            for by in ("holdout/point_score", "holdout/iou"):
                if by not in chosen or report.scores[by] > chosen[by][0]:
                    chosen[by] = report.scores[by], report.epoch, deepcopy(trainer.evaluated)
    minutes = (time.perf_counter() - started) / 60
    scenes = read_scenes(layout, "test", training_set.intensity, masks="required")
    images, bf16 = [scene.image for scene in scenes], resolved.config.precision == "bf16"

    def on_test(probabilities: list[Any]) -> dict[str, float]:
        counts = [
            count_image(p > 0.5, scene.mask)
            for p, scene in zip(probabilities, scenes, strict=True)
            if scene.mask is not None
        ]
        return {name: getattr(summarise(counts), name) for name in METRICS}

    def student(of: Teacher) -> dict[str, float]:
        return on_test(student_probabilities(of.detector, images, training_set.normalisation, device, bf16))

    by_points, by_masks = chosen["holdout/point_score"], chosen["holdout/iou"]
    teacher = teacher_probabilities(by_points[2], images, features.whole, training_set.normalisation, device, bf16)
    return {
        "seed": seed,
        "minutes": minutes,
        "epoch": by_points[1],
        "student": student(by_points[2]),
        "teacher": on_test(teacher),
        "epoch_by_masks": by_masks[1],
        "student_by_masks": student(by_masks[2]),
        "spearman": float(spearmanr(*zip(*curve, strict=True)).statistic) if len(curve) > 2 else None,
    }


def medians(runs: list[dict[str, Any]], who: str) -> dict[str, float]:
    """The median of each metric over runs."""
    return {name: statistics.median(found[who][name] for found in runs) for name in METRICS}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=arguments.json)
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in arguments.variants}
    for seed in range(arguments.seeds):
        for variant in arguments.variants:
            kept = arguments.out / f"{arguments.preset}-{variant}-{seed}.json"
            if not kept.exists():
                settings = [*VARIANTS[variant], *arguments.settings]
                device = torch.device(arguments.device)
                found = run(arguments.data, arguments.preset, settings, seed, device, kept.with_suffix(".jsonl"))
                kept.write_text(json.dumps(found))
            results[variant].append(json.loads(kept.read_text()))
            console.print(_table(results))
    if arguments.json:
        summary = {
            variant: {"student": medians(runs, "student"), "teacher": medians(runs, "teacher"), "runs": runs}
            for variant, runs in results.items()
            if runs
        }
        print(json.dumps({"machine": describe_machine(), "preset": arguments.preset, **summary}))


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
    main()
