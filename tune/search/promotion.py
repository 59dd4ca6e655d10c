"""Promotion: trains the best configurations of a sweep in full with several seeds, and the winner on all images.

Both are sweeps that list their configurations instead of searching, and otherwise work like any other sweep.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

from semprior.errors import UserError
from semprior.evaluation.image_sums import ImageSums
from tune.comparison.paired import Comparison, Difference
from tune.spec.constraints import Limit
from tune.spec.sweep_file import Runs, SweepSpec
from tune.store.ranking import Ranked
from tune.store.records import run_index
from tune.store.trial_summary import TrialSummary

CONFIDENCE = 0.95
SEEDS = 3  # runs of each configuration, if no other number is asked for


@dataclass(frozen=True)
class PromotionResult:
    """The result of one configuration of a promotion.

    Attributes:
        configuration: number of the configuration in the promotion.
        params: the leaves of this configuration.
        values: values of the first objective, one per seed.
        missing: number of runs without a value, which failed or diverged before their first evaluation.
        mean: mean of the values; with folds, the value of the images of all folds together.
        confidence_half_width: half of the width of the confidence interval of the mean; None for a single seed.
        seconds: mean seconds per run.
        from_first: difference from the first of the promotion, on the same images and runs; None if it is not known.
        probability: of being the best of the promotion; None if it is not known.
    """

    configuration: int
    params: Mapping[str, Any]
    values: tuple[float, ...]
    missing: int
    mean: float
    confidence_half_width: float | None
    seconds: float
    from_first: Difference | None = None
    probability: float | None = None


def promotion(spec: SweepSpec, chosen: Sequence[Ranked], seeds: int | None, settings: Mapping[str, Any]) -> SweepSpec:
    """Make the sweep that trains configurations of another sweep in full.

    It uses other seeds than the first sweep: the configurations were selected by their results with those seeds on the
    same held-out images, so that their mean would be biased. Of a sweep with folds, it has the same folds.

    Args:
        spec: the first sweep.
        chosen: the configurations to promote.
        seeds: number of runs of each configuration; None: `SEEDS`, or the folds.
        settings: leaves that differ from the first sweep, such as more epochs.

    Raises:
        UserError: a setting is one that the search chose, or is not valid; or seeds are asked for besides folds.
    """
    if spec.runs.folds and seeds is not None:
        raise UserError(f"--seeds: the runs of this sweep are its {spec.runs.folds} folds; leave it out")
    for key in settings:
        if any(key in entry.params for entry in chosen):
            raise UserError(f"--set {key}: is chosen by the search; leave it out")
    start = spec.base_config().seed + spec.run_count
    seeds = 1 if spec.runs.folds else seeds or SEEDS
    return _listed(spec, [dict(entry.params) for entry in chosen], seeds, {"seed": start, **settings})


def final(spec: SweepSpec, winner: PromotionResult) -> SweepSpec:
    """Make the sweep of one run that trains the winner of a promotion on all images. The last epoch counts."""
    whole = spec.model_copy(update={"runs": Runs()})
    return _listed(whole, [dict(winner.params)], 1, {"data.holdout": 0.0, "data.folds": 0, "data.fold": 0})


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
    trials: Sequence[TrialSummary],
    maximize: bool,
    metric: str,
    images: Mapping[str, ImageSums],
    limits: Sequence[Limit] = (),
) -> list[PromotionResult]:
    """Rank the configurations of a promotion by the mean over their runs, best first.

    Configurations that do not meet the constraints on average come last, and before them those with missing runs,
    because the remaining runs may be the lucky ones. Configurations without any value are left out.

    Args:
        trials: the trials of the promotion.
        maximize: whether higher values are better.
        metric: the first objective.
        images: the terms of the best evaluation of each trial, image by image, as far as they are known.
        limits: the constraints of the sweep.
    """
    groups: dict[int, list[TrialSummary]] = {}
    for trial in trials:
        groups.setdefault(trial.configuration, []).append(trial)
    groups = {number: runs for number, runs in groups.items() if any(run.values for run in runs)}
    terms = [
        {run_index(run.trial): images[run.trial] for run in runs if run.trial in images} for runs in groups.values()
    ]
    comparison = Comparison(terms, metric.removeprefix("holdout/"))
    found, met = [], {}
    for index, (number, runs) in enumerate(groups.items()):
        valued = [run.metrics for run in runs if run.values]
        met[number] = all(limit.excess(_mean(valued, limit.metric)) <= 0 for limit in limits)
        values = tuple(run.values[0] for run in runs if run.values)
        seconds, missing = mean(run.wall_s for run in runs), len(runs) - len(values)
        pooled = comparison.value(index) if comparison.pooled(index) else None
        average = mean(values) if pooled is None else pooled
        found.append(
            PromotionResult(number, runs[0].params, values, missing, average, confidence_half_width(values), seconds)
        )
    order = sorted(
        range(len(found)),
        key=lambda index: (
            not met[found[index].configuration],
            found[index].missing,
            (-1 if maximize else 1) * found[index].mean,
        ),
    )
    best = [index for index in order if met[found[index].configuration]] or order
    best = [index for index in best if not found[index].missing] or best
    probabilities = comparison.probabilities(maximize, best)
    return [
        replace(found[i], from_first=comparison.difference(i, order[0]), probability=probabilities[i]) for i in order
    ]


def _mean(metrics: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [one[name] for one in metrics if name in one]
    return mean(values) if values else None


def confidence_half_width(values: Sequence[float]) -> float | None:
    """Half of the width of Student's confidence interval of a mean; None for a single value."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
