"""The method in a few minutes, on synthetic scenes: ``python -m semprior.demo [FOLDER]``, or ``make demo``.

Draws scenes, trains on their points with a pretrained foundation model that arrives as a package, scores student and
teacher on scenes that training never saw, and shows how first pseudo-masks became predictions.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from semprior.cache import cache_folder
from semprior.checkpoint import load_checkpoint
from semprior.commands.train import Request, train
from semprior.config import Resolved
from semprior.data.images import read_mask
from semprior.data.layout import find_layout
from semprior.data.scenes import write_scenes
from semprior.errors import UserError
from semprior.evaluate import METRICS, Evaluation, evaluate
from semprior.load import load_student, load_teacher
from semprior.panels import run_strips, write_strips
from semprior.prepare import load_features, read_training_set
from semprior.progress import say
from semprior.run_folder import RunFolder
from semprior.trainer import Trainer

COUNT, SEED = 200, 1
SETTINGS = (
    "epochs=16",
    "data.crop=96",
    "data.batch=8",
    "data.target_crops=0.6",
    "clusters.count=16",
    "optim.rate=2.0e-3",
    "optim.average=0.97",  # of a run of few steps
    "select.every=4",
)
"""What the demo changes in the preset ``quick``: small crops and a short schedule, for a machine of two cores."""
_ROWS = 5


def demo(folder: Path, console: Console, count: int = COUNT, settings: Sequence[str] = SETTINGS) -> list[Evaluation]:
    """Draw scenes, train on them and show the results.

    Args:
        folder: ``scenes/``, ``run/`` and ``picture.png`` in it are replaced.
        console: shows progress and results.
        count: number of scenes.
        settings: ``key=value`` texts, on top of the preset ``quick``.

    Returns:
        The test split's metrics of student and teacher.

    Raises:
        UserError: the extra ``[offline]`` is not installed, or the disk is full.
    """
    scenes, out = folder / "scenes", folder / "run"
    for old in (scenes, out):
        shutil.rmtree(old, ignore_errors=True)
    say(console, f"drawing {count} infrared scenes into {scenes}")
    write_scenes(scenes, count, SEED)
    run = train(Request(scenes, out, "quick", settings=tuple(settings), device="cpu"), console)
    cpu = torch.device("cpu")
    evaluations = [evaluate(load_student(out, cpu), scenes), evaluate(load_teacher(out, cpu), scenes)]
    console.print(_table(evaluations))
    draw(run, scenes, folder / "picture.png")
    say(console, f"{folder / 'picture.png'}: from the first pseudo-masks to the student, beside the truth")
    say(console, f"try: semprior predict {out} {scenes / 'images'}/*.png --out {folder / 'predictions'} --overlay")
    return evaluations


def draw(run: RunFolder, scenes: Path, path: Path) -> None:
    """Write the picture of a run's best epoch: images with targets that it learned from, and their true masks."""
    config, device = run.config(), torch.device("cpu")
    training_set = read_training_set(find_layout(scenes), Resolved(config, frozenset()), _hush)
    features = load_features(config, training_set, cache_folder(), device, _hush)
    trainer = Trainer(config, training_set, features, device)
    trainer.restore(load_checkpoint(run.checkpoints.path("best")))
    learned = [*training_set.train_indices, *training_set.validation_indices]
    shown = [index for index in learned if len(training_set.scenes[index].points)][:_ROWS]
    names = [training_set.scenes[index].name for index in shown]
    truths = {name: read_mask(scenes / "labels" / f"{name}.png") for name in names}
    write_strips(path, run_strips(trainer, shown, {name: mask for name, mask in truths.items() if mask is not None}))


def _hush(_: str) -> None:
    """The run has said it."""


def _table(evaluations: Sequence[Evaluation]) -> Table:
    found = evaluations[0].metrics
    title = f"test split: {found.images} scenes, {found.targets} targets"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for _, label, _, _ in METRICS:
        table.add_column(label, justify="right")
    for who, evaluation in zip(("student", "teacher"), evaluations, strict=True):
        cells = []
        for name, _, factor, digits in METRICS:
            value, error = getattr(evaluation.metrics, name) * factor, evaluation.errors[name] * factor
            cells.append(f"{value:.{digits - 1}f} ± {error:.{digits - 1}f}")  # fits 80 columns
        table.add_row(who, *cells)
    return table


def main(arguments: Sequence[str]) -> int:
    """Run the demo in the folder that is named, else in ``demo``; the exit code."""
    try:
        demo(Path(arguments[0] if arguments else "demo"), Console())
    except UserError as error:
        print(f"semprior: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
