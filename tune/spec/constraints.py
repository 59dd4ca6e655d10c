"""Constraints on metrics of a configuration: ``constraints: {holdout/point_fa: "<= 20", cost/latency_ms: "<= 5"}``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

_FORM = re.compile(r"\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Limit:
    """A bound of a metric, at the evaluation that counts.

    Attributes:
        metric: name of the metric.
        relation: ``<=`` or ``>=``.
        bound: the bound.
    """

    metric: str
    relation: str
    bound: float

    def excess(self, value: float | None) -> float:
        """How far a value is beyond the bound, as a share of the bound, so that constraints can be added up.

        Returns:
            A number above 0 if the constraint is not met; 1 for a value that is missing.
        """
        return float(self.excesses(np.array([math.nan if value is None else value]))[0])

    def excesses(self, values: np.ndarray) -> np.ndarray:
        """The excess of each value, (N,); NaN stands for a value that is missing."""
        beyond = (values - self.bound) * (1 if self.relation == "<=" else -1)
        return np.where(np.isfinite(values), beyond / (abs(self.bound) or 1.0), 1.0)

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.bound:g}"


def parse_limit(metric: str, text: str) -> Limit:
    """Parse the bound of a metric.

    Raises:
        ValueError: the text is not like ``<= 20``.
    """
    found = _FORM.fullmatch(text)
    try:
        bound = float(found[2]) if found else math.nan
    except ValueError:
        bound = math.nan
    if found is None or not math.isfinite(bound):
        raise ValueError("expected a bound like '<= 20' or '>= 0.5'")
    return Limit(metric, found[1], bound)


def unmet(limits: Iterable[Limit], metrics: Mapping[str, float]) -> list[Limit]:
    """The constraints that metrics do not meet; one whose metric is missing is not met."""
    return [limit for limit in limits if limit.excess(metrics.get(limit.metric)) > 0]
