"""Which dimensions of a sweep mattered, by Optuna's functional analysis of variance (fANOVA).

Stopped trials are compared with complete ones at an epoch that enough of them reached, as their last values are of
different ages. A dimension whose condition did not hold in a trial stands there at its value in the base, which is
what the trial had.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from tune.search.search import Search
from tune.search.space import Space
from tune.spec.sweep_file import SweepSpec
from tune.store.records import Record
from tune.store.trial_summary import TrialSummary


@dataclass(frozen=True)
class Importance:
    """The share of the differences between trials that each dimension explains.

    Attributes:
        said: in a line; or why it cannot be told.
        shares: by leaf, the largest first, adding up to 1; empty where it cannot be told.
    """

    said: str
    shares: dict[str, float] = field(default_factory=dict)


def importance(spec: SweepSpec, trials: Sequence[TrialSummary], curves: Mapping[str, Sequence[Record]]) -> Importance:
    """Which dimensions mattered, for the first objective; the same for the same results.

    Args:
        spec: of the sweep.
        trials: of the store.
        curves: reports of each trial, by its id.
    """
    if not spec.search:
        return Importance("which dimensions mattered cannot be told: this sweep searched none")
    search = Search(spec)
    search.rebuild(trials, curves)
    known = {number: one for number, one in search.history.configurations.items() if one.curve}
    needed = max(8, 2 * len(spec.search))
    if len(known) < needed:
        return Importance(f"which dimensions mattered cannot be told from {_count(len(known))}; it takes {needed}")
    epoch = sorted((max(one.curve) for one in known.values()), reverse=True)[needed - 1]
    rows = []
    for _, one in sorted(known.items()):
        row = _filled(search.space, one.parameters)
        if row is not None and min(one.curve) <= epoch <= max(one.curve):
            rows.append((row, one.curve[max(e for e in one.curve if e <= epoch)]))
    if len({value for _, value in rows}) < 2:
        return Importance(f"which dimensions mattered cannot be told: all trials are alike at epoch {epoch + 1}")
    by_name = _shares(rows)
    shares: dict[str, float] = {}
    for name, share in by_name.items():  # the switches of the stages are one dimension
        leaf = name.partition("[")[0]
        shares[leaf] = shares.get(leaf, 0.0) + share
    shares = dict(sorted(shares.items(), key=lambda item: -item[1]))
    listed = ", ".join(f"{leaf} {share:.0%}" for leaf, share in shares.items())
    return Importance(f"which dimensions mattered, over {_count(len(rows))} at epoch {epoch + 1}: {listed}", shares)


def _count(number: int) -> str:
    return f"{number} trial{'' if number == 1 else 's'}"


_Row = tuple[dict[str, Any], dict[str, BaseDistribution]]


def _filled(space: Space, parameters: Mapping[str, Any]) -> _Row | None:
    """A configuration with every dimension; none for a base that has a value that is no choice of the sweep."""
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


def _absent(distribution: BaseDistribution) -> Any:  # noqa: ANN401
    """What stands for a dimension that a trial does not have: a stage that its detector lacks is not modulated."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low
