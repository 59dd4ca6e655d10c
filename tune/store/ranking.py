"""Ranks the configurations of a sweep, the best first.

**The value of a trial** is a metric at one evaluation, or over several; all objectives use the same evaluation:

- ``best``: at the best evaluation by the first objective; of equal ones the latest, as in the trainer. The search
  optimises this value, and `pull` fetches the checkpoint of this evaluation.
- ``last``: at the last evaluation.
- ``robust``: the mean of the last k evaluations minus their standard deviation (n - 1); plus it, if the objective is
  minimised. A trial with fewer than two evaluations has no value.

**The value of a configuration** is the mean over its trials that have a value. With several seeds, its standard error
is ``sqrt(s^2 / n + e^2)``: ``s`` is the standard deviation over n seeds, ``e`` the root mean square of the standard
errors of their evaluations (metric ``NAME_se``), which more seeds on the same images do not reduce. With one seed,
it is ``e``.

**The order** is by value. Of equal values, a configuration whose trials all completed comes first, then the cheaper one
by device seconds per trial. For several objectives: first the Pareto front, then the front of the rest, and so on; in
each front by the first objective. `tune.comparison.ranked` then compares the first of them on the same images.

In a race, configurations have different numbers of runs, and some folds are harder than others. The order is then by
level (`fit_levels`), which leaves out the effects of the runs. Of a configuration with as many completed runs as the
best one needs, those that last or were stopped do not count.

Configurations that do not meet the constraints of the sweep come after all that do, in the same order among themselves.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tune.spec.constraints import Limit
from tune.store.records import METRIC_PREFIX, Record, State, from_table, run_index
from tune.store.snapshot import RecordFiles, StoreSnapshot
from tune.store.trial_summary import best_positions, read_visible_records
from tune.store.visible_records import VisibleRecords, last_positions, sorted_words

Direction = Literal["max", "min"]
RankedBy = Literal["best", "last", "robust"]


@dataclass(frozen=True)
class Ranked:
    """A ranked configuration.

    Attributes:
        place: rank, from 1.
        front: number of the Pareto front, from 1; 1 for all if there is one objective.
        configuration: number of the configuration.
        trial: the best trial of the configuration, which represents it.
        trials: all trials of the configuration that have a value and count.
        values: the objectives, each averaged over the trials.
        errors: the standard errors of the values; None if the evaluations have no standard error.
        epoch: epoch of the evaluation of `trial` that counts.
        epochs: number of epochs that `trial` has trained.
        state: state of `trial`.
        reason: reason of the state.
        params: the leaves that the search chose.
        checkpoint: address of the checkpoint of the best epoch of `trial`, relative to the sweep; it is kept
            permanently.
        sha256: SHA-256 of the manifest of that checkpoint.
        wall_s: mean seconds per trial.
        device_s: mean device seconds per trial.
        precision: precision in which the networks of all `trials` ran: ``bf16``, ``fp32``, or ``bf16, fp32`` if both
            occurred; empty if unknown.
        completed: whether all trials of the configuration completed.
        images: for each of `trials`, the address of the terms of the evaluation that counts (`Record.images_address`);
            None if it has none, and for ``robust`` values, to which several evaluations contribute.
        unmet: metrics by which it does not meet the constraints, averaged over the trials; NaN if a trial lacks it.
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
    completed: bool = False
    images: tuple[str | None, ...] = ()
    unmet: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialValues:
    """The values by which T trials are ranked, for M objectives.

    Attributes:
        index: (T,) index of the report of the evaluation that counts; -1 for a trial without a value.
        values: (T,M) values.
        errors: (T,M) standard errors; NaN if unknown.
    """

    index: np.ndarray
    values: np.ndarray
    errors: np.ndarray


def rank(
    snapshot: StoreSnapshot,
    objectives: Mapping[str, Direction],
    by: RankedBy,
    last: int = 5,
    limit: int | None = None,
    include: Collection[int] = (),
    minimum: int = 1,
    limits: Sequence[Limit] = (),
) -> list[Ranked]:
    """Rank the configurations of a snapshot; see `ResultsStore.rank` for the arguments."""
    names = [name for objective in objectives for name in _columns(objective)]
    names += [name for limit in limits if (name := f"{METRIC_PREFIX}{limit.metric}") not in names]
    # With millions of records, a column needs 24 MB, and reading it from a bucket takes a second: read few, few times.
    details, cost = ["wall_s", "configuration", "best", "state", "precision"], ["device_s"]
    files, visible = read_visible_records(snapshot, [*names, *details, *cost])
    if not len(visible.reports):
        return []
    signs = np.array([1.0 if direction == "max" else -1.0 for direction in objectives.values()])
    metrics = files.columns(names)
    trial_values = values_of(metrics, visible, list(objectives), signs, by, last)
    constrained = np.empty((len(visible.trials), len(limits)))
    for i, bound in enumerate(limits):
        column = metrics[f"{METRIC_PREFIX}{bound.metric}"].to_numpy()
        constrained[:, i] = column[visible.reports[trial_values.index]]
    del metrics  # tables of columns are large: there is only one at a time
    ranked = np.flatnonzero(trial_values.index >= 0)
    if not len(ranked):
        return []
    table = files.columns(details)
    wall_s = visible.total(table["wall_s"])
    table = table.drop_columns("wall_s")
    configurations = table["configuration"].to_numpy()[visible.any_record]
    best = best_positions(table["best"], visible)
    states = _states(table["state"], visible)
    completed = states == "completed"
    precisions = _precisions(table["precision"], visible)
    del table
    device_s = visible.total(files.columns(cost)["device_s"])
    numbers, group = np.unique(configurations[ranked], return_inverse=True)
    if minimum > 1:
        enough = np.bincount(group, completed[ranked]) >= minimum
        ranked = ranked[~(np.isin(states[ranked], ("running", "stopped")) & enough[group])]
        numbers, group = np.unique(configurations[ranked], return_inverse=True)
    all_completed = ~np.isin(numbers, configurations[~completed])
    values, errors = average_over_seeds(trial_values.values[ranked], trial_values.errors[ranked], group, len(numbers))
    count = np.bincount(group)
    spent = np.bincount(group, device_s[ranked]) / count
    wall = np.bincount(group, wall_s[ranked]) / count
    averages = average_over_seeds(constrained[ranked], constrained[ranked], group, len(numbers))[0]
    beyond = np.zeros(averages.shape, bool)
    for i, bound in enumerate(limits):
        beyond[:, i] = bound.excesses(averages[:, i]) > 0
    met = ~beyond.any(1)
    fronts = np.empty(len(numbers), np.int64)
    fronts[met] = pareto_fronts(values[met] * signs)
    if minimum > 1:  # of one objective, whose configurations are all in one front
        fronts[met] = (np.bincount(group, completed[ranked], len(numbers)) < minimum)[met]
    levels = values[:, 0]  # what the order goes by
    if minimum > 1:
        runs = np.array([run_index(visible.trials[index]) for index in ranked])
        levels = np.round(fit_levels(group, runs, trial_values.values[ranked, 0]).levels, 12)  # ties stay ties
    fronts[~met] = pareto_fronts(values[~met] * signs) + (fronts[met].max(initial=-1) + 1)
    order = np.lexsort((spent, ~all_completed, -levels * signs[0], fronts)).tolist()

    representative = np.empty(len(numbers), np.int64)
    rising = np.argsort(trial_values.values[ranked, 0] * signs[0], kind="stable")
    representative[group[rising]] = ranked[rising]  # the best trial of each configuration is assigned last
    final = last_positions(visible.report_trials, visible.reports, len(visible.trials))
    shown = {i: place for place, i in enumerate(order, 1) if limit is None or place <= limit or numbers[i] in include}
    trials = representative[list(shown)]
    members: dict[int, list[int]] = {}
    for index, configuration in zip(ranked.tolist(), group.tolist(), strict=True):
        members.setdefault(configuration, []).append(index)
    counting = visible.reports[trial_values.index]  # the report whose evaluation counts, of each trial
    runs = counting[[index for i in shown for index in members[i]]]
    records = _read_records(files, np.concatenate([best[trials], visible.ends[trials], final[trials], runs]))
    entries = []
    for i, place in shown.items():
        trial = int(representative[i])
        peak, end = records.get(int(best[trial])), records.get(int(visible.ends[trial]))
        latest = records[int(final[trial])]
        entries.append(
            Ranked(
                place=place,
                front=int(fronts[i]) + 1,
                configuration=int(numbers[i]),
                trial=visible.trials[trial],
                trials=tuple(visible.trials[index] for index in members[i]),
                values=tuple(values[i].tolist()),
                errors=tuple(None if np.isnan(error) else error for error in errors[i].tolist()),
                epoch=int(visible.epochs[trial_values.index[trial]]),
                epochs=latest.epoch + 1,
                state=end.state if end else "running",
                reason=end.reason if end else "",
                params=latest.params,
                checkpoint=peak.checkpoint if peak else None,
                sha256=peak.sha256 if peak else None,
                wall_s=float(wall[i]),
                device_s=float(spent[i]),
                precision=", ".join(sorted(set().union(*(precisions[index] for index in members[i])))),
                completed=bool(all_completed[i]),
                images=tuple(
                    None if by == "robust" else records[int(counting[index])].images_address for index in members[i]
                ),
                unmet={limits[k].metric: float(averages[i, k]) for k in np.flatnonzero(beyond[i]).tolist()},
            )
        )
    return entries


def values_of(
    metrics: pa.Table, visible: VisibleRecords, objectives: Sequence[str], signs: np.ndarray, by: RankedBy, last: int
) -> TrialValues:
    """The values by which trials are ranked. `metrics` has two columns per objective, for the rows of `visible`."""
    number = len(visible.trials)
    columns, spreads = (
        [metrics[_columns(name)[column]].to_numpy()[visible.reports] for name in objectives] for column in (0, 1)
    )
    rows = np.flatnonzero(np.isfinite(columns[0])).astype(np.int32)
    trial_of_row, first = visible.report_trials[rows], columns[0][rows] * signs[0]
    if by == "best":
        peak = np.full(number, -np.inf)
        np.maximum.at(peak, trial_of_row, first)
        at_peak = first == peak[trial_of_row]
        index = last_positions(trial_of_row[at_peak], rows[at_peak], number)
    else:
        index = last_positions(trial_of_row, rows, number)
    if by != "robust":
        evaluated = index >= 0
        values, errors = (
            np.where(evaluated[:, None], np.stack([column[index] for column in group], 1), np.nan)
            for group in (columns, spreads)
        )
        return TrialValues(index, values, errors)
    ends = np.searchsorted(trial_of_row, np.arange(number), side="right")
    recent = np.arange(len(rows)) >= ends[trial_of_row] - last
    trial_of_row, rows = trial_of_row[recent], rows[recent]
    count = np.bincount(trial_of_row, minlength=number)
    values, errors = np.empty((number, len(objectives))), np.empty((number, len(objectives)))
    with np.errstate(invalid="ignore", divide="ignore"):
        for i, (column, spread) in enumerate(zip(columns, spreads, strict=True)):
            mean = np.bincount(trial_of_row, column[rows], number) / count
            square = np.bincount(trial_of_row, (column[rows] - mean[trial_of_row]) ** 2, number) / (count - 1)
            values[:, i] = mean - signs[i] * np.sqrt(square)
            errors[:, i] = np.sqrt(np.bincount(trial_of_row, spread[rows] ** 2, number) / count)
    return TrialValues(np.where(count > 1, index, -1), values, errors)


def _columns(objective: str) -> tuple[str, str]:
    """The columns of the values of an objective and of their standard errors."""
    return f"{METRIC_PREFIX}{objective}", f"{METRIC_PREFIX}{objective}_se"


def average_over_seeds(
    values: np.ndarray, errors: np.ndarray, group: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Average values (T,M) and errors (T,M) of trials over the seeds of each configuration, (C,M) each."""
    count = np.bincount(group, minlength=number)
    means, spreads = np.empty((number, values.shape[1])), np.empty((number, values.shape[1]))
    for i in range(values.shape[1]):
        mean = np.bincount(group, values[:, i], number) / count
        square = np.bincount(group, (values[:, i] - mean[group]) ** 2, number) / np.maximum(count - 1, 1)
        own = np.bincount(group, errors[:, i] ** 2, number) / count
        known = np.where(np.isnan(own) & (count > 1), 0.0, own)  # several seeds give a standard error by themselves
        means[:, i], spreads[:, i] = mean, np.sqrt(square / count + known)
    return means, spreads


@dataclass(frozen=True)
class Levels:
    """Configurations without the effects of their runs.

    Attributes:
        levels: (C,) levels.
        variance: variance of a run about level and effect; None if the fit leaves nothing to estimate it from.
    """

    levels: np.ndarray
    variance: float | None


def fit_levels(configurations: np.ndarray, runs: np.ndarray, values: np.ndarray) -> Levels:
    """Compare configurations that do not have the same runs, some of which are harder than others.

    The value of a run is taken as the sum of the level of its configuration and of an effect of its index, which are
    fitted by least squares. Effects add up to 0: a level is what a configuration reaches on average over all runs.

    Args:
        configurations: (T,) position of the configuration of each run, from 0 to C - 1.
        runs: (T,) index of each run in its configuration.
        values: (T,) values.
    """
    indices, column = np.unique(runs, return_inverse=True)
    known = np.zeros((int(configurations.max()) + 1, len(indices)), bool)
    table = np.zeros(known.shape)
    known[configurations, column], table[configurations, column] = True, values
    count = known.sum(1)
    means = table.sum(1) / count
    # Once the levels are eliminated, these are the normal equations of the effects; pinv takes the solution of sum 0.
    normal = np.diag(known.sum(0).astype(float)) - (known / count[:, None]).T @ known
    effects = np.linalg.pinv(normal, hermitian=True) @ np.where(known, table - means[:, None], 0.0).sum(0)
    levels = means - (known @ effects) / count
    freedom = len(values) - len(count) - int(np.linalg.matrix_rank(normal, hermitian=True))
    squares = float(((values - effects[column] - levels[configurations]) ** 2).sum())
    return Levels(levels, squares / freedom if freedom > 0 else None)


def pareto_fronts(values: np.ndarray) -> np.ndarray:
    """(C,) index of the Pareto front of each row of values (C,M), all maximised; 0 for rows that no row dominates.

    Rows are processed in descending order of the first objective. Each joins the first front without a row that
    dominates it. Bisection finds that front, because a row that is dominated in one front is dominated in all previous
    ones.
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


def _states(column: pa.ChunkedArray, visible: VisibleRecords) -> np.ndarray:
    """(T,) how each trial ended, or ``running``, from the column ``state`` of all rows."""
    ended = np.flatnonzero(visible.ends >= 0)
    states = np.full(len(visible.trials), "running", dtype="U16")
    states[ended] = column.take(visible.ends[ended]).to_pylist()
    return states


def _precisions(column: pa.ChunkedArray, visible: VisibleRecords) -> list[set[str]]:
    """(T,) the precisions in which each trial was trained, from the column ``precision`` of all rows."""
    words, places = sorted_words(column)
    used: list[set[str]] = [set() for _ in visible.trials]
    pairs = np.unique(visible.report_trials.astype(np.int64) * max(len(words), 1) + places[visible.reports])
    for trial, place in zip(*divmod(pairs, max(len(words), 1)), strict=True):
        used[trial] |= {words[place]} - {""}
    return used


def _read_records(files: RecordFiles, positions: np.ndarray) -> dict[int, Record]:
    """The records at some positions, by position; negative positions are ignored."""
    rows = np.unique(positions[positions >= 0])
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
        "images",
        "params",
    ]
    return dict(zip(rows.tolist(), from_table(files.rows_at(rows, columns)), strict=True))
