"""The order of a sweep's configurations: best first, and of those that cannot be told apart the cheaper first.

**A trial's value** is a metric at one evaluation or over some; all objectives are taken at the same:

- ``best``: at its best evaluation by the first objective; of equal ones the latest, as the trainer has it. This is
  what a search optimises and what `pull` fetches.
- ``last``: at its last evaluation.
- ``robust``: the mean minus the standard deviation (n - 1) of its last k evaluations; plus it, where the objective is
  minimised. A trial with fewer than two evaluations has none.

**A configuration's value** is the mean of its trials' that have one. With several seeds its standard error is
``sqrt(s^2 / n + e^2)``: ``s`` the standard deviation over n seeds, ``e`` the root mean square of their evaluations'
standard errors (metric ``NAME_se``), which more seeds on the same images do not shrink. With one it is ``e``.

**The order** by one objective: configurations sorted by value are cut into bands. The best one opens a band that
reaches down by its standard error; in the band the cheaper ones go first, by device seconds a trial; the best one
below the band opens the next. Cheaper is only what saves more than the clock's own noise: the cheapest of a band and
those within a tenth of it cost the same and stand by value, then the cheapest of the others, and so on. By several
objectives: first the Pareto front, then the front of the rest, and so on; in each front by the first objective, in
bands.

Only a configuration whose trials all ended complete passes a better one by being cheaper. One that was stopped early,
failed, diverged or still runs is cheap because it was cut short, which says nothing of what its settings cost: in its
band it counts as no cheaper than any that is better, and of equal values it comes last.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tune.arrange import Arranged, last_of_each, ranked_words
from tune.records import METRIC, State, from_table
from tune.summaries import arrange_view, best_positions
from tune.view import Files, View

ALIKE = 1.1
"""Device seconds of two runs of one configuration differ by some per cent: up to this factor costs count as equal."""

Direction = Literal["max", "min"]
RankedBy = Literal["best", "last", "robust"]


@dataclass(frozen=True)
class Ranked:
    """A configuration in its place.

    Attributes:
        place: from 1.
        front: 1 on the Pareto front, and so on; 1 for all where there is one objective.
        configuration: its number.
        trial: the best of its trials, which speaks for it.
        trials: all of them that have a value.
        values: the objectives, in the order asked for; the mean over its trials.
        errors: their standard errors; none where no evaluation tells one.
        epoch: of `trial`'s evaluation that counts.
        epochs: that `trial` has trained.
        state: of `trial`.
        reason: of that state.
        params: what the search chose.
        checkpoint: of `trial`'s best epoch, relative to the sweep; it is kept for good.
        sha256: of its manifest.
        wall_s: seconds a trial, on average.
        device_s: device seconds a trial, on average.
        precision: in which the networks of all `trials` ran: ``bf16``, ``fp32``, or ``bf16, fp32`` where both occurred;
            empty where none is known.
    """

    place: int
    front: int
    configuration: int
    trial: str
    trials: tuple[str, ...]
    values: tuple[float, ...]
    errors: tuple[float | None, ...]
    epoch: int
    epochs: int
    state: State
    reason: str
    params: Mapping[str, Any]
    checkpoint: str | None
    sha256: str | None
    wall_s: float
    device_s: float
    precision: str = ""


@dataclass(frozen=True)
class Values:
    """What each of T trials is ranked by, for M objectives.

    Attributes:
        index: (T,) which of the reports is the evaluation; -1 for a trial without a value.
        values: (T,M).
        errors: (T,M) standard errors; not a number where none is told.
    """

    index: np.ndarray
    values: np.ndarray
    errors: np.ndarray


def rank(
    view: View,
    objectives: Mapping[str, Direction],
    by: RankedBy,
    last: int = 5,
    limit: int | None = None,
    also: Collection[int] = (),
) -> list[Ranked]:
    """Rank the configurations of a view; `ResultsStore.rank` says by what."""
    names = [name for objective in objectives for name in _columns(objective)]
    # Of millions of records a column takes 24 MB, and reading it from a bucket a second: few at a time, and few times.
    about, cost = ["wall_s", "configuration", "best", "state", "precision"], ["device_s"]
    read, found = arrange_view(view, [*names, *about, *cost])
    if not len(found.reports):
        return []
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in objectives.values()])
    metrics = read.columns(names)
    trial_values = values_of(metrics, found, list(objectives), signs, by, last)
    del metrics  # it is large, as is every table of columns here: one is held at a time
    ranked = np.flatnonzero(trial_values.index >= 0)
    if not len(ranked):
        return []
    table = read.columns(about)
    wall_s = found.total(table["wall_s"])
    table = table.drop_columns("wall_s")
    configurations = table["configuration"].to_numpy()[found.firsts]
    best = best_positions(table["best"], found)
    completed = _completed(table["state"], found)
    precisions = _precisions(table["precision"], found)
    del table
    device_s = found.total(read.columns(cost)["device_s"])
    numbers, group = np.unique(configurations[ranked], return_inverse=True)
    whole = ~np.isin(numbers, configurations[~completed])
    values, errors = mean_over_seeds(trial_values.values[ranked], trial_values.errors[ranked], group, len(numbers))
    count = np.bincount(group)
    spent = np.bincount(group, device_s[ranked]) / count
    wall = np.bincount(group, wall_s[ranked]) / count
    fronts = pareto_fronts(values * signs)
    order = [
        i
        for front in range(fronts.max() + 1)
        for i in _by_bands(np.flatnonzero(fronts == front), values[:, 0] * signs[0], errors[:, 0], spent, whole)
    ]

    speaker = np.empty(len(numbers), np.int64)
    rising = np.argsort(trial_values.values[ranked, 0] * signs[0], kind="stable")
    speaker[group[rising]] = ranked[rising]  # the best of each is written last
    final = last_of_each(found.owners, found.reports, len(found.trials))
    shown = {i: place for place, i in enumerate(order, 1) if limit is None or place <= limit or numbers[i] in also}
    told = _tell(
        read, [position for i in shown for position in (best[speaker[i]], found.ends[speaker[i]], final[speaker[i]])]
    )
    members: dict[int, list[str]] = {}
    for index, configuration in zip(ranked.tolist(), group.tolist(), strict=True):
        members.setdefault(configuration, []).append(found.trials[index])
    entries = []
    for i, place in shown.items():
        who = int(speaker[i])
        peak, end, latest = told.get(int(best[who])), told.get(int(found.ends[who])), told[int(final[who])]
        entries.append(
            Ranked(
                place=place,
                front=int(fronts[i]) + 1,
                configuration=int(numbers[i]),
                trial=found.trials[who],
                trials=tuple(members[i]),
                values=tuple(values[i].tolist()),
                errors=tuple(None if np.isnan(error) else error for error in errors[i].tolist()),
                epoch=int(found.epochs[trial_values.index[who]]),
                epochs=latest.epoch + 1,
                state=end.state if end else "running",
                reason=end.reason if end else "",
                params=latest.params,
                checkpoint=peak.checkpoint if peak else None,
                sha256=peak.sha256 if peak else None,
                wall_s=float(wall[i]),
                device_s=float(spent[i]),
                precision=", ".join(sorted(set().union(*(precisions[index] for index in ranked[group == i])))),
            )
        )
    return entries


def values_of(
    metrics: pa.Table, found: Arranged, objectives: Sequence[str], signs: np.ndarray, by: RankedBy, last: int
) -> Values:
    """What each trial is ranked by; `metrics` has two columns an objective, for all rows that were arranged."""
    number = len(found.trials)
    columns, spreads = (
        [metrics[_columns(name)[which]].to_numpy()[found.reports] for name in objectives] for which in (0, 1)
    )
    rows = np.flatnonzero(np.isfinite(columns[0])).astype(np.int32)
    owners, first = found.owners[rows], columns[0][rows] * signs[0]
    if by == "best":
        peak = np.full(number, -np.inf)
        np.maximum.at(peak, owners, first)
        at_peak = first == peak[owners]
        index = last_of_each(owners[at_peak], rows[at_peak], number)
    else:
        index = last_of_each(owners, rows, number)
    if by != "robust":
        there = index >= 0
        values, errors = (
            np.where(there[:, None], np.stack([c[index] for c in of], 1), np.nan) for of in (columns, spreads)
        )
        return Values(index, values, errors)
    ends = np.searchsorted(owners, np.arange(number), side="right")
    recent = np.arange(len(rows)) >= ends[owners] - last
    owners, rows = owners[recent], rows[recent]
    count = np.bincount(owners, minlength=number)
    values, errors = np.empty((number, len(objectives))), np.empty((number, len(objectives)))
    with np.errstate(invalid="ignore", divide="ignore"):
        for i, (column, spread) in enumerate(zip(columns, spreads, strict=True)):
            mean = np.bincount(owners, column[rows], number) / count
            square = np.bincount(owners, (column[rows] - mean[owners]) ** 2, number) / (count - 1)
            values[:, i] = mean - signs[i] * np.sqrt(square)
            errors[:, i] = np.sqrt(np.bincount(owners, spread[rows] ** 2, number) / count)
    return Values(np.where(count > 1, index, -1), values, errors)


def _columns(objective: str) -> tuple[str, str]:
    """Of its values, and of their standard errors."""
    return f"{METRIC}{objective}", f"{METRIC}{objective}_se"


def mean_over_seeds(
    values: np.ndarray, errors: np.ndarray, group: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values (T,M) and errors (T,M) of trials to those of their configurations, (C,M) each."""
    count = np.bincount(group, minlength=number)
    means, spreads = np.empty((number, values.shape[1])), np.empty((number, values.shape[1]))
    for i in range(values.shape[1]):
        mean = np.bincount(group, values[:, i], number) / count
        square = np.bincount(group, (values[:, i] - mean[group]) ** 2, number) / np.maximum(count - 1, 1)
        own = np.bincount(group, errors[:, i] ** 2, number) / count
        told = np.where(np.isnan(own) & (count > 1), 0.0, own)  # seeds tell an error of their own
        means[:, i], spreads[:, i] = mean, np.sqrt(square / count + told)
    return means, spreads


def pareto_fronts(values: np.ndarray) -> np.ndarray:
    """(C,) the front of each row of values (C,M), all to be maximised: 0 for those that none dominates, and so on.

    Rows are gone through from the best of the first objective down; each joins the first front that holds none which
    dominates it, found by bisection, for a row dominated in one front is dominated in all before it.
    """
    values = np.where(np.isnan(values), -np.inf, values)
    if values.shape[1] == 1:
        return np.zeros(len(values), np.int64)
    fronts: list[list[np.ndarray]] = []
    place = np.empty(len(values), np.int64)

    def dominated(front: list[np.ndarray], row: np.ndarray) -> bool:
        members = np.array(front)
        return bool(((members >= row).all(1) & (members > row).any(1)).any())

    for index in np.lexsort(-values.T[::-1]):
        row = values[index]
        place[index] = bisect.bisect_left(fronts, True, key=lambda front: not dominated(front, row))
        if place[index] == len(fronts):
            fronts.append([])
        fronts[place[index]].append(row)
    return place


def _completed(column: pa.ChunkedArray, found: Arranged) -> np.ndarray:
    """(T,) whether each trial trained all its epochs, from ``state`` of all rows."""
    ended = np.flatnonzero(found.ends >= 0)
    completed = np.zeros(len(found.trials), bool)
    completed[ended] = [state == "completed" for state in column.take(found.ends[ended]).to_pylist()]
    return completed


def _precisions(column: pa.ChunkedArray, found: Arranged) -> list[set[str]]:
    """(T,) the precisions that each trial's reports tell, from ``precision`` of all rows."""
    words, places = ranked_words(column)
    told: list[set[str]] = [set() for _ in found.trials]
    pairs = np.unique(found.owners.astype(np.int64) * max(len(words), 1) + places[found.reports])
    for owner, place in zip(*divmod(pairs, max(len(words), 1)), strict=True):
        told[owner] |= {words[place]} - {""}
    return told


def _by_bands(
    chosen: np.ndarray, score: np.ndarray, error: np.ndarray, cost: np.ndarray, whole: np.ndarray
) -> list[int]:
    """The chosen configurations by score; within the leader's standard error the cheaper first, if it is whole.

    Args:
        chosen: (N,) which of C configurations.
        score: (C,) of the first objective, to be maximised.
        error: (C,) its standard errors; not a number where none is told.
        cost: (C,) of a trial.
        whole: (C,) whether all their trials ended complete.
    """
    falling = chosen[np.lexsort((cost[chosen], ~whole[chosen], -score[chosen]))]
    floors = score[falling] - np.nan_to_num(error[falling])
    stops = np.searchsorted(-score[falling], -floors, side="right")  # where a band that each of them opens ends
    order: list[int] = []
    while len(order) < len(falling):
        band = falling[len(order) : stops[len(order)]]
        counted = np.where(whole[band], cost[band], np.maximum.accumulate(cost[band]))
        order += band[np.argsort(_alike(counted), kind="stable")].tolist()
    return order


def _alike(cost: np.ndarray) -> np.ndarray:
    """(N,) classes of costs: 0 for the cheapest and those within a tenth of it, 1 for the cheapest of the others ..."""
    rising = np.argsort(cost, kind="stable")
    costs, classes = cost[rising], np.empty(len(cost), np.int64)
    start = number = 0
    while start < len(rising):
        stop = int(np.searchsorted(costs, costs[start] * ALIKE, side="right"))
        classes[rising[start:stop]] = number
        start, number = stop, number + 1
    return classes


def _tell(read: Files, positions: Sequence[int]) -> dict[int, Any]:
    held = np.unique([position for position in positions if position >= 0])
    columns = [
        "trial",
        "kind",
        "configuration",
        "seed",
        "attempt",
        "epoch",
        "state",
        "reason",
        "checkpoint",
        "sha256",
        "params",
    ]
    return dict(zip(held.tolist(), from_table(read.details(held, columns)), strict=True))
