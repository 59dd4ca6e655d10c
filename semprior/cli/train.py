"""`semprior train`: starts a run or resumes one, and leaves its results in a folder."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from semprior.config.schema import (
    Config,
    Resolved,
    environment_leaves,
    flatten,
    parse_settings,
    read_leaves,
    resolve,
    unflatten,
)
from semprior.config.true_masks import true_masks_remark
from semprior.data.remote_data import local_data
from semprior.errors import UserError
from semprior.io.cache_folder import cache_folder
from semprior.io.checkpoint import CheckpointFolder, Snapshot, load_checkpoint
from semprior.io.wording import plural
from semprior.labels.label_history import label_windows
from semprior.reporting.tensorboard import EventFile, open_event_file
from semprior.reporting.terminal import clock, say
from semprior.reporting.training_progress import TrainingProgress
from semprior.runtime.device import change_remark, choose_device, explain_out_of_memory, used_precision
from semprior.training.crossfit import CrossFit, crossfit_before
from semprior.training.prepare import prepare_trainer
from semprior.training.run_folder import RunFolder, refuse_existing
from semprior.training.trainer import EpochReport, Trainer

_FIGURE_EVERY = 5  # evaluations
_MAY_CHANGE = ("epochs", "precision")  # when a run is resumed
_UNCHANGED = "only epochs, precision and the device may change on resume"
_SHOWN = (
    ("point_score", "point score", 4),
    ("point_pd", "Pd of points", 4),
    ("point_fa", "Fa away from points (1e-6)", 2),
    ("iou", "IoU", 4),
    ("niou", "nIoU", 4),
    ("pd", "Pd", 4),
    ("fa", "Fa (1e-6)", 2),
    ("threshold", "threshold chosen", 2),
)
"""Name, label and digits of the metrics in the table that ends a run."""


@dataclass(frozen=True)
class Request:
    """The arguments of `semprior train`.

    Attributes:
        data: folder or address of the data set; None, on resume, for the one that the run recorded.
        out: folder of the run.
        preset: name of a preset; None for the one that the settings name, else ``standard``.
        file: YAML file of settings.
        settings: ``key=value`` texts.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: whether to resume the run in `out`.
    """

    data: str | Path | None
    out: Path
    preset: str | None = None
    file: Path | None = None
    settings: tuple[str, ...] = ()
    device: str = "auto"
    resume: bool = False


class _Messages:
    """Prints messages and writes them to the log of the run, once its folder exists."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._run: RunFolder | None = None
        self._unlogged: list[str] = []

    def __call__(self, text: str) -> None:
        say(self.console, text)
        self.log(text)

    def log(self, text: str) -> None:
        """Write a message to the log without printing it."""
        if self._run is None:
            self._unlogged.append(text)
        else:
            self._run.log(text)

    def log_to(self, run: RunFolder) -> None:
        """Log to this run from now on, beginning with the messages so far."""
        self._run = run
        for text in self._unlogged:
            run.log(text)
        self._unlogged.clear()


def train(request: Request, console: Console) -> RunFolder:
    """Start or resume a run and leave the results in ``request.out``.

    Args:
        request: the arguments of the command.
        console: shows the progress and the results.

    Raises:
        UserError: data or settings have a fault, and nothing was written; or the disk is full, or a loss not finite.
    """
    device = choose_device(request.device)
    messages = _Messages(console)

    def prepare(resolved: Resolved, data: str | Path) -> Trainer:
        threads = torch.get_num_threads()  # torch reads OMP_NUM_THREADS, which OpenCV ignores
        folder = local_data(data, console)
        return prepare_trainer(resolved, folder, device, threads=threads, cache=cache_folder(), say=messages)

    if request.resume:
        run = RunFolder.open(request.out)
        with run.locked():
            messages.log_to(run)
            resolved = resumed_settings(run.config(), request)
            trainer = prepare(resolved, request.data or run.data())
            snapshot = _last_snapshot(run.checkpoints, run, resolved.config, messages)
            crossfit = None
            if snapshot is not None:
                trainer.restore(snapshot)
            else:
                crossfit = crossfit_before(trainer)
                if crossfit is not None:
                    snapshot = _last_snapshot(run.short_checkpoints, run, resolved.config, messages)
                if crossfit is not None and snapshot is not None:
                    crossfit.restore(snapshot)
            if snapshot is None:
                messages("the run was stopped before its first checkpoint: it begins anew")
            run.rewind(trainer.epoch)
            run.set_config(trainer.config)
            if request.data is not None:
                run.set_data(request.data)
            before = snapshot.values.get("precision") if snapshot is not None else None
            change = change_remark(before, used_precision(trainer.config.precision, device))
            short = f" and {crossfit.done} epochs of short runs" if crossfit is not None else ""
            messages(f"resumed after {trainer.epoch} of {trainer.config.epochs} epochs{short}{change}")
            _train(trainer, run, messages, crossfit)
        return run
    refuse_existing(request.out)
    if request.data is None:
        raise UserError("--data: name the folder of the data set")
    flags = parse_settings(request.settings)
    resolved = resolve(request.preset, request.file, flags)
    trainer = prepare(resolved, request.data)
    crossfit = crossfit_before(trainer)
    run = RunFolder.create(request.out, trainer.config, request.data)
    with run.locked():
        messages.log_to(run)
        _train(trainer, run, messages, crossfit)
    return run


def resumed_settings(stored: Config, request: Request) -> Resolved:
    """The settings of a resumed run: its own, with the epochs and the precision that the request gives.

    Args:
        stored: the config of the run.
        request: may repeat settings; only `epochs` and `precision` may differ from the stored ones.

    Raises:
        UserError: the request changes another setting; the message names its key.
    """
    flags = parse_settings(request.settings)
    file = read_leaves(request.file) if request.file else {}
    given: Mapping[str, Any] = {**file, **environment_leaves(), **flags}
    preset = request.preset or given.get("preset")
    if preset is not None and preset != stored.preset:
        raise UserError(f"preset: the run began with {stored.preset}; {_UNCHANGED}")
    resolved = resolve(stored.preset, request.file, {**flags, "preset": stored.preset})
    before, now = flatten(stored), flatten(resolved.config)
    for key in sorted(resolved.chosen.difference(_MAY_CHANGE)):
        if now[key] != before[key]:
            raise UserError(f"{key}: the run began with {before[key]}, not {now[key]}; {_UNCHANGED}")
    given_now = {key: now[key] for key in resolved.chosen.intersection(_MAY_CHANGE)}
    return Resolved(replace(stored, **given_now), resolved.chosen)


def _last_snapshot(
    checkpoints: CheckpointFolder, run: RunFolder, config: Config, messages: _Messages
) -> Snapshot | None:
    """The last checkpoint, or the one before it if that is damaged; None if there is no checkpoint yet."""
    index = checkpoints.index()
    if not index:
        return None
    try:
        snapshot = load_checkpoint(checkpoints.path("last"))
    except UserError as error:
        if index["previous"] == index["last"]:
            raise
        messages(f"{error}; resuming from the checkpoint before it")
        snapshot = load_checkpoint(checkpoints.path("previous"))
    # A setting that came with a later version than the checkpoint's has its default in both.
    trained, now = flatten(unflatten(snapshot.values["config"], str(run.root))), flatten(config)
    for key in now:
        if key not in _MAY_CHANGE and trained[key] != now[key]:
            raise UserError(
                f"{run.root}: config.yaml has {key}={now[key]}, but its checkpoint was trained with {trained[key]};"
                " a run is resumed with the settings it began with"
            )
    return snapshot


def _train(trainer: Trainer, run: RunFolder, messages: _Messages, crossfit: CrossFit | None) -> None:
    config, random = trainer.config, bool(trainer.features.vfm and trainer.features.vfm.random)
    metric = "holdout/point_score" if config.select.by == "point_score" else config.select.by
    if trainer.epoch >= config.epochs:
        messages("nothing is left to train; to train longer, give --set epochs=N")
    events = open_event_file(run.root / "tensorboard", trainer.epoch)
    try:
        with (
            explain_out_of_memory("lower data.batch or data.crop"),
            _progress(trainer, metric, messages.console, crossfit) as progress,
        ):
            progress.best = trainer.selector.best_value
            if crossfit is not None:
                for short in crossfit.run():
                    run.short_checkpoints.save(crossfit.snapshot(), best=True)
                    messages.log(progress.report_short(short))
            for report in trainer.run():
                run.append(metrics_line(report, random))
                if report.evolved or report.admitted or not report.epoch:
                    windows = label_windows(trainer.training_set, trainer.pseudo_masks.soft.__getitem__)
                    run.keep_labels(report.epoch, windows)
                none_yet = trainer.selector.best_epoch is None  # then the latest epoch is deployed
                run.checkpoints.save(trainer.snapshot(), report.best or none_yet, report.best_teacher)
                run.remove_short_checkpoints()
                messages.log(progress.report(report))
                _write_events(events, trainer, report)
    except (UserError, OSError, KeyboardInterrupt) as stopped:
        with suppress(OSError):  # what stopped it may be a full disk
            messages.log(f"stopped: {str(stopped) or 'interrupted'}")
        raise
    finally:
        events.close()
    _print_summary(run, trainer, messages)


def _progress(trainer: Trainer, metric: str, console: Console, crossfit: CrossFit | None) -> TrainingProgress:
    epochs, done = trainer.config.epochs, trainer.epoch
    if crossfit is None:
        return TrainingProgress(epochs, done, metric, console)
    cost = (crossfit.runs - 1) / crossfit.runs  # a short run leaves one fold out
    return TrainingProgress(epochs, done, metric, console, short_epochs=crossfit.epochs_left, short_cost=cost)


def metrics_line(report: EpochReport, random_vfm: bool) -> dict[str, Any]:
    """An epoch's object in ``metrics.jsonl``: the report, flat metrics, and a mark if the VFM's weights are random."""
    nested = ("scores", "labels", "images")
    line = {item.name: getattr(report, item.name) for item in dataclasses.fields(report) if item.name not in nested}
    return {**line, **report.labels, **report.scores, **({"vfm_weights": "random"} if random_vfm else {})}


def _write_events(events: EventFile, trainer: Trainer, report: EpochReport) -> None:
    if not events.writes:
        return
    line = {key: float(value) for key, value in metrics_line(report, False).items() if value is not None}
    events.add_scalars({key if "/" in key else f"train/{key}": value for key, value in line.items()}, report.epoch)
    select, last = trainer.config.select, report.epoch + 1 == trainer.config.epochs
    if report.scores and (last or report.epoch // select.every % _FIGURE_EVERY == 0):
        from semprior.reporting.prediction_figure import choose_images, draw_figure, figure_rows

        shown = choose_images(trainer)
        if shown:
            events.add_image("predictions", draw_figure(figure_rows(trainer, shown)), report.epoch)


def _print_summary(run: RunFolder, trainer: Trainer, messages: _Messages) -> None:
    """Print the metrics of student and teacher at the best epoch, and the command that evaluates them."""
    lines = run.lines()
    best = next((line for line in reversed(lines) if line.get("best")), None)
    if best is not None:
        _print_metrics(best, trainer, messages.console)
    if trainer.config.follows_paper and lines:  # the published figures are of each at its own best epoch
        by = trainer.config.select.by if "/" in trainer.config.select.by else "holdout/point_score"
        split, _, metric = by.partition("/")
        label = next(label for name, label, _ in _SHOWN if name == metric)
        own = next((line for line in reversed(lines) if line.get("best_teacher")), None)
        if best is None:
            messages(f"the {label} of the student was 0 after every epoch; the last one is kept as its best")
        if own is not None:
            value, after = own[f"{split}/teacher/{metric}"], plural(own["epoch"] + 1, "epoch")
            messages(f"the teacher's own best: {label} {value:.4f} after {after}")
    minutes = clock(sum(line.get("seconds") or 0.0 for line in lines))
    messages(f"{plural(len(lines), 'epoch')} in {minutes}; results in {run.root}")
    messages(f"evaluate with: semprior evaluate {shlex.quote(str(run.root))} --data {shlex.quote(run.data())}")


def _print_metrics(best: Mapping[str, Any], trainer: Trainer, console: Console) -> None:
    place = "test" if trainer.config.select.by == "test/iou" else "holdout"
    title = f"{place}, best after {best['epoch'] + 1} of {trainer.config.epochs} epochs"
    vfm = trainer.features.vfm
    title += f"; {vfm.name} with RANDOM weights" if vfm and vfm.random else ""
    title += f"; {remark}" if (remark := true_masks_remark(trainer.config.labels.seed)) else ""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in ("student", "teacher"):
        table.add_column(column, justify="right")
    for name, label, digits in _SHOWN:
        cells = []
        for prefix in (place, f"{place}/teacher"):
            value, error = best.get(f"{prefix}/{name}"), best.get(f"{prefix}/{name}_se")
            text = "" if value is None else f"{value:.{digits}f}"
            cells.append(f"{text} ± {error:.{digits}f}" if error is not None else text)
        if any(cells):
            table.add_row(label, *cells)
    if table.row_count:
        console.print(table)
