"""The charts of a run's page: curves over epochs, cluster weights, gates of SCAM, Pd against Fa, parts of a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from plotly.graph_objects import Bar, Box, Figure, Scatter
from plotly.subplots import make_subplots

from semprior.deployment.evaluate import Evaluation
from semprior.evaluation.breakdown import Part
from semprior.evaluation.curve import CurvePoint
from semprior.io.foreign_text import chart_name, page_name
from semprior.pages.blocks import Cell, Chart, Column, Table
from semprior.pages.colours import BLUE, GREEN, GREY, PURPLE, VERMILION
from semprior.reporting.evaluation_tables import METRIC_COLUMNS, with_error

SCORES = (
    ("point_score", "Point score", 4),
    ("iou", "IoU", 4),
    ("pd", "Pd", 4),
    ("fa", "Fa (1e-6)", 2),
    ("point_pd", "Pd of points", 4),
    ("point_fa", "Fa away from points (1e-6)", 2),
)
"""Name, label and digits of the metrics over epochs; those by points stand in for those by masks where these lack."""
MOST_SCORES = 4
"""The number of them that are shown."""
_WHO = (("student", "", BLUE, "solid"), ("teacher", "teacher/", VERMILION, "dot"))
_FAINT = 0.05  # least Fa in 1e-6 on a logarithmic axis

Line = Mapping[str, Any]


def score_chart(lines: Sequence[Line], place: str) -> Chart | None:
    """The metrics of student and teacher over epochs, with standard errors; None if no epoch was evaluated.

    Args:
        lines: of ``metrics.jsonl``.
        place: where they were evaluated, ``holdout`` or ``test``.
    """
    evaluated = [line for line in lines if any(name.startswith(f"{place}/") for name in line)]
    names = [score for score in SCORES if any(line.get(f"{place}/{score[0]}") is not None for line in evaluated)]
    names = names[:MOST_SCORES]
    if not names:
        return None
    columns = min(2, len(names))
    figure = make_subplots(
        rows=-(-len(names) // columns),
        cols=columns,
        subplot_titles=[label for _, label, _ in names],
        vertical_spacing=0.16,
    )
    for number, (name, _, _) in enumerate(names):
        where = {"row": number // columns + 1, "col": number % columns + 1}
        for who, prefix, colour, dash in _WHO:
            _add_curve(figure, evaluated, f"{place}/{prefix}{name}", who, colour, dash, shown=not number, where=where)
    best = next((line["epoch"] + 1 for line in reversed(lines) if line.get("best")), None)
    if best is not None:
        figure.add_vline(x=best, line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_xaxes(title_text="epochs", title_standoff=4)
    figure.update_layout(height=300 * -(-len(names) // columns) + 60, legend={"orientation": "h", "y": 1.12})
    marked = f" The dashed line is the best epoch, {best}, whose student is deployed." if best is not None else ""
    caption = f"Scores on the {place} split. Bands are one standard error over images.{marked}"
    return Chart(figure, _curve_in_words(evaluated, place, names, best), caption, _score_table(evaluated, place, names))


def _add_curve(
    figure: Figure,
    lines: Sequence[Line],
    key: str,
    who: str,
    colour: str,
    dash: str,
    *,
    shown: bool,
    where: dict[str, int],
) -> None:
    found = [(line["epoch"] + 1, line[key], line.get(f"{key}_se")) for line in lines if line.get(key) is not None]
    if not found:
        return
    epochs, values = [epoch for epoch, _, _ in found], np.array([value for _, value, _ in found])
    errors = np.array([error or 0.0 for _, _, error in found])
    if errors.any():
        around = Scatter(
            x=[*epochs, *reversed(epochs)],
            y=[*(values + errors), *(values - errors)[::-1]],
            fill="toself",
            fillcolor=_faded(colour),
            line={"width": 0},
            hoverinfo="skip",
            legendgroup=who,
            showlegend=False,
        )
        figure.add_trace(around, **where)
    curve = Scatter(
        x=epochs,
        y=values,
        name=who,
        mode="lines+markers",
        line={"color": colour, "dash": dash},
        marker={"size": 5},
        legendgroup=who,
        showlegend=shown,
        hovertemplate=f"epoch %{{x}}: %{{y:.4g}}<extra>{who}</extra>",
    )
    figure.add_trace(curve, **where)


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.18)"


def _curve_in_words(lines: Sequence[Line], place: str, names: Sequence[tuple[str, str, int]], best: int | None) -> str:
    name, label, digits = names[0]
    values = [(line["epoch"] + 1, line[f"{place}/{name}"]) for line in lines if line.get(f"{place}/{name}") is not None]
    (first_epoch, first), (last_epoch, last) = values[0], values[-1]
    chosen = f" The best epoch is {best}." if best is not None else ""
    return (
        f"{label} of the student on the {place} split goes from {first:.{digits}f} after {first_epoch} epochs to"
        f" {last:.{digits}f} after {last_epoch}.{chosen}"
    )


def _score_table(lines: Sequence[Line], place: str, names: Sequence[tuple[str, str, int]]) -> Table:
    columns = [Column("Epoch", numeric=True)]
    columns += [Column(f"{label}, {who}", numeric=True) for _, label, _ in names for who, *_ in _WHO]
    rows = []
    for line in lines:
        cells = [Cell(str(line["epoch"] + 1), line["epoch"] + 1)]
        for name, _, digits in names:
            for _, prefix, *_ in _WHO:
                value, error = line.get(f"{place}/{prefix}{name}"), line.get(f"{place}/{prefix}{name}_se")
                cells.append(number_cell(value, error, digits))
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def number_cell(value: float | None, error: float | None, digits: int) -> Cell:
    """A number with its standard error, sorted by the number; a dash if there is none."""
    if value is None or not np.isfinite(value):
        return Cell("-")
    return Cell(with_error(value, float("nan") if error is None else error, digits), float(value))


def training_chart(lines: Sequence[Line]) -> Chart:
    """Losses, learning rate, pool of images and, where there are true masks, the overlap of pseudo-masks, over epochs.

    Args:
        lines: of ``metrics.jsonl``; at least one.
    """
    overlap = any(line.get("labels/iou") is not None for line in lines)
    titles = ["Losses", "Learning rate", "Images that train"] + (
        ["Pseudo-masks: IoU with true masks"] if overlap else []
    )
    figure = make_subplots(rows=2, cols=2, subplot_titles=titles, vertical_spacing=0.18)
    curves = [
        ("inner_loss", "inner loss", BLUE, 1, 1),
        ("outer_loss", "outer loss", VERMILION, 1, 1),
        ("rate", "learning rate", PURPLE, 1, 2),
        ("pool", "pool", GREEN, 2, 1),
        *((("labels/iou", "IoU of pseudo-masks", GREEN, 2, 2),) if overlap else ()),
    ]
    for key, name, colour, row, column in curves:
        found = [(line["epoch"] + 1, line[key]) for line in lines if line.get(key) is not None]
        curve = Scatter(
            x=[epoch for epoch, _ in found],
            y=[value for _, value in found],
            name=name,
            mode="lines+markers" if key == "labels/iou" else "lines",
            line={"color": colour, "shape": "hv" if key == "pool" else "linear"},
            showlegend=key.endswith("_loss"),
            hovertemplate=f"epoch %{{x}}: %{{y:.4g}}<extra>{name}</extra>",
        )
        figure.add_trace(curve, row=row, col=column)
    figure.update_xaxes(title_text="epochs", title_standoff=4)
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(height=600, legend={"orientation": "h", "y": 1.12})
    first, last = lines[0], lines[-1]
    text = (
        f"The inner loss goes from {first['inner_loss']:.4g} in epoch {first['epoch'] + 1} to {last['inner_loss']:.4g}"
        f" in epoch {last['epoch'] + 1}."
    )
    labels = [line["labels/iou"] for line in lines if line.get("labels/iou") is not None]
    if labels:
        text += f" The IoU of the pseudo-masks with the true masks goes from {labels[0]:.3f} to {labels[-1]:.3f}."
    remark = "True masks are read to report the last curve, and decide nothing." if overlap else ""
    return Chart(figure, text, remark, _training_table(lines, overlap))


def _training_table(lines: Sequence[Line], overlap: bool) -> Table:
    keys = [("inner_loss", "Inner loss"), ("outer_loss", "Outer loss"), ("rate", "Learning rate"), ("pool", "Pool")]
    keys += [("labels/iou", "IoU of pseudo-masks")] if overlap else []
    columns = (Column("Epoch", numeric=True), *(Column(label, numeric=True) for _, label in keys))
    rows = []
    for line in lines:
        cells = [Cell(str(line["epoch"] + 1), line["epoch"] + 1)]
        for key, _ in keys:
            value = line.get(key)
            cells.append(Cell("-") if value is None else Cell(f"{value:.4g}", float(value)))
        rows.append(tuple(cells))
    return Table(columns, tuple(rows))


def cluster_chart(clusters: np.ndarray, weights: np.ndarray, images: np.ndarray) -> Chart:
    """The weight of each cluster, from the lowest to the highest.

    Args:
        clusters: (N,) int, their numbers.
        weights: (N,) float, theirs; the mean over images is 1.
        images: (N,) int, number of images in each.
    """
    order = np.argsort(weights, kind="stable")
    clusters, weights, images = clusters[order], weights[order], images[order]
    names = [f"cluster {cluster}" for cluster in clusters]
    figure = Figure(
        Bar(
            x=np.arange(1, len(order) + 1),
            y=weights - 1,
            base=1,
            marker={"color": [VERMILION if weight < 1 else BLUE for weight in weights]},
            customdata=np.stack([clusters, images, weights], axis=1),
            hovertemplate="cluster %{customdata[0]}, %{customdata[1]} images: %{customdata[2]:.3f}<extra></extra>",
        )
    )
    figure.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_layout(height=320, xaxis_title="clusters, from the least to the most trusted", yaxis_title="weight")
    lowest, highest = names[0], names[-1]
    text = (
        f"{len(order)} clusters; the weight is lowest for {lowest} ({weights[0]:.3f}) and highest for {highest}"
        f" ({weights[-1]:.3f})."
    )
    rows = tuple(
        (
            Cell(str(cluster), float(cluster)),
            Cell(f"{weight:.4f}", float(weight)),
            Cell(str(number), float(number)),
        )
        for cluster, weight, number in zip(clusters, weights, images, strict=True)
    )
    columns = (Column("Cluster", numeric=True), Column("Weight", numeric=True), Column("Images", numeric=True))
    return Chart(figure, text, "The mean weight over images is 1, the dashed line.", Table(columns, rows))


def gate_chart(gates: Mapping[int, np.ndarray]) -> Chart:
    """The gates of SCAM by stage, as boxes.

    Args:
        gates: (C,) of each modulated stage, by the number of the stage from 1.
    """
    figure = Figure(
        [
            Box(y=values, name=f"stage {stage}", boxpoints="outliers", marker={"color": BLUE}, showlegend=False)
            for stage, values in gates.items()
        ]
    )
    figure.add_hline(y=1, line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_layout(height=360, yaxis_title="gate")
    columns = (
        Column("Stage"),
        *(Column(name, numeric=True) for name in ("Channels", "Mean |gate|", "Least", "Median", "Most")),
        Column("Nearly closed", numeric=True, hint="Share of the channels with |gate| below 0.1."),
    )
    rows: list[tuple[str | Cell, ...]] = []
    for stage, values in gates.items():
        numbers = [np.abs(values).mean(), values.min(), np.median(values), values.max()]
        closed = float(np.mean(np.abs(values) < 0.1))
        rows.append(
            (
                f"stage {stage}",
                Cell(str(len(values)), len(values)),
                *(Cell(f"{number:.3f}", float(number)) for number in numbers),
                Cell(f"{closed:.0%}", closed),
            )
        )
    means = "; ".join(f"stage {stage} {np.abs(values).mean():.3f}" for stage, values in gates.items())
    caption = "A gate starts at 1, the dashed line; one of 0 leaves its channel without modulation."
    return Chart(figure, f"Mean absolute gate: {means}.", caption, Table(columns, tuple(rows)))


def mixture_chart(shares: np.ndarray) -> Chart:
    """How much each map of the vision model contributes.

    Args:
        shares: (K,) that sum to 1, from the first map to the last.
    """
    numbers = np.arange(1, len(shares) + 1)
    figure = Figure(
        Bar(x=numbers, y=shares, marker={"color": GREEN}, hovertemplate="map %{x}: %{y:.3f}<extra></extra>")
    )
    figure.add_hline(y=1 / len(shares), line={"color": GREY, "dash": "dash", "width": 1})
    figure.update_layout(height=280, xaxis_title="maps of the vision model, from shallow to deep", yaxis_title="share")
    figure.update_xaxes(dtick=1)
    text = f"Map {int(shares.argmax()) + 1} of {len(shares)} has the largest share, {shares.max():.3f}."
    rows = tuple(
        (Cell(str(number), number), Cell(f"{share:.4f}", float(share))) for number, share in enumerate(shares, 1)
    )
    table = Table((Column("Map", numeric=True), Column("Share", numeric=True)), rows)
    return Chart(figure, text, "Without training all shares are equal, the dashed line.", table)


def trade_off_chart(curve: Sequence[CurvePoint], threshold: float) -> Chart:
    """Pd against Fa over thresholds of the probability.

    Args:
        curve: of an evaluation.
        threshold: that is marked.
    """
    fa, pd = ([getattr(point.metrics, name) for point in curve] for name in ("fa", "pd"))
    shown = np.maximum(fa, _FAINT)
    figure = Figure(
        Scatter(
            x=shown,
            y=pd,
            error_y={"type": "data", "array": np.nan_to_num([point.errors["pd"] for point in curve]), "thickness": 1},
            mode="lines+markers",
            line={"color": BLUE},
            customdata=np.stack([[point.threshold for point in curve], fa], axis=1),
            hovertemplate="threshold %{customdata[0]:.3g}: Pd %{y:.3f}, Fa %{customdata[1]:.3g}<extra></extra>",
            showlegend=False,
        )
    )
    marked = [index for index, point in enumerate(curve) if point.threshold == threshold]
    for index in marked:
        marker = {"color": VERMILION, "size": 12, "symbol": "diamond"}
        figure.add_trace(
            Scatter(x=[shown[index]], y=[pd[index]], mode="markers", marker=marker, name=f"threshold {threshold:g}")
        )
    ticks = [digit * 10.0**power for power in range(-2, 7) for digit in (1, 2, 5)]
    figure.update_xaxes(
        type="log", title_text="Fa, 1e-6 of all pixels", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks]
    )
    lowest = float(np.nanmin(pd, initial=1.0))
    figure.update_yaxes(title_text="Pd", range=[max(-0.02, lowest - 0.1), 1.02])
    figure.update_layout(legend={"orientation": "h", "y": 1.1})
    rows = tuple(
        (
            Cell(f"{point.threshold:g}", point.threshold),
            *(number_cell(getattr(point.metrics, name), point.errors[name], 3) for name in ("pd", "fa", "iou", "niou")),
        )
        for point in curve
    )
    columns = tuple(Column(name, numeric=True) for name in ("Threshold", "Pd", "Fa (1e-6)", "IoU", "nIoU"))
    text = "; ".join(f"at threshold {threshold:g}, Pd {pd[index]:.3f} and Fa {fa[index]:.3g}" for index in marked)
    text = f"{len(curve)} thresholds: {text or 'see the numbers'}."
    remark = f"Fa below {_FAINT:g} is drawn at {_FAINT:g}." if min(fa) < _FAINT else ""
    return Chart(figure, text, remark, Table(columns, rows))


def parts_chart(breakdowns: Mapping[str, Sequence[Part]]) -> Chart | None:
    """Pd of the parts of a split with standard errors; None without targets in parts.

    Args:
        breakdowns: parts by what they differ in.
    """
    shown = {by: [part for part in parts if part.metrics.targets] for by, parts in breakdowns.items()}
    shown = {by: parts for by, parts in shown.items() if parts}
    if not shown:
        return None
    figure = make_subplots(rows=1, cols=len(shown), shared_yaxes=True, subplot_titles=[f"by {by}" for by in shown])
    for column, (by, parts) in enumerate(shown.items(), 1):
        bars = Bar(
            x=[chart_name(part.name or "-") for part in parts],
            y=[part.metrics.pd for part in parts],
            error_y={"type": "data", "array": np.nan_to_num([part.errors["pd"] for part in parts])},
            marker={"color": BLUE},
            customdata=[part.metrics.targets for part in parts],
            hovertemplate=f"{by} %{{x}}: Pd %{{y:.3f}} of %{{customdata}} targets<extra></extra>",
            showlegend=False,
        )
        figure.add_trace(bars, row=1, col=column)
    figure.update_xaxes(type="category")
    figure.update_yaxes(range=[0, 1.04])
    figure.update_layout(height=360, yaxis_title="Pd")
    return Chart(
        figure,
        most_missed(breakdowns),
        "Bars are the share of the targets that are found; whiskers are one standard error.",
    )


def most_missed(breakdowns: Mapping[str, Sequence[Part]]) -> str:
    """Which targets are missed most: a paragraph for each way to tell them apart."""
    paragraphs = []
    for by, parts in breakdowns.items():
        own = [part for part in parts if part.metrics.targets]
        worst = min(own, key=lambda part: part.metrics.pd, default=None)
        if worst is None or len(own) < 2:
            continue
        if worst.metrics.pd >= 1:
            paragraphs.append(f"By {by}: no target is missed.")
            continue
        found = with_error(worst.metrics.pd, worst.errors["pd"], 3)
        missed = round((1 - worst.metrics.pd) * worst.metrics.targets)
        paragraphs.append(
            f"Missed most by {by}: {page_name(worst.name or '-')}, with Pd {found}; {missed} of"
            f" {worst.metrics.targets} such targets are missed."
        )
    return "\n\n".join(paragraphs) or "The targets are too few or too alike to be told apart."


def parts_table(parts: Sequence[Part], by: str) -> Table:
    """The metrics of parts of a split, each with its standard error."""
    columns = (
        Column(by.capitalize()),
        *(Column(name, numeric=True) for name in ("Images", "Targets", *(label for _, label, _, _ in METRIC_COLUMNS))),
    )
    rows: list[tuple[str | Cell, ...]] = []
    for part in parts:
        metrics = part.metrics
        cells = [Cell(str(metrics.images), metrics.images), Cell(str(metrics.targets), metrics.targets)]
        cells += [
            number_cell(getattr(metrics, name) * factor, part.errors[name] * factor, digits - 1)
            for name, _, factor, digits in METRIC_COLUMNS
        ]
        rows.append((page_name(part.name or "-"), *cells))
    return Table(columns, tuple(rows), f"By {by}")


def whole_table(evaluation: Evaluation, caption: str) -> Table:
    """The metrics of a split with their standard errors."""
    columns = (Column("Metric"), Column("Value", numeric=True), Column("Standard error", numeric=True))
    rows = []
    for name, label, factor, digits in METRIC_COLUMNS:
        value, error = getattr(evaluation.metrics, name) * factor, evaluation.errors[name] * factor
        rows.append((label, number_cell(value, None, digits), number_cell(error, None, digits)))
    return Table(columns, tuple(rows), caption)
