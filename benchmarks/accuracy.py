"""What a preset reaches on a real data set, with the method and without it, and how well points choose the epoch.

    python -m benchmarks.accuracy --data DIR [--preset quick] [--seeds 0 1 2] [--out runs/accuracy] [--json]

For each seed it trains twice: as the preset says (`method`), and with SCAM, outer steps and clusters off (`plain`). The
epoch is chosen by `point_score` on the holdout; the test split is read once, after training. Beside it stands the test
IoU of the epoch that the holdout's masks would have chosen, and the Spearman correlation, over the evaluated epochs, of
`point_score` with the holdout's IoU. A run that is done is kept in the output folder, its two checkpoints too, and not
repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.machine import describe_machine
from semprior.allocator import keep_freed_memory
from semprior.checkpoint import save_checkpoint
from semprior.config import parse_settings, resolve
from semprior.data.layout import find_layout
from semprior.evaluate import evaluate
from semprior.files import write_atomically
from semprior.load import LoadedTeacher, Student, load_student, load_teacher
from semprior.prepare import load_features, read_training_set
from semprior.trainer import Trainer

VARIANTS: dict[str, list[str]] = {
    "method": [],
    "plain": ["scam.stages=none", "outer.every=0", "clusters.count=1"],
}
METRICS = ("iou", "niou", "pd", "fa")
CHOSEN_BY = {"by-points": "holdout/point_score", "by-masks": "holdout/iou"}
REPORTS = "reports.jsonl"


def train(
    data: Path,
    preset: str,
    settings: list[str],
    seed: int,
    device: torch.device,
    kept: Path,
    say: Callable[[str], None],
) -> None:
    """Train once; leaves the epochs chosen by points and by masks, and last of all the reports of all epochs."""
    resolved = resolve(preset, flags=parse_settings([f"seed={seed}", *settings]))
    training_set = read_training_set(find_layout(data), resolved, say)
    features = load_features(resolved.config, training_set, kept.parent / "features", device, say)
    trainer = Trainer(resolved.config, training_set, features, device)
    best = dict.fromkeys(CHOSEN_BY, -1.0)
    lines = []
    for report in trainer.run():
        lines.append(json.dumps(asdict(report)))
        for by, metric in CHOSEN_BY.items():
            if report.scores and report.scores[metric] >= best[by]:
                best[by] = report.scores[metric]
                save_checkpoint(kept / by, trainer.snapshot())
        say(f"{kept.name}: epoch {report.epoch + 1} of {resolved.config.epochs}")
    write_atomically(kept / REPORTS, ("\n".join(lines) + "\n").encode())


def score(data: Path, device: torch.device, kept: Path) -> dict[str, Any]:
    """Read the test split once for a run that `train` left; the figures of its student and teacher."""
    reports = [json.loads(line) for line in (kept / REPORTS).read_text().splitlines()]
    curve = [[report["scores"][metric] for metric in CHOSEN_BY.values()] for report in reports if report["scores"]]
    students = {by: load_student(kept / by, device) for by in CHOSEN_BY}
    teacher = load_teacher(kept / "by-points", device)

    def on_test(model: Student | LoadedTeacher) -> dict[str, float]:
        found = evaluate(model, data).metrics
        return {name: getattr(found, name) for name in METRICS}

    return {
        "seed": teacher.origin.config.seed,
        "minutes": sum(report["seconds"] for report in reports) / 60,
        "epoch": students["by-points"].origin.epoch - 1,
        "student": on_test(students["by-points"]),
        "teacher": on_test(teacher),
        "epoch_by_masks": students["by-masks"].origin.epoch - 1,
        "student_by_masks": on_test(students["by-masks"]),
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
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
    device = torch.device(arguments.device)
    for seed in arguments.seeds:
        for variant in arguments.variants:
            kept = arguments.out / f"{arguments.preset}-{variant}-{seed}"
            if not (kept / REPORTS).exists():
                settings = [*VARIANTS[variant], *arguments.settings]
                train(arguments.data, arguments.preset, settings, seed, device, kept, console.print)
            results[variant].append(score(arguments.data, device, kept))
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
