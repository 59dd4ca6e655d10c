"""A sweep in a few minutes, on synthetic scenes: ``python -m tune.cli.demo [FOLDER]``, or ``make demo``.

Draws scenes, searches for the best settings with a small sweep in a local Ray, shows the ranking, fetches the best
checkpoint, evaluates its student and its teacher on scenes that no trial saw, and draws how the first pseudo-masks
became predictions. As for any sweep, variables like SEMPRIOR__PRECISION=fp32 change the base.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from semprior.data.remote_data import data_identity
from semprior.deployment.evaluate import Evaluation
from semprior.errors import UserError
from semprior.reporting.evaluation_tables import METRIC_COLUMNS
from semprior.reporting.terminal import console, print_error, say
from tune.cli.pull import pull
from tune.cli.submit import begin
from tune.cli.top_show import top
from tune.launch.target import read_target
from tune.spec.sweep_file import SweepSpec, load_sweep
from tune.store.sweeps import create_sweep

COUNT, SEED = 140, 1
_ROWS = 5


def demo(
    folder: Path,
    environment: Mapping[str, str],
    console: Console,
    count: int = COUNT,
    shorten: Callable[[SweepSpec], SweepSpec] | None = None,
) -> list[Evaluation]:
    """Draw scenes, run the sweep ``demo`` on them and show the results.

    Args:
        folder: folder in which ``scenes/``, ``runs/``, ``best/`` and ``picture.png`` are replaced.
        environment: environment variables.
        console: console for progress and results.
        count: number of scenes.
        shorten: makes a shorter sweep from the packaged one.

    Returns:
        The test split's metrics of the best student and its teacher.

    Raises:
        UserError: an environment variable is mistaken, the extra ``[offline]`` is not installed, or the disk is full.
    """
    import torch

    from semprior.data.synthetic.scenes import write_scenes
    from semprior.deployment.evaluate import evaluate
    from semprior.deployment.load_model import load_student, load_teacher

    scenes, runs, best = folder / "scenes", folder / "runs", folder / "best"
    target = read_target(environment, storage=str(runs))
    with resources.as_file(resources.files("tune") / "sweeps" / "demo.yaml") as file:
        spec = load_sweep(file, target.sweep_variables)
    spec = spec.model_copy(update={"data": str(scenes.absolute()), "storage": str(runs.absolute())})
    spec = shorten(spec) if shorten else spec
    for old in (scenes, runs, best):
        shutil.rmtree(old, ignore_errors=True)
    say(console, f"drawing {count} infrared scenes into {scenes}")
    write_scenes(scenes, count, SEED)
    view = begin(create_sweep(target.storage(), spec.name, spec, data_identity(scenes)), target, None, False, console)
    if view is None or view.state != "done":
        raise UserError(f"the sweep did not end: {view.note if view is not None else 'stopped'}")
    top(spec.name, target, spec.budget.trials, None, "table", console)
    pull(f"{spec.name}:best", best, target, console)
    cpu = torch.device("cpu")
    evaluations = [evaluate(load_student(best, cpu), scenes), evaluate(load_teacher(best, cpu), scenes)]
    console.print(_table(evaluations))
    draw(best, scenes, folder / "picture.png")
    say(console, f"{folder / 'picture.png'}: from the first pseudo-masks to the student, beside the truth")
    say(console, f"try: semprior predict {best} {scenes / 'images'}/*.png --out {folder / 'predictions'} --overlay")
    return evaluations


def draw(checkpoint: Path, scenes: Path, path: Path) -> None:
    """Write the picture of a checkpoint: training images with targets, predictions, and true masks."""
    import torch

    from semprior.config.schema import Resolved, unflatten
    from semprior.data.images import read_mask
    from semprior.io.cache_folder import cache_folder
    from semprior.io.checkpoint import find_checkpoint, load_checkpoint
    from semprior.reporting.prediction_figure import figure_rows, write_figure
    from semprior.training.prepare import prepare_trainer

    snapshot = load_checkpoint(find_checkpoint(checkpoint))
    trainer = prepare_trainer(
        Resolved(unflatten(snapshot.values["config"]), frozenset()),
        scenes,
        torch.device("cpu"),
        threads=torch.get_num_threads(),
        cache=cache_folder(),
        say=lambda _: None,  # the trials have said it
    )
    trainer.restore(snapshot)
    training_set = trainer.training_set
    learned = [*training_set.train_indices, *training_set.validation_indices]
    shown = [index for index in learned if len(training_set.scenes[index].points)][:_ROWS]
    names = [training_set.scenes[index].name for index in shown]
    truths = {name: read_mask(scenes / "labels" / f"{name}.png") for name in names}
    write_figure(path, figure_rows(trainer, shown, {name: mask for name, mask in truths.items() if mask is not None}))


def _table(evaluations: Sequence[Evaluation]) -> Table:
    found = evaluations[0].metrics
    title = f"test split: {found.images} scenes, {found.targets} targets"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for _, label, _, _ in METRIC_COLUMNS:
        table.add_column(label, justify="right")
    for network, evaluation in zip(("student", "teacher"), evaluations, strict=True):
        cells = []
        for name, _, factor, digits in METRIC_COLUMNS:
            value, error = getattr(evaluation.metrics, name) * factor, evaluation.errors[name] * factor
            cells.append(f"{value:.{digits - 1}f} ± {error:.{digits - 1}f}")  # fits 80 columns
        table.add_row(network, *cells)
    return table


def main(arguments: Sequence[str]) -> int:
    """Run the demo in the folder of the first argument, else in ``demo``; returns the exit code."""
    try:
        demo(Path(arguments[0] if arguments else "demo"), os.environ, console())
    except UserError as error:
        print_error("semprior-tune", str(error))
        return 2
    except typer.Exit as ended:
        return ended.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
