"""The curves of all trials, the best value over the epochs that were spent, and the Pareto front, as charts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go

from semprior.io.foreign_text import chart_name
from semprior.pages.blocks import Cell, Chart, Column, Table
from semprior.pages.colours import BLUE, FADED, GREY, SERIES, SKY
from tune.monitor.tables import format_metric
from tune.pages.gathered import SweepData
from tune.pages.settings import in_lines, number_of
from tune.store.trial_summary import TrialSummary

_BASE_DASH, _DIGITS = "dash", 5
_FEW_EPOCHS = 12  # each of which is marked on the axis
_MOST_STEPS = 300  # rows of the data below the chart of the best value


def curve_charts(data: SweepData, top: int) -> list[Chart]:
    """For each objective that changes with the epochs, the curves of all drawn trials.

    Args:
        data: the sweep.
        top: number of configurations whose curves have colours.
    """
    return [chart for metric in data.sweep.spec.objective if (chart := _curves(data, metric, top)) is not None]


def _curves(data: SweepData, metric: str, top: int) -> Chart | None:
    first = [one.entry for one in data.ranking.shown[:top]]
    colours = {entry.configuration: SERIES[index % len(SERIES)] for index, entry in enumerate(first)}
    places = {entry.configuration: entry.place for entry in first}
    figure = go.Figure()
    counts: Counter[str] = Counter()
    told: set[str] = set()
    traces = []
    for trial, epochs, values in _drawn(data, metric):
        counts[trial.state] += 1
        number = trial.configuration
        base, colour = number == 0, colours.get(number)
        if base:
            style, group = {"color": colour or SKY, "width": 3, "dash": _BASE_DASH}, "the preset, trial 0"
        elif colour:
            style, group = {"color": colour, "width": 2.2}, f"place {places[number]}: {number:04d}"
        elif trial.state in ("stopped", "failed", "diverged"):
            style, group = {"color": FADED, "width": 1}, "stopped early or failed"
        else:
            style, group = {"color": GREY, "width": 0.8}, "others"
        hover = chart_name(f"trial {trial.trial}, {trial.state}") + "<br>"
        hover += "<br>".join(map(chart_name, in_lines(trial.params).splitlines()))
        traces.append(
            (
                places.get(number, 0) if colour or base else -1,
                go.Scatter(
                    x=epochs,
                    y=values,
                    mode="lines+markers" if colour or base or len(epochs) == 1 else "lines",
                    marker={"size": 4},
                    line=style,
                    name=group,
                    legendgroup=group,
                    showlegend=group not in told,
                    hovertemplate=f"{hover}<br>epoch %{{x}}: %{{y}}<extra></extra>",
                ),
            )
        )
        told.add(group)
    if not traces:
        return None
    traces.sort(key=lambda one: one[0])  # what stands out is drawn over the others
    figure.add_traces([trace for _, trace in traces])
    few = {"dtick": 1} if data.curves.epochs.max() < _FEW_EPOCHS else {}
    figure.update_layout(xaxis={"title": {"text": "epoch"}, **few}, yaxis={"title": {"text": chart_name(metric)}})
    counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    sampled = _sampled(data)
    description = (
        f"Curves of {metric} by epoch of {len(traces)} trials: {counted}. The first {len(first)} configurations have"
        " colours, the preset is dashed, and trials that were stopped early are faded."
    )
    rows = tuple(
        (
            Cell(str(entry.place), entry.place),
            entry.trial,
            Cell(str(entry.epoch + 1), entry.epoch + 1),
            Cell(format_metric(entry.values[0]), entry.values[0]),
        )
        for entry in first
    )
    columns = (Column("place", numeric=True), Column("trial"), Column("best epoch", numeric=True))
    table = Table((*columns, Column(data.metric, numeric=True)), rows, "The curves with colours, at their best epoch")
    caption = f"{metric} of the trials by epoch; hover over a curve for its settings. {sampled}".strip()
    return Chart(figure, description, caption, table)


def _drawn(data: SweepData, metric: str) -> Iterator[tuple[TrialSummary, np.ndarray, np.ndarray]]:
    """The drawn trials with the epochs (N,), from 1, at which they have a value of a metric, and these values (N,)."""
    curves = data.curves
    ends = np.searchsorted(curves.trial, np.arange(len(curves.trials)), side="right")
    start = 0
    for name, end in zip(curves.trials, ends.tolist(), strict=True):
        values = curves.metrics[metric][start:end]
        known = np.isfinite(values)
        if name in data.drawn and known.any():
            yield data.trials[name], curves.epochs[start:end][known] + 1, np.round(values[known], _DIGITS)
        start = end


def _sampled(data: SweepData) -> str:
    """How many of the trials are drawn, if not all are."""
    if len(data.drawn) == len(data.trials):
        return ""
    return f"Of {len(data.trials):,} trials, {len(data.drawn):,} are drawn: evenly chosen ones, and the best."


def best_so_far_chart(data: SweepData) -> Chart | None:
    """The best value of the first objective over the epochs that all trials have spent; None without a value."""
    steps = _steps(data)
    if not steps:
        return None
    last = (data.curves.epochs.size, steps[-1][1], steps[-1][2])
    x = [spent for spent, _, _ in [*steps, last]]
    y = [round(value, _DIGITS) for _, value, _ in [*steps, last]]
    names = [chart_name(f"trial {name}") for _, _, name in [*steps, last]]
    line = go.Scatter(
        x=x,
        y=y,
        hovertext=names,
        mode="lines+markers",
        line={"shape": "hv", "color": BLUE},
        hovertemplate="%{hovertext}<br>after %{x} epochs: %{y}<extra></extra>",
        showlegend=False,
    )
    figure = go.Figure(line)
    figure.update_layout(
        xaxis={"title": {"text": "epochs spent by all trials"}}, yaxis={"title": {"text": chart_name(data.metric)}}
    )
    unit = "configuration, as the mean of its runs once all have ended" if data.sweep.spec.run_count > 1 else "trial"
    first, end = steps[0], steps[-1]
    description = (
        f"The best value of {data.metric} so far rises in {len(steps)} steps from {format_metric(first[1])} after"
        f" {first[0]} epochs to {format_metric(end[1])}, first reached by trial {end[2]} after {end[0]} of"
        f" {data.curves.epochs.size} epochs."
    )
    rows = tuple((Cell(str(spent), spent), Cell(format_metric(v), v), name) for spent, v, name in steps[-_MOST_STEPS:])
    columns = (Column("epochs spent", numeric=True), Column(data.metric, numeric=True), Column("trial"))
    caption = f"The best value so far of a {unit}, over the epochs that were spent"
    return Chart(figure, description, caption, Table(columns, rows, "Each improvement"))


def _steps(data: SweepData) -> list[tuple[int, float, str]]:
    """Each improvement: the epochs spent by then, the value, and the trial."""
    curves, sign = data.curves, 1 if data.maximize else -1
    order = np.argsort(curves.times, kind="stable")
    values = sign * curves.metrics[data.metric]
    found: list[tuple[int, float, str]] = []
    if data.sweep.spec.run_count == 1:
        candidates = [
            (spent, float(values[row]), curves.trials[curves.trial[row]])
            for spent, row in enumerate(order.tolist(), 1)
            if np.isfinite(values[row])
        ]
    else:
        candidates = sorted(_ended_configurations(data, order, sign))
    for spent, value, trial in candidates:
        if not found or value > sign * found[-1][1]:
            found.append((spent, sign * value, trial))
    return found


def _ended_configurations(data: SweepData, order: np.ndarray, sign: int) -> Iterator[tuple[int, float, str]]:
    """The configurations all of whose runs have ended: the epochs spent by then, their mean value, and their number."""
    curves, spec = data.curves, data.sweep.spec
    spent_at = np.empty(len(order), np.int64)
    spent_at[order] = np.arange(1, len(order) + 1)
    last = np.zeros(len(curves.trials), np.int64)
    np.maximum.at(last, curves.trial, spent_at)
    runs: dict[int, list[tuple[TrialSummary, int]]] = defaultdict(list)
    for index, name in enumerate(curves.trials):
        if trial := data.trials.get(name):  # the curves are read later, and may hold trials that began meanwhile
            runs[trial.configuration].append((trial, int(last[index])))
    for number, members in runs.items():
        whole = spec.races or len(members) == spec.run_count
        values = [trial.values[0] for trial, _ in members if trial.values and trial.state != "failed"]
        if whole and values and all(trial.state != "running" for trial, _ in members):
            yield max(spent for _, spent in members), sign * sum(values) / len(values), f"{number:04d}"


def pareto_chart(data: SweepData) -> Chart | None:
    """The first two objectives of all ranked configurations, with the Pareto front; None for one objective."""
    objectives = list(data.sweep.spec.objective)
    if len(objectives) < 2 or not data.ranking.shown:
        return None
    entries = [one.entry for one in data.ranking.shown]
    figure = go.Figure()
    front = sorted((entry for entry in entries if entry.front == 1), key=lambda entry: entry.values[0])
    others = [entry for entry in entries if entry.front != 1]
    for members, name, style in (
        (others, "dominated", {"mode": "markers", "marker": {"color": FADED, "symbol": "circle", "size": 8}}),
        (front, "Pareto front", {"mode": "lines+markers", "marker": {"color": BLUE, "symbol": "diamond", "size": 10}}),
    ):
        hovers = [
            chart_name(number_of(entry)) + "<br>" + "<br>".join(map(chart_name, in_lines(entry.params).splitlines()))
            for entry in members
        ]
        x, y = ([round(entry.values[i], _DIGITS) for entry in members] for i in (0, 1))
        hover = "%{hovertext}<br>%{x}, %{y}<extra></extra>"
        figure.add_trace(go.Scatter(x=x, y=y, hovertext=hovers, name=name, hovertemplate=hover, **style))
    titles = [chart_name(f"{metric} ({data.sweep.spec.objective[metric]})") for metric in objectives[:2]]
    figure.update_layout(xaxis={"title": {"text": titles[0]}}, yaxis={"title": {"text": titles[1]}})
    rows: list[tuple[str | Cell, ...]] = [
        (number_of(entry), *(Cell(format_metric(value), value) for value in entry.values)) for entry in front
    ]
    columns = (Column("trial"), *(Column(metric, numeric=True) for metric in objectives))
    third = f" The front is that of all {len(objectives)} objectives." if len(objectives) > 2 else ""
    description = (
        f"{objectives[1]} over {objectives[0]} of {len(entries)} configurations, {len(front)} on the Pareto front."
    )
    return Chart(figure, description, f"{description}{third}", Table(columns, tuple(rows), "The Pareto front"))
