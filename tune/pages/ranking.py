"""The ranking on the page, and what can be said of the first configuration in words."""

from __future__ import annotations

import math

from semprior.io.foreign_text import page_name
from semprior.pages.blocks import Cell, Column, Table
from semprior.reporting.terminal import clock
from tune.comparison.paired import Difference
from tune.comparison.ranked import Compared, Standing
from tune.monitor.tables import format_metric, short_names
from tune.monitor.wording import with_error
from tune.pages.gathered import SweepData
from tune.pages.settings import in_lines, number_of, shown_value
from tune.spec.constraints import Limit

_CONFIDENCE = 0.95


def ranking_table(data: SweepData, top: int) -> Table:
    """The first configurations with their paired differences; the settings stand in a hint of each trial, too.

    Args:
        data: the sweep.
        top: number of rows that stand out.
    """
    spec, shown = data.sweep.spec, data.ranking.shown
    keys = list(dict.fromkeys(key for one in shown for key in one.entry.params))
    names = short_names(keys)
    several = len(spec.objective) > 1
    paired = any(one.standings[0].from_best for one in shown)
    columns = [
        Column("place", numeric=True),
        Column(
            "trial" if spec.run_count == 1 else "configuration",
            hint="Hints in this column hold the settings.",
        ),
    ]
    columns += [Column("front", numeric=True, hint="1 is the Pareto front.")] if several else []
    for index, metric in enumerate(spec.objective):
        columns.append(Column(metric.removeprefix("holdout/"), numeric=True, hint=f"{metric}, with its standard error"))
        if paired and not index:
            columns += [
                Column("from the best", numeric=True, hint="Difference on the same images, with its standard error"),
                Column("from the preset", numeric=True, hint="Difference from trial 0 on the same images"),
                Column("P(best)", numeric=True, hint="Probability of being the best of those that may be called so"),
            ]
    columns += [Column("constraints")] if spec.limits else []
    columns += [Column("runs", numeric=True)] if spec.run_count > 1 else []
    given = {key: [one.entry.params[key] for one in shown if key in one.entry.params] for key in keys}
    numeric = {
        key: all(value is None or _number(value) is not None for value in values) for key, values in given.items()
    }
    columns += [Column(names[key], numeric[key], hint=key) for key in keys]
    columns += [
        Column("epochs", numeric=True),
        Column("state"),
        Column("device time", numeric=True, hint="Mean of a run"),
    ]
    rows = []
    for one in shown:
        entry = one.entry
        cells: list[str | Cell] = [Cell(str(entry.place), entry.place), Cell(number_of(entry), hint=_hint(one, data))]
        cells += [Cell(str(entry.front), entry.front)] if several else []
        for index, (value, error) in enumerate(zip(entry.values, entry.errors, strict=True)):
            cells.append(Cell(with_error(value, error), value))
            cells += _differences(one.standings[0]) if paired and not index else []
        cells += [_unmet(one)] if spec.limits else []
        cells += [Cell(str(len(entry.trials)), len(entry.trials))] if spec.run_count > 1 else []
        cells += [_setting(entry.params.get(key)) for key in keys]
        state = Cell(entry.state, hint=entry.reason)
        cells += [Cell(str(entry.epochs), entry.epochs), state, Cell(clock(entry.device_s), entry.device_s)]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows), "Configurations, the best first", frozenset(range(min(top, len(rows)))))


def _setting(value: object) -> Cell:
    return Cell(shown_value(value), _number(value))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _hint(one: Compared, data: SweepData) -> str:
    entry = one.entry
    runs = [data.trials[trial] for trial in entry.trials]
    hosts = sorted({f"{run.last.host} ({run.last.made_on})" for run in runs})
    ran = f"runs {', '.join(entry.trials)}, on" if len(entry.trials) > 1 else "ran on"
    return f"{in_lines(entry.params)}\n\n{ran} {', '.join(hosts)}"


def _differences(standing: Standing) -> list[str | Cell]:
    cells: list[str | Cell] = []
    for difference in (standing.from_best, standing.from_base):
        if difference is None:
            cells.append("")
            continue
        itself = difference.value == 0 and not difference.error
        text = "0" if itself else with_error(difference.value, difference.error, signed=True)
        cells.append(Cell(text, difference.value))
    probability = standing.probability
    return [*cells, "" if probability is None else Cell(f"{probability:.2f}", probability)]


def _unmet(one: Compared) -> str:
    beyond = [f"{metric.rpartition('/')[2]} {format_metric(value)}" for metric, value in one.entry.unmet.items()]
    return ", ".join(beyond) or "met"


def verdict(data: SweepData) -> list[str]:
    """Which configuration is the best, by how much and how sure, in sentences."""
    spec, shown = data.sweep.spec, data.ranking.shown
    if not shown:
        return [f"No trial has a value of {data.metric} yet."]
    if data.best is None:
        if shown[0].entry.unmet:
            return [f"No configuration meets the constraints: {', '.join(map(str, spec.limits))}."]
        return [f"No configuration has {spec.runs_of_the_best} completed runs yet, so none is called the best."]
    best, noun = data.best.entry, "trial" if spec.run_count == 1 else "configuration"
    found = []
    if len(spec.objective) > 1:
        front = [one for one in shown if one.entry.front == 1]
        found.append(
            f"There are {len(spec.objective)} objectives, so that no configuration is simply the best:"
            f" {len(front)} of them {'are' if len(front) != 1 else 'is'} on the Pareto front."
        )
    else:
        over = "over the pooled images of its folds" if spec.runs.folds else f"as the mean of {len(best.trials)} runs"
        several = f", {over}" if len(best.trials) > 1 else ""
        value = with_error(best.values[0], best.errors[0])
        found.append(f"{noun.capitalize()} {number_of(best)} ranks first, with {data.metric} {value}{several}.")
        leader = data.ranking.leader
        band = [one.entry.configuration for one in shown if one.band == 1 and one.entry.front == best.front]
        if leader is not None and leader.configuration != best.configuration and leader.configuration in band:
            value = with_error(leader.values[0], leader.errors[0])
            found.append(
                f"{noun.capitalize()} {number_of(leader)} is ahead on the same images, with {value}, but"
                f" {number_of(best)} is within one standard error of it and costs at least a tenth less, so that it"
                " comes first."
            )
    for index, (metric, (first, base, difference)) in enumerate(data.ranking.gains.items()):
        sign = 1 if spec.objective[metric] == "max" else -1
        names = f"{noun} {number_of(first)}", f"{noun} {number_of(base)}"
        found.append(_gain(metric, *names, first.values[index] - base.values[index], difference, sign))
    if not data.ranking.gains:
        found.append("The preset itself, trial 0, has no value yet, so that the gain of the search is unknown.")
    if len(spec.objective) == 1:
        found += _certainty(data)
    return found


def _gain(metric: str, best: str, base: str, plain: float, difference: Difference | None, sign: int) -> str:
    if best == base:
        return f"{metric}: the preset itself, {base}, is the best; the search has found nothing better."
    gain = sign * (difference.value if difference else plain)
    error = difference.error if difference else None
    if error is None:
        word = "better" if gain > 0 else "no better"
        told = f"{best} is {word} than the preset, {base}"
        return f"{metric}: {told} ({sign * gain:+.4f}; the error is unknown)."
    half = difference.half_width(_CONFIDENCE) if difference else None
    interval = f"; 95% interval {gain - half:+.4f} to {gain + half:+.4f}" if half is not None else ""
    if half is not None and gain > half:
        sure = "The gain is larger than chance explains: its 95% interval excludes zero."
    elif gain > error:
        sure = "The gain exceeds its standard error, but its 95% interval includes zero: it may be chance."
    else:
        sure = "This cannot be told from chance."
    word = "gain" if gain > 0 else "difference"
    return (
        f"{metric}: the {word} of {best} over the base of the sweep, {base}, on the same images is"
        f" {gain:+.4f} ± {error:.4f} (standard error{interval}). {sure}"
    )


def _certainty(data: SweepData) -> list[str]:
    """How sure it is that the first configuration is the best, and which ones are as good."""
    shown = data.ranking.shown
    found = []
    probability = shown[0].standings[0].probability
    if probability is not None and math.isfinite(probability):
        found.append(f"It is the best of those compared with a probability of {probability:.0%}.")
    first = shown[0].entry.front
    equal = [number_of(one.entry) for one in shown[1:] if one.band == 1 and one.entry.front == first]
    if equal:
        found.append(
            f"As far as can be told, as good are {', '.join(equal)}."
            " Of configurations within one standard error of the best value, one cheaper by a tenth ranks first."
        )
    if data.ranking.gains and len(shown) > 1:
        seed = (
            "" if data.sweep.spec.run_count > 1 else ", and the errors do not tell how much a run depends on its seed"
        )
        found.append(
            f"The same images have chosen the winner, so that its value flatters it{seed}. semprior-tune promote"
            " compares the first configurations with several seeds that the search has not used."
        )
    return found


def constraints_in_words(limits: tuple[Limit, ...]) -> str:
    """The constraints of a sweep, in words; empty if there are none."""
    return f"It must meet {' and '.join(map(str, limits))}." if limits else ""


def missing_in_words(data: SweepData) -> str:
    """Which differences are not known, in words; empty if all are."""
    missing = data.ranking.missing
    if not missing:
        return ""
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return (
        "Some differences are not known: the store lacks the values image by image, at the best evaluation, of"
        f" trial{'s' if len(missing) > 1 else ''} {', '.join(map(page_name, missing[:5]))}{more}."
    )
