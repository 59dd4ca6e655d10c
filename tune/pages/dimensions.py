"""Which dimensions mattered, as charts: importance, parallel coordinates, slices, and contours of two dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import plotly.graph_objects as go
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from plotly.subplots import make_subplots

from semprior.io.foreign_text import chart_name
from semprior.pages.blocks import Cell, Chart, Column, Table
from semprior.pages.colours import BLUE, FADED, GREY, ORANGE
from tune.monitor.tables import format_metric, format_value, short_names
from tune.pages.gathered import SweepData

_GRID = 25  # points of a contour along each dimension
_WIDTH = 0.12  # of the kernel of a contour, as a share of a dimension
_NEAR = 0.25  # a contour is drawn where a trial is nearer
_MOST_ACROSS = 4  # slices in a row
_SLICE_HEIGHT = 260  # pixels
MOST_CONTOURS = 66  # pairs of dimensions


@dataclass(frozen=True)
class Axis:
    """A dimension as charts show it; the stages have an axis each.

    Attributes:
        name: Optuna's name of the parameter.
        label: a short name.
        distribution: its range or choices.
        values: (N,) of the configurations: numbers, or indices of choices.
        ticks: texts of the choices; empty for a range.
    """

    name: str
    label: str
    distribution: BaseDistribution
    values: np.ndarray
    ticks: tuple[str, ...] = ()

    @property
    def log(self) -> bool:
        """Whether it is searched on a logarithmic scale."""
        return isinstance(self.distribution, FloatDistribution | IntDistribution) and self.distribution.log

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends of the range."""
        if isinstance(self.distribution, FloatDistribution | IntDistribution):
            return float(self.distribution.low), float(self.distribution.high)
        return 0.0, float(len(self.ticks) - 1)

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Values (N,) as shares of the range; choices keep a whole unit between each other."""
        if self.ticks:
            return values.astype(np.float64)
        low, high = self.bounds
        scale = np.log if self.log else np.asarray
        shares: np.ndarray = (scale(values) - scale(low)) / (scale(high) - scale(low))
        return shares

    def grid(self) -> np.ndarray:
        """The positions of a contour along the dimension."""
        if self.ticks:
            return np.arange(len(self.ticks), dtype=np.float64)
        low, high = self.bounds
        return np.geomspace(low, high, _GRID) if self.log else np.linspace(low, high, _GRID)

    def layout(self) -> dict[str, Any]:
        """The axis of a figure."""
        if self.ticks:
            places = list(range(len(self.ticks)))
            shown = {
                "tickvals": places,
                "ticktext": list(map(chart_name, self.ticks)),
                "range": [-0.5, len(places) - 0.5],
            }
            return {"title": {"text": chart_name(self.label)}, **shown}
        if not self.log:
            return {"title": {"text": chart_name(self.label)}}
        return {"title": {"text": chart_name(self.label)}, "type": "log", **_log_ticks(self, 4)}


@dataclass(frozen=True)
class Evaluated:
    """The evaluated configurations of a sweep over its dimensions.

    Attributes:
        numbers: (N,) of the configurations.
        values: (N,) of the first objective, at the best evaluation.
        completed: (N,) whether all runs of the configuration completed.
        axes: the dimensions.
    """

    numbers: np.ndarray
    values: np.ndarray
    completed: np.ndarray
    axes: Sequence[Axis]


def evaluated(data: SweepData) -> Evaluated:
    """The drawn configurations that have a value. A dimension that does not apply has its value of the base."""
    space = data.history.space
    found = []
    distributions: dict[str, BaseDistribution] = {}
    for number, one in sorted(data.history.configurations.items()):
        values = one.values or ((one.curve[max(one.curve)],) if one.curve else None)
        if values is None or not math.isfinite(values[0]):
            continue
        full = {key: one.parameters.get(key, space.base[key]) for key in space.order}
        encoded, own, _ = space.encoded(full)
        distributions |= own
        done = all(run.state == "completed" for run in one.runs.values())
        found.append((number, values[0], done, encoded))
    labels = _labels(list(distributions))
    axes = []
    for name, distribution in distributions.items():
        column = [encoded.get(name, _absent(distribution)) for _, _, _, encoded in found]
        if isinstance(distribution, CategoricalDistribution):
            places = np.array([distribution.to_internal_repr(value) for value in column])
            ticks = tuple(_tick(choice) for choice in distribution.choices)
            axes.append(Axis(name, labels[name], distribution, places, ticks))
        else:
            axes.append(Axis(name, labels[name], distribution, np.array(column, np.float64)))
    return Evaluated(
        np.array([number for number, *_ in found], np.int64),
        np.array([value for _, value, *_ in found]),
        np.array([done for _, _, done, _ in found], bool),
        axes,
    )


def _labels(names: Sequence[str]) -> dict[str, str]:
    """A short label of each parameter; stages keep their number."""
    leaves = list(dict.fromkeys(name.partition("[")[0] for name in names))
    short = short_names(leaves)
    return {name: short[name.partition("[")[0]] + name[len(name.partition("[")[0]) :] for name in names}


def _tick(choice: object) -> str:
    return {True: "on", False: "off"}[choice] if isinstance(choice, bool) else format_value(choice) or "None"


def _absent(distribution: BaseDistribution) -> Any:  # noqa: ANN401 - a value of any distribution
    """The value of a parameter that a configuration does not have: stages that its detector lacks are off."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low


def importance_chart(data: SweepData) -> Chart | None:
    """The share of each dimension with its interval; None if it is unknown."""
    found = data.importance
    if not found.shares:
        return None
    leaves = list(found.shares)[::-1]  # the largest on top
    shares = np.array([found.shares[leaf] for leaf in leaves])
    low, high = np.array([found.intervals[leaf] for leaf in leaves]).T
    bars = go.Bar(
        x=np.round(shares, 4),
        y=[chart_name(leaf) for leaf in leaves],
        orientation="h",
        marker={"color": [FADED if leaf in found.noise else BLUE for leaf in leaves]},
        error_x={
            "color": GREY,
            "type": "data",
            "symmetric": False,
            "array": np.round(np.maximum(high - shares, 0), 4),
            "arrayminus": np.round(np.maximum(shares - low, 0), 4),
        },
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        showlegend=False,
    )
    figure = go.Figure(bars)
    figure.update_layout(
        xaxis={"title": {"text": "share of the variance"}, "tickformat": ".0%", "rangemode": "tozero"},
        height=max(200, 90 + 34 * len(leaves)),
    )
    rows = tuple(
        (
            leaf,
            Cell(f"{found.shares[leaf]:.0%}", found.shares[leaf]),
            "{:.0%} to {:.0%}".format(*found.intervals[leaf]),
            "no" if leaf in found.noise else "yes",
        )
        for leaf in found.shares
    )
    columns = (Column("dimension"), Column("share", numeric=True), Column("90% interval"), Column("more than noise"))
    caption = "Importance of the dimensions (fANOVA), with 90% intervals; faded bars cannot be told from noise"
    return Chart(figure, f"{found.summary}.", caption, Table(columns, rows, "Importance of the dimensions"))


def parallel_chart(data: SweepData, found: Evaluated) -> Chart | None:
    """Parallel coordinates of all dimensions; None with fewer than two configurations."""
    if len(found.numbers) < 2 or not found.axes:
        return None
    metric = data.metric.rpartition("/")[2]
    values = np.round(found.values, 5)
    dimensions = [{"label": chart_name(metric), "values": values}, *map(_parallel_axis, found.axes)]
    line = {"color": values, "colorscale": "Cividis", "showscale": True, "reversescale": not data.maximize}
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=line))
    figure.update_layout(height=440, margin={"l": 80, "r": 60, "t": 70, "b": 40})
    labels = ", ".join(axis.label for axis in found.axes)
    description = (
        f"Parallel coordinates of {len(found.numbers)} configurations: {metric}, then {labels}. Each line is a"
        f" configuration; lines of {'higher' if data.maximize else 'lower'} values are lighter."
    )
    caption = "Each line is a configuration. Drag along an axis to choose a range; drag the name of an axis to move it"
    return Chart(figure, description, caption)


def _parallel_axis(axis: Axis) -> dict[str, Any]:
    if axis.ticks:
        places = list(range(len(axis.ticks)))
        ticks = {"tickvals": places, "ticktext": list(map(chart_name, axis.ticks))}
        return {"label": chart_name(axis.label), "values": axis.values, "range": [-0.1, len(places) - 0.9], **ticks}
    low, high = axis.bounds
    if not axis.log:
        return {"label": chart_name(axis.label), "values": np.round(axis.values, 6), "range": [low, high]}
    marks = _log_ticks(axis, 5)
    marks["tickvals"] = np.round(np.log10(marks["tickvals"]), 5)
    return {
        "label": chart_name(axis.label),
        "values": np.round(np.log10(axis.values), 5),
        "range": [math.log10(low), math.log10(high)],
        **marks,
    }


def _log_ticks(axis: Axis, count: int) -> dict[str, Any]:
    """Marks of a logarithmic axis from end to end; Plotly's own crowd a range of less than two decades."""
    low, high = axis.bounds
    values = [float(f"{value:.3g}") for value in np.geomspace(low, high, count)]
    return {"tickvals": np.array(values), "ticktext": [format_value(value) for value in values]}


def slice_chart(data: SweepData, found: Evaluated) -> Chart | None:
    """The values of the configurations over each dimension; None without any."""
    if not len(found.numbers) or not found.axes:
        return None
    across = min(_MOST_ACROSS, len(found.axes))
    down = -(-len(found.axes) // across)
    figure = make_subplots(down, across, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.28 / down)
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(found.numbers))
    for index, axis in enumerate(found.axes):
        row, column = divmod(index, across)
        for done, name, colour, symbol in (
            (False, "stopped, failed or running", ORANGE, "circle-open"),
            (True, "completed", BLUE, "circle"),
        ):
            chosen = found.completed == done
            if not chosen.any():
                continue
            figure.add_trace(
                go.Scatter(
                    x=np.round(axis.values[chosen] + (jitter[chosen] if axis.ticks else 0.0), 6),
                    y=np.round(found.values[chosen], 5),
                    hovertext=[
                        f"trial {found.numbers[k]:04d}<br>{_shown(axis, k)}" for k in np.flatnonzero(chosen).tolist()
                    ],
                    mode="markers",
                    marker={"color": colour, "symbol": symbol, "size": 7},
                    name=name,
                    legendgroup=name,
                    showlegend=index == 0,
                    hovertemplate="%{hovertext}: %{y}<extra></extra>",
                ),
                row + 1,
                column + 1,
            )
        figure.update_xaxes(row=row + 1, col=column + 1, **axis.layout())
    metric = data.metric.rpartition("/")[2]
    figure.update_yaxes(col=1, title={"text": chart_name(metric)})
    figure.update_layout(height=_SLICE_HEIGHT * down + 80)
    trends = [f"{axis.label} {_trend(axis, found.values)}" for axis in found.axes]
    description = f"{metric} of {len(found.numbers)} configurations over each dimension: {'; '.join(trends)}."
    caption = "The best value of each configuration over each dimension; choices are spread a little"
    return Chart(figure, description, caption)


def _shown(axis: Axis, row: int) -> str:
    """A value of a dimension, for a chart."""
    value = axis.ticks[int(axis.values[row])] if axis.ticks else format_value(float(axis.values[row]))
    return chart_name(f"{axis.label} {value}")


def _trend(axis: Axis, values: np.ndarray) -> str:
    """How the values change along a dimension, in words."""
    if axis.ticks:
        means = [
            (values[axis.values == place].mean(), tick)
            for place, tick in enumerate(axis.ticks)
            if (axis.values == place).any()
        ]
        return "has means of " + ", ".join(f"{format_metric(mean)} with {tick}" for mean, tick in means)
    if len(set(axis.values.tolist())) < 3 or len(set(values.tolist())) < 2:
        return "has too few values for a trend"
    from scipy.stats import spearmanr

    return f"has a rank correlation of {float(spearmanr(axis.values, values).statistic):+.2f}"


def contour_charts(data: SweepData, found: Evaluated) -> dict[str, Chart]:
    """For each pair of dimensions, by its name, the smoothed values of the configurations over both."""
    if len(found.numbers) < 4:
        return {}
    pairs = list(combinations(found.axes, 2))[:MOST_CONTOURS]
    return {f"{first.label} and {second.label}": _contour(data, found, first, second) for first, second in pairs}


def _contour(data: SweepData, found: Evaluated, first: Axis, second: Axis) -> Chart:
    x, y, surface = smoothed(found, first, second)
    metric = data.metric.rpartition("/")[2]
    bar = {"title": {"text": chart_name(metric)}}
    low, high = float(found.values.min()), float(found.values.max())
    range_ = {"zmin": low, "zmax": high} if low < high else {}
    shown = np.round(surface, 5)
    hover = "%{z}<extra></extra>"
    if first.ticks or second.ticks:
        area = go.Heatmap(x=x, y=y, z=shown, colorscale="Cividis", colorbar=bar, hovertemplate=hover, **range_)
    else:
        area = go.Contour(
            x=x, y=y, z=shown, colorscale="Cividis", colorbar=bar, hovertemplate=hover, line={"width": 0.5}, **range_
        )
    points = go.Scatter(
        x=np.round(first.values, 6),
        y=np.round(second.values, 6),
        hovertext=[
            f"trial {number:04d}: {format_metric(value)}"
            for number, value in zip(found.numbers, found.values, strict=True)
        ],
        mode="markers",
        marker={
            "color": np.round(found.values, 5),
            "colorscale": "Cividis",
            "cmin": low,
            "cmax": high,
            "size": 8,
            "line": {"color": "#ffffff", "width": 1},
        },
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
    )
    figure = go.Figure([area, points])
    figure.update_layout(xaxis=first.layout(), yaxis=second.layout(), height=460)
    description = (
        f"{metric} over {first.label} and {second.label}: dots are configurations, the ground is the mean of those"
        " nearby, weighted by their distance."
    )
    return Chart(figure, description)


def smoothed(found: Evaluated, first: Axis, second: Axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of nearby configurations over two dimensions, weighted by a Gaussian of their distance.

    Returns:
        Positions (X,) and (Y,) along the dimensions, and (Y,X) means; NaN where no configuration is near.
    """
    x, y = first.grid(), second.grid()
    across = (first.unit(x)[:, None] - first.unit(first.values)) ** 2  # (X,N)
    up = (second.unit(y)[:, None] - second.unit(second.values)) ** 2  # (Y,N)
    distance = up[:, None] + across  # (Y,X,N)
    weights = np.exp(-distance / (2 * _WIDTH**2))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ found.values) / weights.sum(2)
    return x, y, np.where(distance.min(2) < _NEAR**2, means, np.nan)
