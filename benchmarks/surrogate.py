"""Runs that take no time: a surrogate of the dimensions of tune/sweeps/sirst-v1.yaml, image by image.

Fitted to real runs of the preset ``quick`` on SIRST v1:

* `recorded_curves.jsonl`, six runs of 75 epochs on the same 26 held-out images: `point_score` at each evaluated epoch,
  with the method over three seeds, and over three seeds without it (no modulation, no outer steps, one cluster).
* `recorded_folds.jsonl`, a sweep with five folds, recorded by `benchmarks.record`: the curves, and the terms of the
  best evaluation, image by image.

**Images.** The score is a ratio of sums over images. To first order it is the mean over images of a value of each image
(`image_values`), and the surrogate draws these values; that of an image is the sum of

* the *level* of the configuration, which is what a search is after;
* the *difficulty* of the image, the same for all configurations: as recorded, of each of the recorded images;
* an *interaction* of configuration and image, the same for all runs of the configuration: each image has slopes of its
  own along the dimensions, so that similar configurations find the same images hard;
* the noise of the *run*, which a seed decides: one number for all images, and one for each image;
* the noise of the *evaluation*, for each image, correlated from one evaluation to the next.

Interaction and noise are larger on some images than on others, as recorded. All but the noise of the evaluation rise
with the curve.

**Curves.** Each long one is fitted with ``level * (1 - exp(-(p - start) / pace))`` of the share `p` of the run that is
done. A run's `start` and `pace` scatter as those of the seeds do, so that runs overtake each other.

**Sizes.** The long curves say how far seeds move the level and evaluations scatter around a curve, on 26 images. The
folds say how far two configurations differ image by image, whatever the reason, and how much further their differences
scatter from fold to fold than their images explain. What seeds and evaluations do not explain is interaction.

**Level.** Configurations have the mean of the real levels on average. What the method gained over training without it
is their spread.

**Assumed**, as so few runs cannot tell it: what each dimension does. Every seed draws a landscape of its own: each
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
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from benchmarks.record import OUT, RecordedRun, read_recording
from semprior.errors import UserError
from semprior.evaluation.image_sums import ImageSums, image_sums, metric_of, terms_of
from tune.store.ranking import fit_levels

CURVES = Path(__file__).parent / "recorded_curves.jsonl"
FOLDS = OUT
SCORE = "point_score"
STAGES = 5
HELD_OUT = 26
"""Number of images that a run without folds holds out, as those of the recorded curves did."""
_HIGHEST = 0.98


@dataclass(frozen=True)
class RecordedCurve:
    """A real run of which only the curve was kept.

    Attributes:
        variant: ``method`` or ``plain``.
        seed: seed of the run.
        epochs: number of epochs of its schedule.
        scores: epochs from 0, each with its `point_score`.
    """

    variant: str
    seed: int
    epochs: int
    scores: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Shape:
    """The fit of a curve, and how the evaluations lie around it."""

    level: float
    start: float
    pace: float
    residuals: np.ndarray


def curve(level: float, start: float, pace: float, done: float) -> float:
    """The score without noise after a share of the run."""
    return level * -math.expm1(-max(done - start, 0.0) / pace)


def read_curves(path: Path = CURVES) -> list[RecordedCurve]:
    """The long curves."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [RecordedCurve(**{**row, "scores": tuple(tuple(pair) for pair in row["scores"])}) for row in rows]


def fit_shape(run: RecordedCurve) -> Shape:
    """Least squares on the evaluations of a curve."""
    done = [(epoch + 1) / run.epochs for epoch, _ in run.scores]
    scores = np.array([score for _, score in run.scores])

    def misses(x: np.ndarray) -> np.ndarray:
        return np.array([curve(x[0], x[1], x[2], share) for share in done]) - scores

    found = least_squares(misses, [max(scores.max(), 0.05), 0.1, 0.2], bounds=([0, 0, 0.02], [1.5, 0.6, 1.0]))
    level, start, pace = (float(value) for value in found.x)
    return Shape(level, start, pace, -misses(found.x))


def image_values(images: ImageSums) -> np.ndarray:
    """(N,) the value of each image: the score, and N times what it would lose without the image, to first order.

    Their mean is the score of all images, and the variance of their mean that of the bootstrap over images.
    """
    columns = [images.table[:, images.terms.index(term)].astype(np.float64) for term in terms_of(SCORE)]
    sums = np.array([column.sum() for column in columns])
    common, joint, kept, either = (column / max(whole, 1e-12) for column, whole in zip(columns, sums, strict=True))
    agreement, score = sums[2] / max(sums[3], 1e-12), float(metric_of(SCORE, terms_of(SCORE), sums))
    moved: np.ndarray = common - joint + (kept - either) * agreement / (1 + agreement)
    return score * (1 + len(images.names) * moved)


@dataclass(frozen=True)
class Spread:
    """How the image values of the recorded folds scatter.

    Attributes:
        difficulty: (N,) of each image, over all configurations; its mean over the images of a fold is 0.
        scale: (N,) of what differs between configurations on each image; the mean square is 1.
        by_image: standard deviation, over configurations, of an image's value about the mean of its run.
        by_run: likewise of the mean of a run, without what its images explain.
        runs: number of runs that say it.
    """

    difficulty: np.ndarray
    scale: np.ndarray
    by_image: float
    by_run: float
    runs: int

    @classmethod
    def of(cls, recorded: Sequence[RecordedRun]) -> Spread:
        """Two-way analyses of variance: of images and configurations in each fold, and of folds and configurations.

        Runs that found nothing say nothing.

        Raises:
            UserError: no two configurations found anything on the same images.
        """
        folds: dict[int, dict[int, np.ndarray]] = {}
        for run in recorded:
            if (values := image_values(run.images)).any():
                folds.setdefault(run.run, {})[run.configuration] = values
        paired = {fold: found for fold, found in folds.items() if len(found) > 1}
        if not paired:
            raise UserError(
                "the recorded folds: no two configurations found anything on the same images; record others"
            )
        difficulty, scale, squares, freedom = [], [], 0.0, 0
        for found in paired.values():
            values = np.stack([found[number] for number in sorted(found)])
            centred = values - values.mean(1, keepdims=True)
            shared = centred.mean(0)
            difficulty.append(shared)
            residuals = centred - shared
            scale.append(np.sqrt((residuals**2).sum(0) / (len(values) - 1)))
            squares += float((residuals**2).sum())
            freedom += (values.shape[0] - 1) * (values.shape[1] - 1)
        by_image = squares / freedom
        count = np.mean([len(found) for found in paired.values()])
        shared, scales = np.concatenate(difficulty), np.concatenate(scale)
        true = max(float(shared.var()) - by_image / count, 0.0)  # the mean over few configurations has their noise
        places = {number: place for place, number in enumerate(sorted(set().union(*paired.values())))}
        means = [(places[n], fold, values.mean()) for fold, found in paired.items() for n, values in found.items()]
        between = fit_levels(*map(np.array, zip(*means, strict=True))).variance or 0.0
        images = np.mean([len(next(iter(found.values()))) for found in paired.values()])
        return cls(
            difficulty=shared * math.sqrt(true / float(shared.var())),
            scale=scales / math.sqrt(float((scales**2).mean())),
            by_image=math.sqrt(by_image),
            by_run=math.sqrt(max(between - by_image / images, 0.0)),
            runs=sum(map(len, paired.values())),
        )


@dataclass(frozen=True)
class Facts:
    """What the real runs say.

    Attributes:
        method: mean level with the method.
        plain: mean level without.
        start: mean share of the run before the score rises.
        pace: mean share of the run over which it rises.
        seed_start: standard deviation of `start` between seeds.
        seed_pace: likewise of `pace`.
        persistence: correlation of the noise of one evaluation with that of the next.
        interaction: standard deviation on an image of the interaction with the configuration.
        run_shift: of the noise of a run that all images share.
        run_image: of the noise of a run on an image.
        evaluation: of the noise of an evaluation on an image.
        spread: of the recorded folds.
    """

    method: float
    plain: float
    start: float
    pace: float
    seed_start: float
    seed_pace: float
    persistence: float
    interaction: float
    run_shift: float
    run_image: float
    evaluation: float
    spread: Spread

    @classmethod
    def of(cls, curves: Sequence[RecordedCurve], folds: Sequence[RecordedRun]) -> Facts:
        """Fit them."""
        shapes = [(run.variant, fit_shape(run)) for run in curves]
        with_, without = ([s for variant, s in shapes if variant == wanted] for wanted in ("method", "plain"))
        late = [s.residuals[len(s.residuals) // 3 :] for _, s in shapes]  # where the form no longer bends
        pairs = np.concatenate([np.stack([r[:-1], r[1:]], axis=1) for r in late])
        spread = Spread.of(folds)
        seeds = float(np.mean([np.var([s.level for s in group], ddof=1) for group in (with_, without)]))
        evaluation = HELD_OUT * float(np.mean(np.concatenate(late) ** 2))
        # Seeds move the level on 26 images by what all images share and by what does not average out among them.
        shift = min(spread.by_run**2, seeds)
        by_image = spread.by_image**2
        evaluation = min(evaluation, by_image)
        run_image = min(HELD_OUT * (seeds - shift), by_image - evaluation)
        return cls(
            method=float(np.mean([s.level for s in with_])),
            plain=float(np.mean([s.level for s in without])),
            start=float(np.mean([s.start for _, s in shapes])),
            pace=float(np.mean([s.pace for _, s in shapes])),
            seed_start=float(np.std([s.start for s in with_], ddof=1)),
            seed_pace=float(np.std([s.pace for s in with_], ddof=1)),
            persistence=float(np.clip((pairs[:, 0] * pairs[:, 1]).mean() / (pairs**2).mean(), 0, 0.95)),
            interaction=math.sqrt(by_image - evaluation - run_image),
            run_shift=math.sqrt(shift),
            run_image=math.sqrt(run_image),
            evaluation=math.sqrt(evaluation),
            spread=spread,
        )


def read_facts() -> Facts:
    """Fit the recorded runs.

    Raises:
        UserError: there is no recording of folds, or it has no two configurations to compare.
    """
    if not FOLDS.exists():
        raise UserError(f"{FOLDS}: there is no recording yet; make one: `python -m benchmarks.record SWEEP`")
    return Facts.of(read_curves(), read_recording(FOLDS))


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of a run.

    Attributes:
        epochs: (E,) evaluated epochs, from 0.
        names: names of the N held-out images.
        values: (E,N) values of the images.
    """

    epochs: tuple[int, ...]
    names: tuple[str, ...]
    values: np.ndarray

    @cached_property
    def scores(self) -> dict[int, float]:
        """The score of each evaluation, by epoch."""
        return dict(zip(self.epochs, self.values.mean(1).tolist(), strict=True))

    def error(self, epoch: int) -> float:
        """The standard error of the score of an evaluation, which the trainer gets from a bootstrap over images."""
        values = self.values[self.epochs.index(epoch)]
        return float(values.std(ddof=1) / math.sqrt(len(values)))

    def images(self, epoch: int) -> ImageSums:
        """The terms of an evaluation: their score is the mean of the values of the images."""
        common, joint, kept, either = terms_of(SCORE)
        ones = np.ones(len(self.names))
        values = self.values[self.epochs.index(epoch)]
        return image_sums(self.names, {common: values, joint: ones, kept: ones, either: ones})


class Surrogate:
    """Runs of one landscape.

    Args:
        facts: what the real runs say.
        ranges: ends of each numeric dimension, and whether it is logarithmic.
        landscape: seed of what the dimensions do, and of which images are held out.
    """

    def __init__(self, facts: Facts, ranges: Mapping[str, tuple[float, float, bool]], landscape: int) -> None:
        rng = np.random.default_rng([landscape, 1])
        self.facts = facts
        self.ranges = ranges
        shares = np.sqrt(rng.dirichlet(np.ones(len(ranges) + STAGES)))
        self._best = dict(zip(ranges, rng.uniform(0.15, 0.85, len(ranges)), strict=True))
        self._weight = dict(zip(ranges, shares[: len(ranges)], strict=True))
        self._step = shares[len(ranges) :] * rng.choice([-1.0, 1.0], STAGES)
        number = len(facts.spread.difficulty)
        self._slopes = rng.normal(size=(number, len(shares))) * shares
        self._order = rng.permutation(number)

    def quality(self, parameters: Mapping[str, Any]) -> float:
        """The level that a configuration reaches on average, over runs and over images that were never seen."""
        facts, placed = self.facts, _placed(parameters)
        spread, middle = facts.method - facts.plain, (facts.method + facts.plain) / 2
        moved = self._parabola("clusters.count", parameters)
        if not placed:
            return min(facts.plain + spread * moved, _HIGHEST)
        moved += sum(self._parabola(key, parameters) for key in self.ranges if key != "clusters.count")
        moved += sum(step if stage in placed else -step for stage, step in enumerate(self._step, 1))
        return float(np.clip(middle + spread * moved, 0, _HIGHEST))

    def best_level(self) -> float:
        """The level of the best configuration of the landscape."""
        found = []
        for placed in product((False, True), repeat=STAGES):
            stages = [stage for stage, on in enumerate(placed, 1) if on]
            parameters = {key: self._value(key, best) for key, best in self._best.items()}
            found.append(self.quality({**parameters, "scam.stages": stages}))
        return max(found)

    def _value(self, key: str, place: float) -> float:
        """The value at a place of its range."""
        low, high, log = self.ranges[key]
        return float(low * (high / low) ** place if log else low + (high - low) * place)

    def _place(self, key: str, parameters: Mapping[str, Any]) -> float:
        """Of a value in its range, 0 to 1."""
        low, high, log = self.ranges[key]
        value, low, high = (math.log(v) if log else v for v in (parameters[key], low, high))
        return float(np.clip((value - low) / (high - low), 0, 1))

    def _parabola(self, key: str, parameters: Mapping[str, Any]) -> float:
        """Of mean 0 and standard deviation `weight` over the range."""
        place, best = self._place(key, parameters), self._best[key]
        # moments of (x - best)^2 for x uniform over the range
        mean = ((1 - best) ** 3 + best**3) / 3
        variance = ((1 - best) ** 5 + best**5) / 5 - mean**2
        return -self._weight[key] * ((place - best) ** 2 - mean) / math.sqrt(variance)

    def interaction(self, parameters: Mapping[str, Any]) -> np.ndarray:
        """(N,) of a configuration with each image, of mean 0 over images."""
        placed = _placed(parameters)
        places = [
            math.sqrt(12) * (self._place(key, parameters) - 0.5) if key in parameters else 0.0 for key in self.ranges
        ]
        steps = [1.0 if stage in placed else -1.0 for stage in range(1, STAGES + 1)]
        found: np.ndarray = self.facts.interaction * self.facts.spread.scale * (self._slopes @ [*places, *steps])
        return found

    def held_out(self, folds: int, fold: int) -> np.ndarray:
        """Indices of the images that a run holds out; without folds (0), the same `HELD_OUT` for all."""
        return np.sort(self._order[fold::folds] if folds else self._order[:HELD_OUT])

    def run(
        self, parameters: Mapping[str, Any], leaves: Mapping[str, Any], evaluated: Sequence[int], noise: int
    ) -> Evaluations:
        """The evaluations of one run.

        Args:
            parameters: of its configuration.
            leaves: of the run: ``epochs``, ``seed``, ``data.folds``, ``data.fold``.
            evaluated: evaluated epochs, from 0.
            noise: seed of the noise of all runs.
        """
        facts, epochs = self.facts, leaves["epochs"]
        chosen = self.held_out(leaves["data.folds"], leaves["data.fold"])
        name = json.dumps([dict(parameters), leaves["seed"], leaves["data.fold"]], sort_keys=True)
        rng = np.random.default_rng([noise, zlib.crc32(name.encode())])
        scale = facts.spread.scale[chosen]
        level = self.quality(parameters) + rng.normal(0, facts.run_shift)
        level = level + facts.spread.difficulty[chosen] + self.interaction(parameters)[chosen]
        level = level + rng.normal(0, facts.run_image, len(chosen)) * scale
        start = max(facts.start + rng.normal(0, facts.seed_start), 0.0)
        pace = max(facts.pace + rng.normal(0, facts.seed_pace), 0.02)
        risen = np.array([curve(1.0, start, pace, (epoch + 1) / epochs) for epoch in evaluated])
        drawn = rng.normal(0, facts.evaluation, (len(evaluated), len(chosen))) * scale
        error = [drawn[0]]
        for row in drawn[1:]:
            error.append(facts.persistence * error[-1] + math.sqrt(1 - facts.persistence**2) * row)
        values = risen[:, None] * (level + np.array(error))
        return Evaluations(tuple(evaluated), tuple(f"{index:04d}" for index in chosen), values)


def _placed(parameters: Mapping[str, Any]) -> Sequence[int]:
    """The modulated stages, from 1."""
    stages = parameters["scam.stages"]
    found: Sequence[int] = {"all": range(1, STAGES + 1), "none": ()}[stages] if isinstance(stages, str) else stages
    return found
