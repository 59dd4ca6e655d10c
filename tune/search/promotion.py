"""The best configurations of a sweep once more, in full and with several seeds; and the winner on all images.

Both are sweeps of their own, that list their configurations instead of searching for them, so that they run, survive
and are looked at like any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from semprior.errors import UserError
from tune.spec.sweep_file import SweepSpec
from tune.store.ranking import Ranked
from tune.store.trial_summary import TrialSummary

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Standing:
    """A configuration of a promotion in its place.

    Attributes:
        configuration: its number in the promotion.
        params: the leaves it has of its own.
        values: of the first objective, one a seed.
        missing: runs without a value: they failed, or diverged before their first evaluation.
        mean: of the values.
        interval: half the width of the confidence interval of the mean over seeds; none with one seed.
        seconds: a run took, on average.
    """

    configuration: int
    params: Mapping[str, Any]
    values: tuple[float, ...]
    missing: int
    mean: float
    interval: float | None
    seconds: float


def promotion(spec: SweepSpec, chosen: Sequence[Ranked], seeds: int, settings: Mapping[str, Any]) -> SweepSpec:
    """The sweep that trains configurations of another in full.

    Its seeds are those after the other's: a configuration is here because it did well with those, on the same held-out
    images, so that with them its mean would be too high.

    Args:
        spec: of the other sweep.
        chosen: its configurations.
        seeds: runs of each.
        settings: leaves that all of them have otherwise than there, like more epochs.

    Raises:
        UserError: a setting that the search has chosen, or that does not fit.
    """
    for key in settings:
        if any(key in entry.params for entry in chosen):
            raise UserError(f"--set {key}: is what the search has chosen; leave it out")
    start = spec.base_config().seed + spec.seeds
    return _listed(spec, [dict(entry.params) for entry in chosen], seeds, {"seed": start, **settings})


def final(spec: SweepSpec, winner: Standing) -> SweepSpec:
    """The sweep of one run that trains the winner of a promotion on all images; its last epoch counts."""
    return _listed(spec, [dict(winner.params)], 1, {"data.holdout": 0.0})


def _listed(
    spec: SweepSpec, configurations: list[dict[str, Any]], seeds: int, settings: Mapping[str, Any]
) -> SweepSpec:
    content = json.loads(spec.to_json())
    content |= {
        "base": {**content["base"], **settings},
        "search": {},
        "configurations": configurations,
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
        "budget": {"trials": len(configurations)},
        "seeds": seeds,
    }
    return SweepSpec.from_json(json.dumps(content), "promote")


def standings(trials: Sequence[TrialSummary], maximize: bool) -> list[Standing]:
    """Configurations by the mean over their seeds, best first.

    Those that lack runs come after those that have all, since the runs that are left may be the lucky ones; those
    without any value are left out.
    """
    groups: dict[int, list[TrialSummary]] = {}
    for trial in trials:
        groups.setdefault(trial.configuration, []).append(trial)
    found = []
    for number, runs in groups.items():
        values = tuple(run.values[0] for run in runs if run.values)
        if values:
            seconds, missing = mean(run.wall_s for run in runs), len(runs) - len(values)
            found.append(Standing(number, runs[0].params, values, missing, mean(values), interval(values), seconds))
    return sorted(found, key=lambda one: (one.missing, -one.mean if maximize else one.mean))


def interval(values: Sequence[float]) -> float | None:
    """Half the width of Student's confidence interval of a mean; none for one value."""
    from scipy.stats import t

    if len(values) < 2:
        return None
    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
