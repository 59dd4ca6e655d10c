"""The metrics of a trial's student and teacher in `show`: as recorded, and of parts of the held-out images."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from semprior.deployment.trial_cost import COST_METRICS, SIZE
from semprior.errors import UserError
from semprior.io.foreign_text import visible
from semprior.reporting.terminal import say
from tune.monitor.tables import print_table
from tune.monitor.wording import with_error
from tune.store.sweeps import Sweep
from tune.store.trial_summary import TrialSummary

_LABELS = {
    "point_score": "point score",
    "point_pd": "Pd of points",
    "point_fa": "Fa away from points (1e-6)",
    "iou": "IoU",
    "niou": "nIoU",
    "pd": "Pd",
    "fa": "Fa (1e-6)",
    "threshold": "threshold chosen",
}


def print_recorded(trial: TrialSummary, console: Console) -> None:
    """Print the recorded metrics of the best epoch, with standard errors; nothing before the first evaluation."""
    split = next((name for name in ("holdout", "test") if any(key.startswith(f"{name}/") for key in trial.metrics)), "")
    rows = []
    for name, label in _LABELS.items():
        cells = [_with_error(trial, f"{prefix}/{name}") for prefix in (split, f"{split}/teacher")]
        if any(cells):
            rows.append([label, *cells])
    if rows:
        print_table(console, {split: "left", "student": "right", "teacher": "right"}, rows)


def print_deployed_cost(trial: TrialSummary, console: Console) -> None:
    """Print what the detector costs where it is deployed; nothing if that is not recorded."""
    params, gflop, latency = (trial.metrics.get(name) for name in COST_METRICS)
    if params is not None and gflop is not None and latency is not None:
        shown = f"{params:,.0f} parameters, {gflop:.2f} GFLOP and {latency:.1f} ms"
        say(console, f"detector: {shown} for an image of {SIZE}x{SIZE} on one thread of {visible(trial.last.host)}")


def print_parts(sweep: Sweep, trial: TrialSummary, by: str, console: Console) -> None:
    """Evaluate the best checkpoint on the images that the trial held out, and print the metrics of their parts.

    The test split is not read: it decides nothing while a sweep is compared.

    Args:
        sweep: sweep of the trial.
        trial: summary of the trial.
        by: what the images and targets are broken down by, as in ``semprior evaluate --by``.
        console: console to print on.

    Raises:
        UserError: the trial has no checkpoint or held out no image, the data cannot be read here or have no masks, or
            `by` is unknown.
    """
    from semprior.data.remote_data import local_data
    from semprior.deployment.evaluate import HOLDOUT, check_breakdown, evaluate
    from semprior.deployment.load_model import LoadedTeacher, Student, load_student, load_teacher
    from semprior.reporting.evaluation_tables import show_evaluation
    from semprior.runtime.device import choose_device
    from tune.store.checkpoints import StoredCheckpoint, fetch_checkpoint

    if trial.checkpoint is None or trial.sha256 is None:
        raise UserError(f"{sweep.id}: trial {trial.trial} has no checkpoint yet, so --by has nothing to evaluate")
    data, device = local_data(sweep.spec.data), choose_device("auto")
    check_breakdown(by, data)
    with tempfile.TemporaryDirectory(prefix="semprior-show-") as scratch:
        folder = Path(scratch) / "checkpoint"
        fetch_checkpoint(sweep.storage, StoredCheckpoint(trial.checkpoint, trial.sha256), folder)
        student = load_student(folder, device)
        networks: dict[str, Student | LoadedTeacher] = {"student": student}
        if student.info.vfm:
            networks["teacher"] = load_teacher(folder, device)
        for name, network in networks.items():
            title = f"{name} of trial {trial.trial}, after {student.info.epoch} epochs"
            show_evaluation(evaluate(network, data, HOLDOUT), title, by, console)


def _with_error(trial: TrialSummary, metric: str) -> str:
    value, error = trial.metrics.get(metric), trial.metrics.get(f"{metric}_se")
    if value is None:
        return ""
    return with_error(value, error)
