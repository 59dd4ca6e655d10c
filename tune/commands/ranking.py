"""`top` and `show`: which configurations are best, and all about one trial."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from semprior.errors import UserError
from semprior.progress import clock, say
from tune.catalogue import Sweep, command
from tune.commands.places import sweep_of
from tune.ranking import Direction, Ranked, RankedBy
from tune.records import Record
from tune.repeat import repeat_command
from tune.results import ResultsStore
from tune.standing import log_of
from tune.sweep import METRICS
from tune.tables import check_format, number, print_rows, print_table, short_names, text

_MODES: tuple[RankedBy, ...] = ("best", "last", "robust")
_MATTERED = 400  # trials at most, of a large sweep evenly chosen, that tell which dimensions mattered
_SMALL_IS_GOOD = ("fa", "point_fa")
_MARKS = {"bf16": "", "fp32": "*", "bf16, fp32": "**"}
_MARKED = {"*": "ran in fp32", "**": "ran partly in bf16, partly in fp32"}


def top(name: str, storage: str | None, count: int, by: str | None, form: str, console: Console) -> None:
    """Rank a sweep's configurations.

    Raises:
        UserError: an unknown metric or format, or nothing to rank yet.
    """
    check_format(form)
    sweep = sweep_of(name, storage)
    objectives, mode = ranked_by(sweep, by)
    store = ResultsStore(sweep.storage)
    several = len(objectives) > 1
    ranked = store.rank(objectives, mode, limit=None if several else count, also=(0,))
    if form != "table":
        print_rows([_entry(entry, objectives) for entry in ranked[:count]], form)
        return
    if not ranked:
        say(console, f"{name}: no trial has a value of {next(iter(objectives))} yet")
        return
    _table(ranked[:count], objectives, console)
    _gain(ranked, objectives, console)
    if by is None and sweep.spec.search:
        _importance(sweep, store, console)
    say(console, f"fetch the first: {command('pull', sweep, '--out', 'DIR')}")


def ranked_by(sweep: Sweep, by: str | None) -> tuple[dict[str, Direction], RankedBy]:
    """The metrics, and what of their curves, that ``--by`` names; none: the sweep's own, at their best.

    Raises:
        UserError: neither a metric nor a way to rank.
    """
    if by is None:
        return dict(sweep.spec.objective), "best"
    if by in _MODES:
        return dict(sweep.spec.objective), by  # type: ignore[return-value]
    if by in METRICS:
        usual: Direction = "min" if by.rpartition("/")[2] in _SMALL_IS_GOOD else "max"
        return {by: sweep.spec.objective.get(by, usual)}, "best"
    raise UserError(f"--by {by}: must be best, last, robust or a metric like {', '.join(METRICS[:1])} or holdout/iou")


def _entry(entry: Ranked, objectives: Mapping[str, Direction]) -> dict[str, Any]:
    told: dict[str, Any] = {"place": entry.place, "trial": entry.trial, "configuration": entry.configuration}
    for metric, value, error in zip(objectives, entry.values, entry.errors, strict=True):
        told |= {metric: value, f"{metric}_se": error}
    told |= {"front": entry.front} if len(objectives) > 1 else {}
    told |= {"trials": list(entry.trials), "epoch": entry.epoch, "epochs": entry.epochs, "state": entry.state}
    told |= {"precision": entry.precision}
    return told | {"device_s": entry.device_s, "checkpoint": entry.checkpoint, **entry.params}


def _table(ranked: Sequence[Ranked], objectives: Mapping[str, Direction], console: Console) -> None:
    keys = list(dict.fromkeys(key for entry in ranked for key in entry.params))
    names = short_names(keys)
    several, seeds = len(objectives) > 1, any(len(entry.trials) > 1 for entry in ranked)
    columns = {"": "right", "trial": "left"} | ({"front": "right"} if several else {})
    columns |= {metric.rpartition("/")[2]: "right" for metric in objectives}
    columns |= {"seeds": "right"} if seeds else {}
    columns |= {names[key]: "right" for key in keys} | {"epochs": "right", "state": "left", "time": "right"}
    rows, marks = [], _marks(ranked)
    for entry in ranked:
        cells = [str(entry.place), entry.trial + marks.get(entry.precision, "")] + (
            [str(entry.front)] if several else []
        )
        cells += [with_error(value, error) for value, error in zip(entry.values, entry.errors, strict=True)]
        cells += [str(len(entry.trials))] if seeds else []
        cells += [text(entry.params.get(key)) for key in keys]
        rows.append([*cells, str(entry.epochs), entry.state, clock(entry.wall_s)])
    print_table(console, columns, rows)
    if marks:
        told = [f"{mark} {_MARKED[mark]}" for mark in marks.values() if mark]
        say(console, f"{'; '.join(told)}; the others in bf16: the precision alone may make some of the difference")


def _marks(ranked: Sequence[Ranked]) -> dict[str, str]:
    """By precision, what marks a trial that ran in it; empty where all ran in one, or it is not known of them."""
    found = {entry.precision for entry in ranked} - {""}
    return {precision: mark for precision, mark in _MARKS.items() if precision in found and len(found) > 1}


def with_error(value: float, error: float | None) -> str:
    """A value, and its standard error where there is one."""
    return number(value) + (f" ± {number(error)}" if error is not None else "")


def _gain(ranked: Sequence[Ranked], objectives: Mapping[str, Direction], console: Console) -> None:
    """What the search gained over the preset itself."""
    base = next((entry for entry in ranked if entry.configuration == 0), None)
    if base is None:
        return
    for index, (metric, direction) in enumerate(objectives.items()):
        sign = 1 if direction == "max" else -1
        values = [sign * entry.values[index] for entry in ranked]
        best = ranked[values.index(max(values))] if len(objectives) > 1 else ranked[0]
        if best is base:
            say(console, f"{metric}: no trial comes before trial {base.trial}, the preset itself")
            continue
        say(console, f"{metric}: {gain_over(best, base, index, sign)}")


def gain_over(best: Ranked, base: Ranked, index: int, sign: int) -> str:
    """By how much a configuration is better than the preset itself in the objective of this index, in words.

    Of two whose values differ by no more than their standard errors together one that is cheaper may be first, so that
    the difference can be negative. `sign` is 1 where more is better, else -1.
    """
    gain = sign * (best.values[index] - base.values[index])
    errors = [error for entry in (best, base) if (error := entry.errors[index]) is not None]
    error = math.hypot(*errors) if len(errors) == 2 else None
    spread = "" if error is None else f" ± {error:.4f}"
    if gain > (error or 0.0):
        return f"trial {best.trial} is better than trial {base.trial}, the preset itself, by {gain:.4f}{spread}"
    within = ", within the standard error" if error is not None and abs(gain) <= error else ""
    return f"trial {best.trial} is no better than trial {base.trial}, the preset itself{within} ({gain:+.4f}{spread})"


def _importance(sweep: Sweep, store: ResultsStore, console: Console) -> None:
    """Which dimensions mattered."""
    from tune.importance import importance

    trials = store.trials()
    trials = trials[:: math.ceil(len(trials) / _MATTERED)] if trials else []
    say(console, importance(sweep.spec, trials, store.curves([trial.trial for trial in trials])).said)


def show(name: str, trial: str, storage: str | None, console: Console) -> None:
    """All about one trial.

    Raises:
        UserError: there is none of this id.
    """
    sweep = sweep_of(name, storage)
    store = ResultsStore(sweep.storage)
    found = {summary.trial: summary for summary in store.trials()}
    if trial not in found:
        known = f"{min(found)} to {max(found)}" if found else "none yet"
        raise UserError(f"{name}: no trial {trial}; there are: {known}")
    summary, history = found[trial], store.history(trial)
    say(console, f"trial {trial} of {name}: {summary.state}" + (f", {summary.reason}" if summary.reason else ""))
    _configuration(sweep, summary.config, summary.params, console)
    _curve([record for record in history if record.kind == "report"], sweep.spec.objective, console)
    metric = next(iter(sweep.spec.objective))
    if summary.values and summary.best_epoch is not None:
        say(console, f"best: {metric} {number(summary.values[0])} after epoch {summary.best_epoch + 1}")
    say(console, f"cost: {clock(summary.wall_s)}, {clock(summary.device_s)} on the device, {summary.epochs} epochs")
    for start in (record for record in history if record.kind == "start"):
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(start.time))
        say(
            console,
            f"attempt {start.attempt}: {began}, from epoch {start.epoch + 1}, on {start.host} ({start.made_on})",
        )
    for record in history:
        if record.kind == "fault":
            say(console, f"attempt {record.attempt} broke off after {record.epoch} epochs: {record.reason}")
        elif record.kind == "retry":
            say(console, f"begun again: {record.reason}")
    if any(record.kind == "fault" for record in history):
        say(console, f"log: {log_of(sweep.storage.uri, trial)}")
    versions = ", ".join(f"{package} {number}" for package, number in summary.last.versions.items())
    say(console, f"made by: revision {summary.last.revision or 'unknown'}; {versions}")
    ran = {**summary.config, "precision": summary.last.precision or summary.config["precision"]}
    if summary.checkpoint:
        say(console, f"checkpoint: {sweep.storage.uri}/{summary.checkpoint}")
        say(console, f"fetch it: {command('pull', sweep, '--out', 'DIR', which=trial)}")
    say(
        console,
        f"repeat it: {repeat_command(ran, sweep.spec.data, f'{name}-{trial}', sweep.spec.resources)}",
    )


def _configuration(sweep: Sweep, config: Mapping[str, Any], params: Mapping[str, Any], console: Console) -> None:
    from semprior.config import flatten

    base = flatten(sweep.spec.base_config())
    rows = [(key, text(value), "searched") for key, value in params.items()]
    rows += [
        (key, text(value), f"{text(base[key])} in the base")
        for key, value in config.items()
        if key not in params and key in base and base[key] != value
    ]
    print_table(console, {"setting": "left", "value": "left", "": "left"}, rows)


def _curve(reports: Sequence[Record], objectives: Mapping[str, str], console: Console) -> None:
    evaluated = [report for report in reports if any(metric in report.metrics for metric in objectives)]
    columns = {"epoch": "right", "inner loss": "right"} | {metric: "right" for metric in objectives} | {"": "left"}
    rows = []
    for report in evaluated:
        values = [number(report.metrics.get(metric)) for metric in objectives]
        loss = number(report.metrics.get("inner_loss"))
        rows.append([str(report.epoch + 1), loss, *values, "best so far" if report.best else ""])
    if rows:
        print_table(console, columns, rows)
