"""The importance of the dimensions of a sweep: which of them mattered, and which cannot be told from noise.

The importance is that of functional analysis of variance (fANOVA; Hutter et al., ICML 2014): a forest of regression
trees predicts the values of configurations, and a dimension explains the variance of the prediction averaged over all
other dimensions. Stopped and complete trials have final values of different epochs, so they are compared at the last
epoch that at least half of them reached. A dimension whose condition does not hold in a trial has its base value there,
as in the trial itself.

Values are noisy, and trees fit noise. The forest is therefore fitted again and again, each time to trials that are
drawn with replacement, with values moved by noise of their standard error: this gives the interval. What all
configurations share, such as how hard the held-out images are, moves no value beside the others, so that the error is
the one of comparisons on the same images. Configurations with different runs are compared without the effects of these.

Each fit also gets a copy of every dimension, permuted among the trials (Altmann et al., Bioinformatics 2010). A
dimension whose importance is no larger than what one in ten of its copies reaches cannot be told from noise. The
importance is averaged over the fits and scatters less than that of a copy in one fit: with 4 to 16 dimensions of which
none does anything, over 24 to 64 trials, 5% to 10% of them pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import variance
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tune.search.history import Configuration
from tune.search.search import Search
from tune.search.space import Space
from tune.spec.sweep_file import SweepSpec
from tune.store.ranking import fit_levels
from tune.store.records import Record, trial_ids
from tune.store.trial_summary import TrialSummary


@dataclass(frozen=True)
class Importance:
    """The share of the variance between trials that each dimension explains.

    Attributes:
        summary: the importance in one line, or why it cannot be computed.
        shares: the shares by leaf, the largest first, with sum 1; empty if they cannot be computed.
        intervals: the central 90% of the shares over all fits, by leaf.
        noise: leaves whose shares cannot be told from noise.
    """

    summary: str
    shares: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    noise: tuple[str, ...] = ()


def importance(
    spec: SweepSpec,
    trials: Sequence[TrialSummary],
    curves: Mapping[str, Sequence[Record]],
    error: float | None = None,
) -> Importance:
    """Compute the importance of each dimension for the first objective. It is deterministic.

    Args:
        spec: the sweep.
        trials: the trials of the store.
        curves: the reports of each trial, by trial id.
        error: the standard error of a value beside the others, on the same images (`ComparedRanking.error`). If None,
            it is not known, and the larger errors of the single evaluations take its place.
    """
    if not spec.search:
        return Importance("importance of the dimensions: unknown, because this sweep has no search")
    search = Search(spec)
    search.rebuild(trials, curves)
    configurations = {number: one.so_far() for number, one in search.history.configurations.items()}
    evaluated = {number: one for number, one in configurations.items() if one.curve}
    needed = max(8, 2 * len(spec.search))
    if len(evaluated) < needed:
        return Importance(
            f"importance of the dimensions: unknown until {needed} configurations are evaluated;"
            f" there are {len(evaluated)}"
        )
    epochs = sorted((max(one.curve) for one in evaluated.values()), reverse=True)
    epoch = epochs[max(needed, (len(evaluated) + 1) // 2) - 1]
    rows, compared = [], {}
    for number, one in sorted(evaluated.items()):
        row = _filled(search.space, one.parameters)
        if row is not None and min(one.curve) <= epoch <= max(one.curve):
            rows.append(row)
            compared[number] = one
    values = _levels(list(compared.values()), epoch)
    if error is None:
        metric = f"{next(iter(spec.objective))}_se"
        records = {
            number: [curves.get(trial, ()) for trial in trial_ids(number, spec.run_count)] for number in compared
        }
        errors = [_error(one, records[number], metric, epoch) for number, one in compared.items()]
    else:
        errors = [error] * len(rows)
    if len(set(values)) < 2:
        return Importance(f"importance of the dimensions: unknown, because all trials are equal at epoch {epoch + 1}")
    table, sizes, leaves = _table(rows)
    own, copied = _explained(table, sizes, leaves, np.array(values), np.nan_to_num(np.array(errors)))
    names = list(dict.fromkeys(leaves))
    shares = own / own.sum(1, keepdims=True)
    low, high = np.quantile(shares, (0.05, 0.95), axis=0)
    total = (own + copied).sum(1, keepdims=True)
    known = (own / total).mean(0) > np.quantile(copied / total, _LEVEL, axis=0)
    order = np.argsort(-shares.mean(0), kind="stable")
    found = Importance(
        "",
        {names[i]: float(shares[:, i].mean()) for i in order},
        {names[i]: (float(low[i]), float(high[i])) for i in order},
        tuple(names[i] for i in order if not known[i]),
    )
    return replace(found, summary=_in_words(found, len(rows), epoch))


def _in_words(found: Importance, trials: int, epoch: int) -> str:
    told = [
        f"{leaf} {share:.0%} ({found.intervals[leaf][0]:.0%} to {found.intervals[leaf][1]:.0%})"
        for leaf, share in found.shares.items()
        if leaf not in found.noise
    ]
    noise = f"cannot be told from noise: {', '.join(found.noise)}" if found.noise else ""
    text = "; ".join(part for part in (", ".join(told), noise) if part)
    return f"importance of the dimensions over {trials} trials at epoch {epoch + 1}: {text}"


_FITS, _TREES = 40, 4
_LEVEL = 0.9  # a dimension mattered if its share is above this quantile of those of its permuted copies
_Row = tuple[dict[str, Any], dict[str, BaseDistribution]]


def _filled(space: Space, parameters: Mapping[str, Any]) -> _Row | None:
    """A configuration with all dimensions; None for a base with a value that the sweep does not search."""
    full = {key: parameters.get(key, space.base[key]) for key in space.order}
    values, distributions, _ = space.encoded(full)
    given, _, _ = space.encoded(parameters)
    whole = {name.partition("[")[0] for name in given} == set(parameters)
    return (values, distributions) if whole else None


def _levels(configurations: Sequence[Configuration], epoch: int) -> list[float]:
    """The value of each configuration at an epoch, without the effects of its runs (`fit_levels`)."""
    known = [
        (place, index, run.curve[max(e for e in run.curve if e <= epoch)])
        for place, one in enumerate(configurations)
        for index, run in one.runs.items()
        if run.state != "failed" and run.curve and min(run.curve) <= epoch
    ]
    if not known:
        return []
    levels = fit_levels(*map(np.array, zip(*known, strict=True))).levels
    return [round(float(level), 12) for level in levels]  # ties stay ties


def _error(configuration: Configuration, runs: Sequence[Sequence[Record]], metric: str, epoch: int) -> float:
    """The standard error of a configuration's value at an epoch; 0 if none is recorded."""
    values = [run.curve[max(e for e in run.curve if e <= epoch)] for run in configuration.counted]
    between = variance(values) / len(values) if len(values) > 1 else 0.0
    best = [[record for record in run if record.best and record.epoch <= epoch] for run in runs]
    squares = [records[-1].metrics[metric] ** 2 for records in best if records and metric in records[-1].metrics]
    return math.sqrt(between + (math.fsum(squares) / len(squares) if squares else 0.0))


def _table(rows: Sequence[_Row]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The configurations as numbers from 0 to 1.

    Returns:
        (N,D) values; (D,) the number of choices of each column, 0 for a range; and the leaf of each column. A choice is
        the middle of its part of the unit interval. The switches of all stages belong to one leaf.
    """
    distributions: dict[str, BaseDistribution] = {}
    for _, own in rows:
        distributions |= own
    columns, sizes = [], []
    for name, distribution in distributions.items():
        given = [values.get(name, _absent(distribution)) for values, _ in rows]
        if isinstance(distribution, CategoricalDistribution):
            sizes.append(len(distribution.choices))
            columns.append([(distribution.to_internal_repr(value) + 0.5) / sizes[-1] for value in given])
            continue
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        sizes.append(0)
        scale = np.log if distribution.log else np.asarray
        low, high = float(scale(distribution.low)), float(scale(distribution.high))
        columns.append(((scale(np.array(given, float)) - low) / (high - low)).tolist())
    return np.array(columns).T, np.array(sizes), [name.partition("[")[0] for name in distributions]


def _absent(distribution: BaseDistribution) -> bool | int | float | str | None:
    """The value of a dimension that a trial does not have: stages that its detector lacks are not modulated."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low


def _explained(
    table: np.ndarray, sizes: np.ndarray, leaves: Sequence[str], values: np.ndarray, errors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The variance that each leaf explains in each fit.

    Args:
        table: (N,D) configurations.
        sizes: (D,) number of choices of each column, 0 for a range.
        leaves: leaf of each column.
        values: (N,) values.
        errors: (N,) their standard errors.

    Returns:
        (F,L) variances of the L leaves, and those of their permuted copies. Both are 0 where a fit predicts one value.
    """
    from sklearn.ensemble import RandomForestRegressor

    number = len(table)
    names = list(dict.fromkeys(leaves))
    leaf_of_column = np.array([names.index(leaf) for leaf in leaves])
    leaf_of_column = np.concatenate([leaf_of_column, leaf_of_column + len(names)])
    found = np.zeros((_FITS, 2 * len(names)))
    for fit in range(_FITS):
        rng = np.random.default_rng(fit)
        rows = rng.integers(number, size=number)
        both = np.concatenate([table, table[rng.permutation(number)]], 1)[rows]
        moved = values[rows] + errors[rows] * rng.standard_normal(number)
        forest = RandomForestRegressor(_TREES, bootstrap=False, max_features=0.5, random_state=fit, n_jobs=1)
        for tree in forest.fit(both, moved).estimators_:
            explained = main_effects(tree.tree_, np.concatenate([sizes, sizes]))
            np.add.at(found[fit], leaf_of_column, explained)
    found += np.finfo(float).tiny  # shares of fits that explain nothing are equal
    return found[:, : len(names)], found[:, len(names) :]


def main_effects(tree: Any, sizes: np.ndarray) -> np.ndarray:  # noqa: ANN401 - scikit-learn's Tree has no annotations
    """The variance of a tree's prediction that each column explains alone, over the unit cube.

    Args:
        tree: a regression tree of scikit-learn (``DecisionTreeRegressor.tree_``) over D columns from 0 to 1.
        sizes: (D,) number of choices of each column, which are then the middles of equal parts; 0 for a range.

    Returns:
        (D,) variances.
    """
    low, high = np.zeros((tree.node_count, len(sizes))), np.ones((tree.node_count, len(sizes)))
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    parts = sizes[feature]  # a choice lies whole on one side of a threshold
    whole = np.floor(tree.threshold * parts + 0.5 + 1e-6) / np.maximum(parts, 1)
    threshold = np.where(parts > 0, whole, tree.threshold)
    level = np.zeros(1, np.int64)
    while len(level := level[left[level] >= 0]):
        for child in (left[level], right[level]):
            low[child], high[child] = low[level], high[level]
        high[left[level], feature[level]] = low[right[level], feature[level]] = threshold[level]
        level = np.concatenate([left[level], right[level]])
    leaf = left < 0
    low, high, value = low[leaf], high[leaf], tree.value[leaf, 0, 0]
    widths = high - low
    volume = widths.prod(1)
    mean = float((volume * value).sum())
    found = np.zeros(len(sizes))
    for column in np.flatnonzero((widths < 1).any(0)):
        cuts = np.unique(np.concatenate([low[:, column], high[:, column]]))
        change = np.zeros(len(cuts))  # of the prediction averaged over the other columns, at each cut
        part = volume / widths[:, column] * value
        np.add.at(change, np.searchsorted(cuts, low[:, column]), part)
        np.subtract.at(change, np.searchsorted(cuts, high[:, column]), part)
        found[column] = (np.diff(cuts) * (np.cumsum(change)[:-1] - mean) ** 2).sum()
    return found
