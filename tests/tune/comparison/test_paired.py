"""Paired errors against brute force, and what they must be where it can be said in a formula."""

import random
import statistics

import numpy as np
import pytest

from semprior.evaluation.image_sums import POINT_TERMS, image_sums, metric_of
from tests.tune.images import noisy_scores, scored_images
from tune.comparison.paired import ROUNDS, Comparison

RNG = np.random.default_rng(7)


def of_points(areas):
    """Images with such areas and random ones of the pixels that agree with the evaluation before."""
    number = len(areas)
    given = {term: np.ones(number) for term in POINT_TERMS}
    given |= {"common_area": areas, "joint_area": RNG.uniform(60, 90, number)}
    given |= {"common_pixels": RNG.uniform(40, 60, number), "joint_pixels": RNG.uniform(60, 80, number)}
    return image_sums([f"{index}" for index in range(number)], given)


def brute_force(first, second, metric, rounds=4000):
    """The standard error of a difference, by drawing images one by one."""
    draw, differences = random.Random(0), []
    number = len(first.names)
    for _ in range(rounds):
        drawn = [draw.randrange(number) for _ in range(number)]
        values = [
            float(metric_of(metric, one.terms, sum(one.table[row].astype(float) for row in drawn)))
            for one in (first, second)
        ]
        differences.append(values[0] - values[1])
    return statistics.stdev(differences)


def test_the_error_is_that_of_brute_force():
    """Of a score that is a product of two ratios of sums."""
    hard = RNG.uniform(10, 60, 12)
    first, second = of_points(hard + RNG.normal(2, 4, 12)), of_points(hard)
    comparison = Comparison([{0: first}, {0: second}], "point_score")
    found = comparison.difference(0, 1)
    values = [float(metric_of("point_score", one.terms, one.table.astype(float).sum(0))) for one in (first, second)]
    assert found.value == pytest.approx(values[0] - values[1])
    assert found.error == pytest.approx(brute_force(first, second, "point_score"), rel=0.06)
    assert comparison.error(0) > 2 * found.error  # both find the same images hard
    assert comparison.difference(1, 0) == pytest.approx(found.__class__(-found.value, found.error, found.freedom))


@pytest.mark.parametrize("metric", ["point_score", "iou"])
def test_the_error_of_a_mean_is_that_of_the_differences(metric):
    first, second = noisy_scores(0.6, 1, 40), noisy_scores(0.5, 2, 40)
    found = Comparison([{0: scored_images(first)}, {0: scored_images(second)}], metric).difference(0, 1)
    scale = 1.0 if metric == "point_score" else 0.5
    assert found.value == pytest.approx(0.1 * scale, rel=1e-4)
    assert found.error == pytest.approx(scale * np.std(first - second) / np.sqrt(40), rel=0.05)
    assert found.freedom == pytest.approx(39)


def test_seeds_on_the_same_images_are_averaged_and_their_scatter_counts():
    runs = {seed: noisy_scores(0.6 + shift, seed) for seed, shift in enumerate((0.04, -0.02, 0.01))}
    others = {seed: noisy_scores(0.5, seed + 9) for seed in runs}
    comparison = Comparison(
        [{run: scored_images(one) for run, one in each.items()} for each in (runs, others)], "point_score"
    )
    gaps = [np.mean(runs[seed]) - np.mean(others[seed]) for seed in runs]
    by_image = np.mean([runs[seed] - others[seed] for seed in runs], axis=0)
    found = comparison.difference(0, 1)
    assert comparison.value(0) == pytest.approx(0.61, abs=1e-5)
    assert found.value == pytest.approx(np.mean(gaps), abs=1e-5)
    assert found.error**2 == pytest.approx(np.var(by_image) / 24 + np.var(gaps, ddof=1) / 3, rel=0.05)
    assert 2 < found.freedom < 4
    assert found.half_width(0.95) > 2 * found.error  # Student's t of few runs


def folds(shifts, noise, own, size=30):
    """Runs that have held out different images; in each, what the run itself does to all of its images."""
    scores = noisy_scores(0.5, own, size * len(shifts), noise=noise)
    parts = np.split(scores, len(shifts))
    names = np.split(np.array([f"image-{index:03d}" for index in range(len(scores))]), len(shifts))
    return {
        fold: scored_images(part + shift, list(own_names))
        for fold, (part, own_names, shift) in enumerate(zip(parts, names, shifts, strict=True))
    }


def test_folds_are_pooled_and_each_image_counts_once():
    first, second = folds([0.0] * 5, 0.05, 3), folds([0.0] * 5, 0.05, 4)
    comparison = Comparison([first, second], "point_score")
    assert comparison.pooled(0)
    whole = Comparison(
        [
            {
                0: image_sums(
                    sum((one.names for one in runs.values()), ()),
                    dict(
                        zip(
                            next(iter(runs.values())).terms,
                            np.concatenate([one.table for one in runs.values()]).T,
                            strict=True,
                        )
                    ),
                )
            }
            for runs in (first, second)
        ],
        "point_score",
    )
    assert comparison.value(0) == pytest.approx(whole.value(0))
    assert comparison.difference(0, 1).value == pytest.approx(whole.difference(0, 1).value)
    # never less than the images alone say, and not much more where runs do nothing of their own
    assert 1 <= comparison.difference(0, 1).error / whole.difference(0, 1).error < 1.6


def test_what_a_run_does_to_all_of_its_images_counts_among_folds():
    shifts = np.array([0.06, -0.05, 0.02, -0.04, 0.01])
    found = Comparison([folds(shifts, 0.01, 3), folds([0.0] * 5, 0.01, 4)], "point_score").difference(0, 1)
    assert found.error == pytest.approx(np.std(shifts, ddof=1) / np.sqrt(5), rel=0.1)


def test_the_probability_of_being_the_best():
    near, far = noisy_scores(0.6, 1), noisy_scores(0.3, 2)
    comparison = Comparison([{0: scored_images(one)} for one in (near, near, far)] + [{}], "point_score")
    assert comparison.probabilities(maximize=True) == [0.5, 0.5, 0.0, None]  # equal ones share
    assert comparison.probabilities(maximize=False) == [0.0, 0.0, 1.0, None]
    one, other = noisy_scores(0.6, 1), noisy_scores(0.597, 5)
    found = Comparison([{0: scored_images(scores)} for scores in (one, other)], "point_score")
    gap = found.difference(0, 1)
    expected = statistics.NormalDist().cdf(gap.value / gap.error)
    assert found.probabilities(maximize=True)[0] == pytest.approx(expected, abs=0.05)


def test_configurations_are_compared_over_the_runs_that_both_have():
    runs = {seed: scored_images(noisy_scores(value, seed)) for seed, value in enumerate((0.6, 0.9))}
    single = {0: scored_images(noisy_scores(0.5, 9))}
    comparison = Comparison(
        [runs, single, {1: scored_images(noisy_scores(0.5, 9), [f"other{i}" for i in range(24)])}], "iou"
    )
    assert comparison.difference(0, 1).value == pytest.approx(0.05, abs=1e-4)
    assert comparison.difference(0, 2) is None  # other images
    assert comparison.difference(1, 2) is None  # another run


def test_a_configuration_that_had_an_easy_fold_alone_is_no_measure_for_the_others():
    """Over the folds that both have, the third is the better of the first two, whatever the second is compared on."""
    whole, better = folds((0.3, 0.0, 0.0), 0.02, 1), folds((0.35, 0.05, 0.05), 0.02, 2)
    easy = {0: folds((0.2, 0.0, 0.0), 0.02, 3)[0]}
    comparison = Comparison([whole, easy, better], "point_score")
    assert comparison.value(1) > comparison.value(2)
    shares = comparison.probabilities(maximize=True)
    assert shares == pytest.approx([0, 0, 1], abs=0.01)
    assert comparison.probabilities(maximize=True, among=[0, 1]) == [pytest.approx(1), pytest.approx(0), None]


def test_a_single_image_tells_no_error_and_no_probability():
    one, other = ({0: scored_images([score], ["a"])} for score in (0.6, 0.5))
    more = {**other, 1: scored_images([0.5], ["b"])}
    comparison = Comparison([one, more], "point_score")
    assert comparison.difference(0, 1).error is None
    assert comparison.error(0) is None
    assert comparison.error(1) is not None
    assert comparison.probabilities(maximize=True)[0] is None
    assert Comparison([one, other], "point_score").probabilities(maximize=True) == [None, None]


def test_what_is_not_known_is_none():
    comparison = Comparison([{}, {0: scored_images([0.5])}, {0: scored_images([0.25])}], "teacher/iou")
    assert (comparison.value(1), comparison.error(1), comparison.difference(1, 2)) == (None, None, None)
    assert comparison.probabilities(maximize=True) == [None] * 3
    single = Comparison([{0: scored_images([0.5])}, {0: scored_images([0.25])}], "point_score").difference(0, 1)
    assert (single.value, single.error, single.half_width(0.95)) == (pytest.approx(0.25), None, None)


def test_draws_need_little_memory_with_many_images(monkeypatch):
    """The draws are made part by part, and are the same."""
    runs = [{0: scored_images(noisy_scores(0.5, own, 50))} for own in (1, 2)]
    whole = Comparison(runs, "point_score").difference(0, 1)
    monkeypatch.setattr("tune.comparison.paired._AT_A_TIME", 50 * ROUNDS // 7)
    assert Comparison(runs, "point_score").difference(0, 1) == whole
