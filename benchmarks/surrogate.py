"""Trials that take no time: a surrogate of the dimensions of tune/sweeps/sirst-v1.yaml.

Fitted to recorded curves of real trials, `benchmarks/recorded_curves.jsonl`: `point_score` on SIRST v1's holdout at
each evaluated epoch of the preset ``quick``, with the method over several seeds and without it (no modulation, no outer
steps, one cluster).

* **Shape.** Each curve is fitted with ``level * (1 - exp(-(p - start) / pace))`` of the share `p` of the run that is
  done. A trial's `start` and `pace` scatter as those of the seeds do, so that trials overtake each other.
* **Seed noise.** A trial's level scatters around its configuration's as the seeds' levels do.
* **Evaluations** scatter around the curve as the residuals do, with their correlation from one to the next.
* **Level.** Configurations have the mean of the real levels on average. What the method gained over training without
  it, the one contrast between configurations that was measured, is their spread.

**Assumed**, as so few trials cannot tell it: what each dimension does. Every seed draws a landscape of its own: each
number acts by a parabola with its best place anywhere between 15 % and 85 % of its range, each stage by a step up or
down; shares of the variance are drawn uniformly (Dirichlet), effects add up, and move the level but not the pace.
Without a modulated stage, a configuration has the level of training without the method.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

RECORDED = Path(__file__).parent / "recorded_curves.jsonl"
STAGES = 5
_HIGHEST = 0.98


@dataclass(frozen=True)
class Recorded:
    """A real trial.

    Attributes:
        variant: ``method`` or ``plain``.
        seed: of the run.
        epochs: of its schedule.
        scores: epoch from 0 and `point_score`.
    """

    variant: str
    seed: int
    epochs: int
    scores: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Shape:
    """A curve's fit, and how the evaluations lie around it."""

    level: float
    start: float
    pace: float
    residuals: np.ndarray


def curve(level: float, start: float, pace: float, done: float) -> float:
    """The score without noise after a share of the run."""
    return level * -math.expm1(-max(done - start, 0.0) / pace)


def read_recorded(path: Path = RECORDED) -> list[Recorded]:
    """The real trials."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Recorded(**{**row, "scores": tuple(tuple(pair) for pair in row["scores"])}) for row in rows]


def fit_shape(trial: Recorded) -> Shape:
    """Least squares on a curve's evaluations."""
    done = [(epoch + 1) / trial.epochs for epoch, _ in trial.scores]
    scores = np.array([score for _, score in trial.scores])

    def misses(x: np.ndarray) -> np.ndarray:
        return np.array([curve(x[0], x[1], x[2], share) for share in done]) - scores

    found = least_squares(misses, [max(scores.max(), 0.05), 0.1, 0.2], bounds=([0, 0, 0.02], [1.5, 0.6, 1.0]))
    level, start, pace = (float(value) for value in found.x)
    return Shape(level, start, pace, -misses(found.x))


@dataclass(frozen=True)
class Facts:
    """What the real curves say.

    Attributes:
        method: mean level with the method.
        plain: mean level without.
        start: mean share of the run before the score rises.
        pace: mean share of the run over which it rises.
        seed_level: standard deviation of the level between seeds; likewise of start and pace.
        seed_start: see above.
        seed_pace: see above.
        noise: standard deviation of an evaluation around the curve.
        persistence: correlation of that from one evaluation to the next.
    """

    method: float
    plain: float
    start: float
    pace: float
    seed_level: float
    seed_start: float
    seed_pace: float
    noise: float
    persistence: float

    @classmethod
    def of(cls, recorded: Sequence[Recorded]) -> Facts:
        """Fit them."""
        shapes = [(trial.variant, fit_shape(trial)) for trial in recorded]
        with_, without = ([s for variant, s in shapes if variant == wanted] for wanted in ("method", "plain"))
        late = [s.residuals[len(s.residuals) // 3 :] for _, s in shapes]  # where the form no longer bends
        pairs = np.concatenate([np.stack([r[:-1], r[1:]], axis=1) for r in late])
        return cls(
            method=float(np.mean([s.level for s in with_])),
            plain=float(np.mean([s.level for s in without])),
            start=float(np.mean([s.start for _, s in shapes])),
            pace=float(np.mean([s.pace for _, s in shapes])),
            seed_level=float(np.std([s.level for s in with_], ddof=1)),
            seed_start=float(np.std([s.start for s in with_], ddof=1)),
            seed_pace=float(np.std([s.pace for s in with_], ddof=1)),
            noise=float(np.sqrt(np.mean(np.concatenate(late) ** 2))),
            persistence=float(np.clip((pairs[:, 0] * pairs[:, 1]).mean() / (pairs**2).mean(), 0, 0.95)),
        )


class Surrogate:
    """Trials of one landscape.

    Args:
        facts: of the real curves.
        ranges: ends of each numeric dimension, and whether it is logarithmic.
        landscape: seed of what the dimensions do.
    """

    def __init__(self, facts: Facts, ranges: Mapping[str, tuple[float, float, bool]], landscape: int) -> None:
        rng = np.random.default_rng([landscape, 1])
        self.facts = facts
        self.ranges = ranges
        shares = np.sqrt(rng.dirichlet(np.ones(len(ranges) + STAGES)))
        self._best = dict(zip(ranges, rng.uniform(0.15, 0.85, len(ranges)), strict=True))
        self._weight = dict(zip(ranges, shares[: len(ranges)], strict=True))
        self._step = shares[len(ranges) :] * rng.choice([-1.0, 1.0], STAGES)

    def quality(self, parameters: Mapping[str, Any]) -> float:
        """The level that a configuration reaches on average."""
        facts, stages = self.facts, parameters["scam.stages"]
        spread, middle = facts.method - facts.plain, (facts.method + facts.plain) / 2
        placed = {"all": range(1, STAGES + 1), "none": ()}[stages] if isinstance(stages, str) else stages
        moved = self._parabola("clusters.count", parameters)
        if not placed:
            return min(facts.plain + spread * moved, _HIGHEST)
        moved += sum(self._parabola(key, parameters) for key in self.ranges if key != "clusters.count")
        moved += sum(step if stage in placed else -step for stage, step in enumerate(self._step, 1))
        return float(np.clip(middle + spread * moved, 0, _HIGHEST))

    def _parabola(self, key: str, parameters: Mapping[str, Any]) -> float:
        """Of mean 0 and standard deviation `weight` over the range."""
        low, high, log = self.ranges[key]
        value, low, high = (math.log(v) if log else v for v in (parameters[key], low, high))
        place, best = np.clip((value - low) / (high - low), 0, 1), self._best[key]
        # moments of (x - best)^2 for x uniform over the range
        mean = ((1 - best) ** 3 + best**3) / 3
        variance = ((1 - best) ** 5 + best**5) / 5 - mean**2
        return -self._weight[key] * ((place - best) ** 2 - mean) / math.sqrt(variance)

    def trial(
        self, parameters: Mapping[str, Any], epochs: int, evaluated: Sequence[int], seed: int
    ) -> dict[int, float]:
        """The scores of one run.

        Args:
            parameters: of its configuration.
            epochs: of its schedule.
            evaluated: epochs, from 0.
            seed: of the run.
        """
        facts, name = self.facts, json.dumps(parameters, sort_keys=True)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        level = self.quality(parameters) + rng.normal(0, facts.seed_level)
        start = max(facts.start + rng.normal(0, facts.seed_start), 0.0)
        pace = max(facts.pace + rng.normal(0, facts.seed_pace), 0.02)
        found, error = {}, rng.normal(0, facts.noise)
        for epoch in evaluated:
            shown = curve(level, start, pace, (epoch + 1) / epochs)
            found[epoch] = float(np.clip(shown + error * min(shown / max(level, 1e-9), 1.0), 0, 1))
            error = facts.persistence * error + rng.normal(0, facts.noise * math.sqrt(1 - facts.persistence**2))
        return found
