"""Differences of configurations that were evaluated on the same images, with the standard error of the difference.

Two detectors find the same images hard. The standard error of their difference is therefore much smaller than the
standard errors of their values suggest, if both are evaluated on the same draws of images.

**The value of a configuration** is, with one run, the metric of the images that it held out. Runs that have held out
different images, the folds, are pooled: the metric of the sums over all their images, each of which counts once. The
values of runs on the same images, the seeds, are averaged.

**The variance of a difference** over R runs that both configurations have, by index, has two parts:

- *images*: the variance of the difference over bootstrap draws of the images, the same for all runs and configurations;
- *runs*, with two or more: ``s^2 / R``, where ``s`` is the standard deviation over runs of the difference of the
  jackknife's pseudo-values, ``R d - (R - 1) d_without_run``, which on the same images are the runs' own differences.
  On different images, runs also differ because their images do, which the first part contains. It is subtracted, so
  that the sum is the larger of the two. A single run does not tell how much it depends on its seed.

**The probability of being the best** is the share of joint draws, of images and of runs, in which a configuration has
the best value of all that are compared. Equal values share a draw. Each is drawn by its difference from the best of
those with the most runs: a configuration whose only run held out an easy fold has a high value and is no better.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from semprior.evaluation.image_sums import ImageSums, metric_of, terms_of

ROUNDS, SEED = 2000, 0  # of the bootstrap
_AT_A_TIME = 1 << 22  # counts of images in draws that are in memory at a time
_CACHED = 500  # images, up to which draws are kept

Runs = Mapping[int, ImageSums]
"""The evaluated runs of a configuration, by index of the run."""


@dataclass(frozen=True)
class Difference:
    """The difference of two values.

    Attributes:
        value: the first less the second.
        error: its standard error; None if fewer than two images leave it unknown.
        freedom: degrees of freedom of the error (Satterthwaite).
    """

    value: float
    error: float | None
    freedom: float

    def half_width(self, confidence: float) -> float | None:
        """Half of the width of Student's confidence interval; None without an error."""
        from scipy.stats import norm, t

        if self.error is None:
            return None
        level = (1 + confidence) / 2
        return float(self.error * (norm.ppf(level) if math.isinf(self.freedom) else t.ppf(level, self.freedom)))


def _draws(number: int) -> Iterator[np.ndarray]:
    """Counts of each image in the bootstrap draws of so many images, (rounds, number) at a time, the same each time."""
    if number <= _CACHED:
        yield _all_draws(number)
        return
    rng, step = np.random.default_rng(SEED), max(1, _AT_A_TIME // number)
    for first in range(0, ROUNDS, step):
        yield rng.multinomial(number, np.full(number, 1 / number), size=min(step, ROUNDS - first))


@lru_cache(4)  # a race compares many pairs of configurations, on few numbers of images
def _all_draws(number: int) -> np.ndarray:
    drawn = np.random.default_rng(SEED).multinomial(number, np.full(number, 1 / max(number, 1)), size=ROUNDS)
    return drawn.astype(np.float64)


@dataclass(frozen=True)
class _Sample:
    """A difference, and its draws (rounds,)."""

    difference: Difference
    draws: np.ndarray


class Comparison:
    """Configurations beside each other in one metric.

    Args:
        configurations: the runs of each configuration; empty where the terms are not known.
        metric: a metric of `image_sums.METRICS`, or of the teacher.
    """

    def __init__(self, configurations: Sequence[Runs], metric: str) -> None:
        self.metric, self.terms = metric, terms_of(metric)
        self.configurations = [
            {run: images for run, images in runs.items() if set(self.terms) <= set(images.terms)}
            for runs in configurations
        ]
        held_out = [images.names for runs in self.configurations for images in runs.values()]
        self._place = {name: index for index, name in enumerate(sorted({name for names in held_out for name in names}))}
        self._sums: list[dict[int, np.ndarray]] = [{} for _ in self.configurations]
        self._draw()

    def _draw(self) -> None:
        """For each run, the sums over its images, (1 + rounds, terms): of all images, then of each draw."""
        number = len(self._place)
        tables = {
            (index, run): (
                np.array([self._place[name] for name in images.names], np.int64),
                images.table[:, [images.terms.index(term) for term in self.terms]].astype(np.float64),
            )
            for index, runs in enumerate(self.configurations)
            for run, images in runs.items()
        }
        parts: dict[tuple[int, int], list[np.ndarray]] = {
            key: [table.sum(0)[None]] for key, (_, table) in tables.items()
        }
        for drawn in _draws(number) if tables else ():
            for key, (places, table) in tables.items():
                parts[key].append(drawn[:, places] @ table)
        for (index, run), sums in parts.items():
            self._sums[index][run] = np.concatenate(sums)

    def value(self, index: int) -> float | None:
        """The value of a configuration; None if its terms are not known."""
        runs = tuple(sorted(self.configurations[index]))
        return float(self._values(index, runs)[0]) if runs else None

    def error(self, index: int) -> float | None:
        """The standard error of the value of a configuration, images and runs; None if it is not known."""
        runs = tuple(sorted(self.configurations[index]))
        if not runs:
            return None
        return self._sample(index, runs, self._values(index, runs), self._pseudo(index, runs)).difference.error

    def pooled(self, index: int) -> bool:
        """Whether the configuration has several runs that have held out different images."""
        runs = tuple(sorted(self.configurations[index]))
        return len(runs) > 1 and self._pooled(index, runs)

    def difference(self, index: int, other: int) -> Difference | None:
        """How much greater the value of a configuration is than that of another one, over the runs that both have.

        Returns:
            None if they have no run on the same images.
        """
        sample = self._paired(index, other)
        return sample.difference if sample else None

    def probabilities(self, maximize: bool, among: Collection[int] | None = None) -> list[float | None]:
        """The probability that each configuration is the best.

        Args:
            maximize: whether greater values are better.
            among: the configurations that may be the best; None for all.

        Returns:
            None for those that are not `among` them, cannot be compared with the best of those with the most runs, or
            have held out a single image.
        """
        found: list[float | None] = [None] * len(self.configurations)
        sign = 1.0 if maximize else -1.0
        values = {
            index: sign * value
            for index in (range(len(found)) if among is None else among)
            if (value := self.value(index)) is not None and math.isfinite(value)
        }
        if not values:
            return found
        leader = max(values, key=lambda index: (len(self.configurations[index]), values[index]))
        paired = {index: self._paired(index, leader) for index in values}
        samples = {
            index: sample
            for index, sample in paired.items()
            if sample is not None and sample.difference.error is not None
        }
        draws = sign * np.array([sample.draws for sample in samples.values()]).reshape(len(samples), ROUNDS)
        draws = draws[:, np.isfinite(draws).all(0)]
        if leader not in samples or not draws.shape[1]:
            return found
        best = draws == draws.max(0)
        for index, share in zip(samples, (best / best.sum(0)).mean(1).tolist(), strict=True):
            found[index] = share
        return found

    def _paired(self, index: int, other: int) -> _Sample | None:
        first, second = self.configurations[index], self.configurations[other]
        runs = tuple(run for run in sorted(first) if run in second and set(first[run].names) == set(second[run].names))
        if not runs:
            return None
        values = self._values(index, runs) - self._values(other, runs)
        if not math.isfinite(values[0]):
            return None
        pseudo = self._pseudo(index, runs) - self._pseudo(other, runs)
        return self._sample(index, runs, values, pseudo)

    def _pooled(self, index: int, runs: Sequence[int]) -> bool:
        """Whether no two of these runs have held out the same image."""
        return len(self._names(index, runs)) == sum(len(self.configurations[index][run].names) for run in runs)

    def _names(self, index: int, runs: Sequence[int]) -> set[str]:
        """The images that these runs have held out."""
        return set().union(*(self.configurations[index][run].names for run in runs))

    def _values(self, index: int, runs: Sequence[int]) -> np.ndarray:
        """(1 + rounds,) the value of a configuration with these runs, of all images and of each draw."""
        sums = [self._sums[index][run] for run in runs]
        if self._pooled(index, runs):
            return metric_of(self.metric, self.terms, np.sum(sums, axis=0))
        mean: np.ndarray = np.mean([metric_of(self.metric, self.terms, one) for one in sums], axis=0)
        return mean

    def _pseudo(self, index: int, runs: Sequence[int]) -> np.ndarray:
        """(R,) the jackknife's pseudo-value of each run; on the same images, its own value."""
        sums, count = np.array([self._sums[index][run][0] for run in runs]), len(runs)
        if not self._pooled(index, runs):
            return metric_of(self.metric, self.terms, sums)
        whole, without = (metric_of(self.metric, self.terms, one) for one in (sums.sum(0), sums.sum(0) - sums))
        pseudo: np.ndarray = count * whole - (count - 1) * without
        return pseudo

    def _sample(self, index: int, runs: tuple[int, ...], values: np.ndarray, pseudo: np.ndarray) -> _Sample:
        """The difference with its error, and draws of it, of its values by draw of images and its pseudo-values.

        Args:
            index: a configuration that has these runs.
            runs: the compared runs.
            values: (1 + rounds,) of all images and of each draw.
            pseudo: (R,) pseudo-value of each run.
        """
        count, number = len(runs), len(self._names(index, runs))
        drawn = values[1:]
        finite = drawn[np.isfinite(drawn)]
        by_images = float(finite.var(ddof=1)) if len(finite) > 1 else 0.0
        by_runs = float(pseudo.var(ddof=1)) / count if count > 1 and np.isfinite(pseudo).all() else 0.0
        share = 1.0
        if by_runs > 0 and self._pooled(index, runs):
            share = max(0.0, 1 - by_images / by_runs)  # of the variance over runs that is not that of their images
        by_runs *= share
        if by_runs > 0:
            weights = np.random.default_rng([SEED, *runs]).multinomial(count, np.full(count, 1 / count), size=ROUNDS)
            effects = (weights - 1) @ (pseudo - pseudo.mean()) / count
            drawn = drawn + math.sqrt(share * count / (count - 1)) * effects
        variance = by_images + by_runs
        parts = by_images**2 / max(number - 1, 1) + by_runs**2 / max(count - 1, 1)
        freedom = variance**2 / parts if parts > 0 else math.inf
        error = math.sqrt(variance) if number > 1 else None
        return _Sample(Difference(float(values[0]), error, freedom), drawn)
