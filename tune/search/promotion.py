"""Promotion: trains the best configurations of a sweep in full with several seeds, and the winner on all images.

Both are sweeps that list their configurations instead of searching, and otherwise work like any other sweep.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from semprior.errors import UserError
from tune.spec.constraints import Limit
from tune.spec.sweep_file import SweepSpec
from tune.store.ranking import Ranked
from tune.store.trial_summary import TrialSummary

CONFIDENCE = 0.95


@dataclass(frozen=True)
class PromotionResult:
    """The result of one configuration of a promotion.

    Attributes:
        configuration: number of the configuration in the promotion.
        params: the leaves of this configuration.
        values: values of the first objective, one per seed.
        missing: number of runs without a value, which failed or diverged before their first evaluation.
        mean: mean of the values.
        confidence_half_width: half of the width of the confidence interval of the mean; None for a single seed.
        seconds: mean seconds per run.
    """

    configuration: int
    params: Mapping[str, Any]
    values: tuple[float, ...]
    missing: int
    mean: float
    confidence_half_width: float | None
    seconds: float


def promotion(spec: SweepSpec, chosen: Sequence[Ranked], seeds: int, settings: Mapping[str, Any]) -> SweepSpec:
    """Make the sweep that trains configurations of another sweep in full.

    It uses other seeds than the first sweep: the configurations were selected by their results with those seeds on the
    same held-out images, so that their mean would be biased.

    Args:
        spec: the first sweep.
        chosen: the configurations to promote.
        seeds: number of runs of each configuration.
        settings: leaves that differ from the first sweep, such as more epochs.

    Raises:
        UserError: a setting is one that the search chose, or is not valid.
    """
    for key in settings:
        if any(key in entry.params for entry in chosen):
            raise UserError(f"--set {key}: is chosen by the search; leave it out")
    start = spec.base_config().seed + spec.seeds
    return _listed(spec, [dict(entry.params) for entry in chosen], seeds, {"seed": start, **settings})


def final(spec: SweepSpec, winner: PromotionResult) -> SweepSpec:
    """Make the sweep of one run that trains the winner of a promotion on all images. The last epoch counts."""
    return _listed(spec, [dict(winner.params)], 1, {"data.holdout": 0.0})


def _listed(
    spec: SweepSpec, configurations: list[dict[str, Any]], seeds: int, settings: Mapping[str, Any]
) -> SweepSpec:
    content = spec.model_dump(mode="json", by_alias=True)
    content |= {
        "base": {**content["base"], **settings},
        "search": {},
        "start": [],
        "configurations": configurations,
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
        "budget": {"trials": len(configurations)},
        "seeds": seeds,
    }
    return SweepSpec.from_json(json.dumps(content), "promote")


def rank_promotion(
    trials: Sequence[TrialSummary], maximize: bool, limits: Sequence[Limit] = ()
) -> list[PromotionResult]:
    """Rank the configurations of a promotion by the mean over their seeds, best first.

    Configurations that do not meet the constraints on average come last, and before them those with missing runs,
    because the remaining runs may be the lucky ones. Configurations without any value are left out.
    """
    groups: dict[int, list[TrialSummary]] = {}
    for trial in trials:
        groups.setdefault(trial.configuration, []).append(trial)
    found, met = [], {}
    for number, runs in groups.items():
        valued = [run.metrics for run in runs if run.values]
        met[number] = all(limit.excess(_mean(valued, limit.metric)) <= 0 for limit in limits)
        values = tuple(run.values[0] for run in runs if run.values)
        if values:
            seconds, missing = mean(run.wall_s for run in runs), len(runs) - len(values)
            found.append(
                PromotionResult(
                    number, runs[0].params, values, missing, mean(values), confidence_half_width(values), seconds
                )
            )
    return sorted(found, key=lambda one: (not met[one.configuration], one.missing, -one.mean if maximize else one.mean))


def _mean(metrics: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [one[name] for one in metrics if name in one]
    return mean(values) if values else None


def confidence_half_width(values: Sequence[float]) -> float | None:
    """Half of the width of Student's confidence interval of a mean; None for a single value."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
