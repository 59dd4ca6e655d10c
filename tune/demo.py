"""The service in a few minutes, on synthetic scenes: ``python -m tune.demo [FOLDER]``, or ``make demo``.

Variables like SEMPRIOR__PRECISION=fp32 change the base of its sweep, as of any other.

Draws scenes, searches for the best settings with a small sweep in a Ray of its own, shows the ranking, fetches the best
checkpoint, scores its student and its teacher on scenes that no trial saw, and shows how first pseudo-masks became
predictions.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from semprior.errors import UserError
from semprior.evaluate import METRICS, Evaluation
from semprior.progress import say
from semprior.storage import open_storage
from tune.catalogue import create_sweep
from tune.commands.fetch import pull
from tune.commands.ranking import top
from tune.commands.submit import begin
from tune.sweep import SweepSpec, load_sweep

COUNT, SEED = 140, 1
_ROWS = 5


def demo(
    folder: Path, console: Console, count: int = COUNT, shorten: Callable[[SweepSpec], SweepSpec] | None = None
) -> list[Evaluation]:
    """Draw scenes, run the sweep ``demo`` on them and show the results.

    Args:
        folder: ``scenes/``, ``runs/``, ``best/`` and ``picture.png`` in it are replaced.
        console: shows progress and results.
        count: number of scenes.
        shorten: makes a shorter sweep of the one that ships.

    Returns:
        The test split's metrics of the best student and its teacher.

    Raises:
        UserError: a variable is mistaken, the extra ``[offline]`` is not installed, or the disk is full.
    """
    import torch

    from semprior.data.scenes import write_scenes
    from semprior.evaluate import evaluate
    from semprior.load import load_student, load_teacher

    scenes, runs, best = folder / "scenes", folder / "runs", folder / "best"
    with resources.as_file(resources.files("tune") / "sweeps" / "demo.yaml") as file:
        spec = load_sweep(file, os.environ)
    spec = spec.model_copy(update={"data": str(scenes.absolute()), "storage": str(runs.absolute())})
    spec = shorten(spec) if shorten else spec
    for old in (scenes, runs, best):
        shutil.rmtree(old, ignore_errors=True)
    say(console, f"drawing {count} infrared scenes into {scenes}")
    write_scenes(scenes, count, SEED)
    view = begin(create_sweep(open_storage(runs), spec.name, spec), None, False, console)
    if view is None or view.word != "done":
        raise UserError(f"the sweep did not end: {view.note if view is not None else 'stopped'}")
    top(spec.name, str(runs), spec.budget.trials, None, "table", console)
    pull(f"{spec.name}:best", best, str(runs), console)
    cpu = torch.device("cpu")
    evaluations = [evaluate(load_student(best, cpu), scenes), evaluate(load_teacher(best, cpu), scenes)]
    console.print(_table(evaluations))
    draw(best, scenes, folder / "picture.png")
    say(console, f"{folder / 'picture.png'}: from the first pseudo-masks to the student, beside the truth")
    say(console, f"try: semprior predict {best} {scenes / 'images'}/*.png --out {folder / 'predictions'} --overlay")
    return evaluations


def draw(checkpoint: Path, scenes: Path, path: Path) -> None:
    """Write the picture of a checkpoint: images with targets that it learned from, and their true masks."""
    import torch

    from semprior.cache import cache_folder
    from semprior.checkpoint import find_checkpoint, load_checkpoint
    from semprior.config import Resolved, unflatten
    from semprior.data.images import read_mask
    from semprior.data.layout import find_layout
    from semprior.panels import run_strips, write_strips
    from semprior.prepare import load_features, read_training_set
    from semprior.trainer import Trainer

    snapshot, device = load_checkpoint(find_checkpoint(checkpoint)), torch.device("cpu")
    config, cache = unflatten(snapshot.values["config"]), cache_folder()
    training_set = read_training_set(find_layout(scenes), Resolved(config, frozenset()), _hush, cache)
    trainer = Trainer(config, training_set, load_features(config, training_set, cache, device, _hush), device)
    trainer.restore(snapshot)
    learned = [*training_set.train_indices, *training_set.validation_indices]
    shown = [index for index in learned if len(training_set.scenes[index].points)][:_ROWS]
    names = [training_set.scenes[index].name for index in shown]
    truths = {name: read_mask(scenes / "labels" / f"{name}.png") for name in names}
    write_strips(path, run_strips(trainer, shown, {name: mask for name, mask in truths.items() if mask is not None}))


def _hush(_: str) -> None:
    """The trials have said it."""


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
        print(f"semprior-tune: {error}", file=sys.stderr)
        return 2
    except typer.Exit as ended:
        return ended.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
