"""The importance of the dimensions of a sweep, by Optuna's functional analysis of variance (fANOVA).

Stopped and complete trials have final values of different epochs, so they are compared at an epoch that enough of them
reached. A dimension whose condition does not hold in a trial has its base value there, as in the trial itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from tune.search.search import Search
from tune.search.space import Space
from tune.spec.sweep_file import SweepSpec
from tune.store.records import Record
from tune.store.trial_summary import TrialSummary


@dataclass(frozen=True)
class Importance:
    """The share of the variance between trials that each dimension explains.

    Attributes:
        summary: the importance in one line, or why it cannot be computed.
        shares: the shares by leaf, the largest first, with sum 1; empty if they cannot be computed.
    """

    summary: str
    shares: dict[str, float] = field(default_factory=dict)


def importance(spec: SweepSpec, trials: Sequence[TrialSummary], curves: Mapping[str, Sequence[Record]]) -> Importance:
    """Compute the importance of each dimension for the first objective. It is deterministic.

    Args:
        spec: the sweep.
        trials: the trials of the store.
        curves: the reports of each trial, by trial id.
    """
    if not spec.search:
        return Importance("importance of the dimensions: unknown, because this sweep has no search")
    search = Search(spec)
    search.rebuild(trials, curves)
    evaluated = {number: one for number, one in search.history.configurations.items() if one.curve}
    needed = max(8, 2 * len(spec.search))
    if len(evaluated) < needed:
        return Importance(
            f"importance of the dimensions: unknown until {needed} trials are evaluated; there are {len(evaluated)}"
        )
    epoch = sorted((max(one.curve) for one in evaluated.values()), reverse=True)[needed - 1]
    rows = []
    for _, one in sorted(evaluated.items()):
        row = _filled(search.space, one.parameters)
        if row is not None and min(one.curve) <= epoch <= max(one.curve):
            rows.append((row, one.curve[max(e for e in one.curve if e <= epoch)]))
    if len({value for _, value in rows}) < 2:
        return Importance(f"importance of the dimensions: unknown, because all trials are equal at epoch {epoch + 1}")
    by_name = _shares(rows)
    shares: dict[str, float] = {}
    for name, share in by_name.items():  # the switches of all stages belong to one dimension
        leaf = name.partition("[")[0]
        shares[leaf] = shares.get(leaf, 0.0) + share
    shares = dict(sorted(shares.items(), key=lambda item: -item[1]))
    listed = ", ".join(f"{leaf} {share:.0%}" for leaf, share in shares.items())
    return Importance(f"importance of the dimensions over {len(rows)} trials at epoch {epoch + 1}: {listed}", shares)


_Row = tuple[dict[str, Any], dict[str, BaseDistribution]]


def _filled(space: Space, parameters: Mapping[str, Any]) -> _Row | None:
    """A configuration with all dimensions; None for a base with a value that the sweep does not search."""
    full = {key: parameters.get(key, space.base[key]) for key in space.order}
    values, distributions, _ = space.encoded(full)
    given, _, _ = space.encoded(parameters)
    whole = {name.partition("[")[0] for name in given} == set(parameters)
    return (values, distributions) if whole else None


def _shares(rows: Sequence[tuple[_Row, float]]) -> dict[str, float]:
    distributions: dict[str, BaseDistribution] = {}
    for (_, own), _ in rows:
        distributions |= own
    study = optuna.create_study(direction="maximize")
    for (values, _), value in rows:
        filled = {name: values.get(name, _absent(distribution)) for name, distribution in distributions.items()}
        study.add_trial(
            create_trial(state=TrialState.COMPLETE, value=value, params=filled, distributions=distributions)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=list(distributions))
    return {name: float(share) for name, share in found.items()}


def _absent(distribution: BaseDistribution) -> bool | int | float | str | None:
    """The value of a dimension that a trial does not have: stages that its detector lacks are not modulated."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low
