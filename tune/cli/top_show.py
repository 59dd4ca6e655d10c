"""`top` and `show`: rank the configurations of a sweep, and describe one trial."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from semprior.deployment.trial_cost import COST_METRICS
from semprior.errors import UserError
from semprior.reporting.terminal import clock, print_error, say
from tune.cli.trial_metrics import print_deployed_cost, print_parts, print_recorded
from tune.comparison.ranked import Compared, ComparedRanking, Standing, compare_first
from tune.launch.target import Target
from tune.monitor.repeat_command import repeat_command
from tune.monitor.tables import check_format, format_metric, format_value, print_rows, print_table, short_names
from tune.monitor.wording import gain_over, why_ended, with_error
from tune.spec.constraints import Limit
from tune.spec.sweep_file import OBJECTIVE_METRICS, SECOND_METRICS
from tune.store.faults import log_of
from tune.store.ranking import Direction, Ranked, RankedBy
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.snapshot import left_out_in_words
from tune.store.sweeps import Sweep

_MODES: tuple[RankedBy, ...] = ("best", "last", "robust")
_IMPORTANCE_TRIALS = 400  # at most; more are thinned out evenly
_MINIMIZED = ("fa", "point_fa", *(name.rpartition("/")[2] for name in COST_METRICS))
_MARKS = {"bf16": "", "fp32": "*", "bf16, fp32": "**"}
_MARK_MEANINGS = {"*": "ran in fp32", "**": "ran partly in bf16, partly in fp32"}


def top(name: str, target: Target, count: int, by: str | None, form: str, console: Console) -> None:
    """Rank a sweep's configurations.

    Args:
        name: id of the sweep.
        target: where the sweep is stored.
        count: number of places.
        by: value of ``--by`` (`ranked_by`).
        form: ``table``, ``json`` or ``csv``.
        console: console to print on.

    Raises:
        UserError: there is no such sweep, metric or format.
    """
    check_format(form)
    sweep = target.sweep(name)
    objectives, mode = ranked_by(sweep, by)
    store = ResultsStore(sweep.storage)
    limits = sweep.spec.limits
    found = compare_first(store, objectives, mode, limit=count, minimum=sweep.spec.runs_of_the_best, limits=limits)
    if form != "table":
        if store.left_out:
            print_error("semprior-tune", f"{name}: {left_out_in_words(store.left_out)}")
        print_rows([_entry(one, objectives, limits) for one in found.shown], form)
        return
    if store.left_out:
        say(console, left_out_in_words(store.left_out))
    if not found.shown:
        say(console, f"{name}: no trial has a value of {next(iter(objectives))} yet")
        return
    _print_ranking(found.shown, objectives, limits, console)
    if sweep.spec.races and found.shown[0].entry.front > 1:
        runs = sweep.spec.runs_of_the_best
        say(console, f"no configuration has {runs} completed runs yet, so none is called the best")
    if unknown := _unknown_differences(found, mode):
        say(console, unknown)
    _print_gain(found, objectives, console)
    if by is None and sweep.spec.search:
        _print_importance(sweep, store, found.error, console)
    if ended := why_ended(sweep):
        say(console, ended)
    if found.shown[0].entry.unmet:
        say(console, f"no configuration meets the constraints: {', '.join(map(str, limits))}")
        return
    say(console, f"fetch the first: {target.command('pull', sweep, '--out', 'DIR')}")


def ranked_by(sweep: Sweep, by: str | None) -> tuple[dict[str, Direction], RankedBy]:
    """The objectives, and which value of their curves to rank by, that ``--by`` names.

    Args:
        sweep: sweep to rank.
        by: a metric, or ``best``, ``last`` or ``robust``; None: the best values of the sweep's own objectives.

    Raises:
        UserError: `by` is none of these.
    """
    if by is None:
        return dict(sweep.spec.objective), "best"
    if by in _MODES:
        return dict(sweep.spec.objective), by
    if by in SECOND_METRICS:
        direction: Direction = "min" if by.rpartition("/")[2] in _MINIMIZED else "max"
        return {by: sweep.spec.objective.get(by, direction)}, "best"
    raise UserError(f"--by {by}: must be best, last, robust or a metric like {OBJECTIVE_METRICS[0]} or holdout/iou")


def _entry(one: Compared, objectives: Mapping[str, Direction], limits: Sequence[Limit]) -> dict[str, Any]:
    entry = one.entry
    row: dict[str, Any] = {"place": entry.place, "trial": entry.trial, "configuration": entry.configuration}
    for metric, value, error, standing in zip(objectives, entry.values, entry.errors, one.standings, strict=True):
        row |= {metric: value, f"{metric}_se": error}
        for other, difference in (("best", standing.from_best), ("base", standing.from_base)):
            row[f"{metric}_from_{other}"] = difference.value if difference else None
            row[f"{metric}_from_{other}_se"] = difference.error if difference else None
        row[f"{metric}_p_best"] = standing.probability
    row |= {"band": one.band}
    row |= {"front": entry.front} if len(objectives) > 1 else {}
    row |= {"unmet": list(entry.unmet)} if limits else {}
    row |= {"trials": list(entry.trials), "epoch": entry.epoch, "epochs": entry.epochs, "state": entry.state}
    row |= {"precision": entry.precision}
    return row | {"device_s": entry.device_s, "checkpoint": entry.checkpoint, **entry.params}


def _unknown_differences(found: ComparedRanking, mode: RankedBy) -> str:
    """Why differences are not shown, in a line; empty if all are."""
    if not found.missing:
        return ""
    if mode == "robust":
        return "no differences are shown, because robust values are of several evaluations; use --by best or last"
    more = f" and {len(found.missing) - 5} more" if len(found.missing) > 5 else ""
    return (
        "some differences are not known: the store lacks the values image by image, at the evaluation that counts, of"
        f" trial{'s' if len(found.missing) > 1 else ''} {', '.join(found.missing[:5])}{more}"
    )


def _print_ranking(
    compared: Sequence[Compared], objectives: Mapping[str, Direction], limits: Sequence[Limit], console: Console
) -> None:
    ranked = [one.entry for one in compared]
    firsts = [one.standings[0] for one in compared]
    paired = any(standing.from_best for standing in firsts)
    keys = list(dict.fromkeys(key for entry in ranked for key in entry.params))
    names = short_names(keys)
    several, seeds = len(objectives) > 1, any(len(entry.trials) > 1 for entry in ranked)
    columns = {"": "right", "trial": "left"} | ({"front": "right"} if several else {})
    for index, metric in enumerate(objectives):
        columns[metric.rpartition("/")[2]] = "right"
        columns |= dict.fromkeys(("from the best", "from trial 0", "P(best)"), "right") if paired and not index else {}
    columns |= {"constraints": "left"} if limits else {}
    columns |= {"runs": "right"} if seeds else {}
    columns |= {names[key]: "right" for key in keys} | {"epochs": "right", "state": "left", "time": "right"}
    rows, marks = [], _marks(ranked)
    for entry, standing in zip(ranked, firsts, strict=True):
        cells = [str(entry.place), entry.trial + marks.get(entry.precision, "")] + (
            [str(entry.front)] if several else []
        )
        for index, (value, error) in enumerate(zip(entry.values, entry.errors, strict=True)):
            cells.append(with_error(value, error))
            cells += _difference_cells(standing) if paired and not index else []
        cells += [_unmet(entry)] if limits else []
        cells += [str(len(entry.trials))] if seeds else []
        cells += [format_value(entry.params.get(key)) for key in keys]
        rows.append([*cells, str(entry.epochs), entry.state, clock(entry.wall_s)])
    print_table(console, columns, rows)
    if marks:
        meanings = [f"{mark} {_MARK_MEANINGS[mark]}" for mark in marks.values() if mark]
        say(console, f"{'; '.join(meanings)}; the others in bf16: the precision alone may make some of the difference")


def _difference_cells(standing: Standing) -> list[str]:
    """The differences of a configuration from the best and from trial 0, and its probability of being the best."""
    cells = []
    for difference in (standing.from_best, standing.from_base):
        itself = difference is not None and difference.value == 0 and not difference.error
        shown = with_error(difference.value, difference.error, signed=True) if difference else ""
        cells.append("0" if itself else shown)
    return [*cells, "" if standing.probability is None else f"{standing.probability:.2f}"]


def _unmet(entry: Ranked) -> str:
    """The metrics by which a configuration does not meet the constraints."""
    beyond = [f"{metric.rpartition('/')[2]} {format_metric(value)}" for metric, value in entry.unmet.items()]
    return ", ".join(beyond) or "met"


def _marks(ranked: Sequence[Ranked]) -> dict[str, str]:
    """The mark of trials by their precision; empty if all known precisions are the same."""
    found = {entry.precision for entry in ranked} - {""}
    return {precision: mark for precision, mark in _MARKS.items() if precision in found and len(found) > 1}


def _print_gain(found: ComparedRanking, objectives: Mapping[str, Direction], console: Console) -> None:
    """Print what the search gained over the preset itself."""
    for index, (metric, (best, base, difference)) in enumerate(found.gains.items()):
        if best.configuration == base.configuration:
            say(console, f"{metric}: no trial comes before trial {base.trial}, the preset itself")
            continue
        sign = 1 if objectives[metric] == "max" else -1
        gain = difference.value if difference else best.values[index] - base.values[index]
        error = difference.error if difference else None
        say(console, f"{metric}: {gain_over(best.trial, base.trial, sign * gain, error)}")


def _print_importance(sweep: Sweep, store: ResultsStore, error: float | None, console: Console) -> None:
    """Print which dimensions mattered, given the paired standard error of a value."""
    from tune.search.importance import importance

    trials = store.trials()
    trials = trials[:: math.ceil(len(trials) / _IMPORTANCE_TRIALS)] if trials else []
    say(console, importance(sweep.spec, trials, store.curves([trial.trial for trial in trials]), error).summary)


def show(name: str, trial: str, target: Target, by: str | None, console: Console) -> None:
    """Print configuration, curve, metrics, cost, attempts and provenance of a trial, and the command that repeats it.

    Args:
        name: id of the sweep.
        trial: id of the trial.
        target: where the sweep is stored.
        by: what to break the held-out images and their targets down by (`print_parts`), or None.
        console: console to print on.

    Raises:
        UserError: there is no such sweep or trial, or its parts cannot be evaluated.
    """
    sweep = target.sweep(name)
    store = ResultsStore(sweep.storage)
    found = {summary.trial: summary for summary in store.trials()}
    if trial not in found:
        known = f"{min(found)} to {max(found)}" if found else "none yet"
        raise UserError(f"{name}: no trial {trial}; there are: {known}")
    summary, history = found[trial], store.history(trial)
    if store.left_out:
        say(console, left_out_in_words(store.left_out))
    say(console, f"trial {trial} of {name}: {summary.state}" + (f", {summary.reason}" if summary.reason else ""))
    _print_configuration(sweep, summary.config, summary.params, console)
    _print_curve([record for record in history if record.kind == "report"], sweep.spec.objective, console)
    metric = next(iter(sweep.spec.objective))
    if summary.values and summary.best_epoch is not None:
        say(console, f"best: {metric} {format_metric(summary.values[0])} after epoch {summary.best_epoch + 1}")
        print_recorded(summary, console)
    if by is not None:
        print_parts(sweep, summary, by, console)
    print_deployed_cost(summary, console)
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
            say(console, f"started again: {record.reason}")
    if any(record.kind == "fault" for record in history):
        say(console, f"log: {log_of(sweep.storage.uri, trial)}")
    versions = ", ".join(f"{package} {number}" for package, number in summary.last.versions.items())
    say(console, f"made by: revision {summary.last.revision or 'unknown'}; {versions}")
    ran = {**summary.config, "precision": summary.last.precision or summary.config["precision"]}
    if summary.checkpoint:
        say(console, f"checkpoint: {sweep.storage.uri}/{summary.checkpoint}")
        say(console, f"fetch it: {target.command('pull', sweep, '--out', 'DIR', trial=trial)}")
    say(
        console,
        f"repeat it: {repeat_command(ran, sweep.spec.data, f'{name}-{trial}', sweep.spec.resources)}",
    )


def _print_configuration(sweep: Sweep, config: Mapping[str, Any], params: Mapping[str, Any], console: Console) -> None:
    from semprior.config.schema import flatten

    base = flatten(sweep.spec.base_config())
    rows = [(key, format_value(value), "searched") for key, value in params.items()]
    rows += [
        (key, format_value(value), f"{format_value(base[key])} in the base")
        for key, value in config.items()
        if key not in params and key in base and base[key] != value
    ]
    print_table(console, {"setting": "left", "value": "left", "": "left"}, rows)


def _print_curve(reports: Sequence[Record], objectives: Mapping[str, str], console: Console) -> None:
    evaluated = [report for report in reports if any(metric in report.metrics for metric in objectives)]
    columns = {"epoch": "right", "inner loss": "right"} | {metric: "right" for metric in objectives} | {"": "left"}
    rows = []
    for report in evaluated:
        values = [format_metric(report.metrics.get(metric)) for metric in objectives]
        loss = format_metric(report.metrics.get("inner_loss"))
        rows.append([str(report.epoch + 1), loss, *values, "best so far" if report.best else ""])
    if rows:
        print_table(console, columns, rows)
