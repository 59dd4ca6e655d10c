"""`semprior train`: one run, from its settings to a finished folder, begun or resumed."""

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

from semprior.allocator import keep_freed_memory
from semprior.board import Board, open_board
from semprior.cache import cache_folder
from semprior.checkpoint import Snapshot, load_checkpoint
from semprior.config import Config, Resolved, environment_leaves, flatten, parse_settings, read_leaves, resolve
from semprior.data.layout import find_layout
from semprior.devices import change_remark, choose_device, memory_told, precision_remark, used_precision
from semprior.errors import UserError
from semprior.prepare import as_used, banked, load_frozen, read_training_set
from semprior.progress import Display, clock, say
from semprior.run_folder import RunFolder, refuse_existing
from semprior.threads import use_threads
from semprior.trainer import Report, Trainer

_PANELS_EVERY = 5  # evaluations
_MAY_CHANGE = ("epochs", "precision")  # when a run goes on
_UNCHANGED = "only epochs, precision and the device may change on resume"
_SHOWN = (
    ("point_score", "point score", 4),
    ("point_pd", "Pd of points", 4),
    ("point_fa", "Fa away from points (1e-6)", 2),
    ("iou", "IoU", 4),
    ("niou", "nIoU", 4),
    ("pd", "Pd", 4),
    ("fa", "Fa (1e-6)", 2),
)
"""Name, label and digits of the metrics that a run ends with."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        data: root of the data set; none on resume: where it lay.
        out: folder of the run.
        preset: its name; none: the one that the settings name, else ``standard``.
        file: YAML file of leaves.
        settings: ``key=value`` texts.
        device: ``auto``, ``cpu`` or ``cuda``.
        resume: whether to go on with `out`.
    """

    data: Path | None
    out: Path
    preset: str | None = None
    file: Path | None = None
    settings: tuple[str, ...] = ()
    device: str = "auto"
    resume: bool = False


class _Voice:
    """Says lines on the console and keeps them for the log of a folder that is not there yet."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._run: RunFolder | None = None
        self._waiting: list[str] = []

    def __call__(self, text: str) -> None:
        say(self.console, text)
        self.note(text)

    def note(self, text: str) -> None:
        """Into the log alone."""
        if self._run is None:
            self._waiting.append(text)
        else:
            self._run.log(text)

    def log_into(self, run: RunFolder) -> None:
        """From now on, and what was said before."""
        self._run = run
        for text in self._waiting:
            run.log(text)
        self._waiting.clear()


def train(request: Request, console: Console) -> RunFolder:
    """Train, or go on training, and leave the results in ``request.out``.

    Args:
        request: what to train on what.
        console: shows the progress and the results.

    Raises:
        UserError: a fault in data or settings; nothing was written then. Or the disk is full, or a loss not finite.
    """
    device = choose_device(request.device)
    keep_freed_memory()
    use_threads(torch.get_num_threads())  # OMP_NUM_THREADS, which OpenCV does not ask
    voice = _Voice(console)
    if request.resume:
        run = RunFolder.open(request.out)
        with run.locked():
            voice.log_into(run)
            resolved = resumed_settings(run.config(), request)
            trainer = _prepare(resolved, request.data or run.data(), device, voice)
            snapshot = _last_snapshot(run, resolved.config, voice)
            if snapshot is not None:
                trainer.restore(snapshot)
            run.rewind(trainer.epoch)
            run.set_config(trainer.config)
            if request.data is not None:
                run.set_data(request.data)
            before = snapshot.values.get("precision") if snapshot is not None else None
            change = change_remark(before, used_precision(trainer.config.precision, device))
            voice(f"resumed after {trainer.epoch} of {trainer.config.epochs} epochs{change}")
            _train(trainer, run, voice)
        return run
    refuse_existing(request.out)
    if request.data is None:
        raise UserError("--data: name the folder of the data set")
    flags = parse_settings(request.settings)
    resolved = resolve(request.preset, request.file, flags)
    trainer = _prepare(resolved, request.data, device, voice)
    run = RunFolder.create(request.out, trainer.config, request.data)
    with run.locked():
        voice.log_into(run)
        _train(trainer, run, voice)
    return run


def resumed_settings(stored: Config, request: Request) -> Resolved:
    """The settings of a run that goes on: those it has, and other epochs or another precision if they are given.

    Args:
        stored: of the run.
        request: may give settings again; each must be what it is, but `epochs` and `precision`.

    Raises:
        UserError: another setting is given; names the key.
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


def _prepare(resolved: Resolved, data: Path, device: Any, voice: _Voice) -> Trainer:  # noqa: ANN401
    """Everything that can fail for a fault of the user, before anything is written."""
    config = resolved.config
    layout = find_layout(data)
    vfm = load_frozen(config, device, voice)
    training_set = read_training_set(layout, resolved, voice, cache_folder())
    config = as_used(config, training_set)
    voice(
        f"{training_set.train} training, {training_set.validation} validation and"
        f" {len(training_set.holdout_indices)} held-out images; {config.detector} on"
        f" {device}{precision_remark(config.precision, device)}"
    )
    features = banked(config, vfm, training_set, cache_folder(), device, voice)
    return Trainer(config, training_set, features, device)


def _last_snapshot(run: RunFolder, config: Config, voice: _Voice) -> Snapshot | None:
    """The last checkpoint, else the one before it; none if the run was stopped before its first."""
    index = run.checkpoints.index()
    if not index:
        voice("the run was stopped before its first checkpoint: it begins anew")
        return None
    try:
        snapshot = load_checkpoint(run.checkpoints.path("last"))
    except UserError as error:
        if index["previous"] == index["last"]:
            raise
        voice(f"{error}; going on from the checkpoint before it")
        snapshot = load_checkpoint(run.checkpoints.path("previous"))
    trained, now = snapshot.values["config"], flatten(config)
    for key in now:
        if key not in _MAY_CHANGE and trained.get(key) != now[key]:
            raise UserError(
                f"{run.root}: config.yaml has {key}={now[key]}, but its checkpoint was trained with {trained.get(key)};"
                " a run goes on with the settings it began with"
            )
    return snapshot


def _train(trainer: Trainer, run: RunFolder, voice: _Voice) -> None:
    config, random = trainer.config, bool(trainer.features.vfm and trainer.features.vfm.random)
    metric = "holdout/point_score" if config.select.by == "point_score" else config.select.by
    if trainer.epoch >= config.epochs:
        voice("nothing is left to train; a larger number goes on: --set epochs=N")
    board = open_board(run.root / "tensorboard", trainer.epoch)
    try:
        with (
            memory_told("lower data.batch or data.crop"),
            Display(config.epochs, trainer.epoch, metric, voice.console) as display,
        ):
            display.best = trainer.selector.best_value
            for report in trainer.run():
                run.append(metrics_line(report, random))
                run.checkpoints.save(trainer.snapshot(), best=report.best)
                voice.note(display.report(report))
                _show_on_board(board, trainer, report)
    except (UserError, OSError, KeyboardInterrupt) as stopped:
        with suppress(OSError):  # what stopped it may be a full disk
            voice.note(f"stopped: {str(stopped) or 'interrupted'}")
        raise
    finally:
        board.close()
    _conclude(run, trainer, voice)


def metrics_line(report: Report, random_vfm: bool) -> dict[str, Any]:
    """An epoch's object in ``metrics.jsonl``: the report, its scores flat, and that the VFM's weights are random."""
    line = {field.name: getattr(report, field.name) for field in dataclasses.fields(report) if field.name != "scores"}
    return {**line, **report.scores, **({"vfm_weights": "random"} if random_vfm else {})}


def _show_on_board(board: Board, trainer: Trainer, report: Report) -> None:
    if not board.writes:
        return
    line = {key: float(value) for key, value in metrics_line(report, False).items() if value is not None}
    board.scalars({key if "/" in key else f"train/{key}": value for key, value in line.items()}, report.epoch)
    select, last = trainer.config.select, report.epoch + 1 == trainer.config.epochs
    if report.scores and (last or report.epoch // select.every % _PANELS_EVERY == 0):
        from semprior.panels import choose_shown, draw, run_strips

        shown = choose_shown(trainer)
        if shown:
            board.picture("predictions", draw(run_strips(trainer, shown)), report.epoch)


def _conclude(run: RunFolder, trainer: Trainer, voice: _Voice) -> None:
    """The best epoch's metrics of student and teacher, and how to see more."""
    lines = run.lines()
    best = next((line for line in reversed(lines) if line["best"]), None)
    if best is not None:
        _results(best, trainer, voice.console)
    if trainer.config.select.by == "test/iou":  # the published figures are of each at its own best epoch
        key = "test/teacher/iou"
        own = max((line for line in lines if line.get(key) is not None), key=lambda line: line[key], default=None)
        if own is not None:
            voice(f"the teacher's own best: IoU {own[key]:.4f} after {own['epoch'] + 1} epochs")
    minutes = clock(sum(line["seconds"] for line in lines))
    voice(f"{len(lines)} epochs in {minutes}; results in {run.root}")
    voice(f"evaluate with: semprior evaluate {shlex.quote(str(run.root))} --data {shlex.quote(str(run.data()))}")


def _results(best: Mapping[str, Any], trainer: Trainer, console: Console) -> None:
    place = "test" if trainer.config.select.by == "test/iou" else "holdout"
    title = f"{place}, best after {best['epoch'] + 1} of {trainer.config.epochs} epochs"
    vfm = trainer.features.vfm
    table = Table(
        title=f"{title}; {vfm.name} with RANDOM weights" if vfm and vfm.random else title, title_justify="left"
    )
    table.add_column("")
    for who in ("student", "teacher"):
        table.add_column(who, justify="right")
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
