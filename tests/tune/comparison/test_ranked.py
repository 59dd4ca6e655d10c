"""The first of a ranking: bands by paired differences, costs within them, folds, and what is read."""

import numpy as np
import pytest

from tests.tune.images import noisy_scores, scored_images, store_images
from tune.comparison import ranked as module
from tune.comparison.ranked import BANDED, compare_first
from tune.comparison.stored_sums import put_sums
from tune.spec.constraints import Limit
from tune.store.records import Record
from tune.store.results_store import ResultsStore

SCORE = "holdout/point_score"
NOISE = 0.1  # of an image's score, of its own; 24 images, so that the error of a difference is about 0.029


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path)


def add(store, name, value, cost=1.0, state="completed", images=True, **metrics):
    """A trial with one evaluation, and its end."""
    number = int(name.partition(".")[0])
    common = {"trial": name, "configuration": number, "seed": 0, "attempt": 1}
    scores = noisy_scores(value, number, noise=NOISE)
    digest = store_images(store.storage, name, 0, scores) if images else None
    told = {"metrics": {SCORE: value, f"{SCORE}_se": 0.2} | metrics, "device_s": cost, "best": True, "images": digest}
    store.append([Record(kind="report", epoch=0, **common, **told)])
    if state:
        store.append([Record(kind="end", epoch=1, state=state, **common)])


def order(store, **arguments):
    return [one.entry.trial for one in compare_first(store, {SCORE: "max"}, **arguments).shown]


def test_within_the_error_of_the_difference_the_cheaper_comes_first(store):
    """Whatever the errors of the values themselves, which are as large for all."""
    for number, (value, cost) in enumerate([(0.80, 9), (0.79, 5), (0.785, 7), (0.70, 1), (0.695, 0.5)]):
        add(store, f"{number:04d}", value, cost)
    found = compare_first(store, {SCORE: "max"}).shown
    assert [one.entry.trial for one in found] == ["0001", "0002", "0000", "0004", "0003"]
    assert [one.entry.place for one in found] == [1, 2, 3, 4, 5]
    assert [one.band for one in found] == [1, 1, 1, 2, 2]
    from_best = {one.entry.trial: one.standings[0].from_best for one in found}
    assert from_best["0000"].value == 0
    assert from_best["0003"].value == pytest.approx(-0.1, abs=1e-4)
    assert 0.02 < from_best["0003"].error < 0.05
    assert sum(one.standings[0].probability for one in found) == pytest.approx(1)


def test_costs_within_ten_percent_count_as_equal(store):
    for number, (value, cost) in enumerate([(0.810, 1273), (0.808, 1259), (0.809, 1268), (0.807, 1000)]):
        add(store, f"{number:04d}", value, cost)
    assert order(store) == ["0003", "0000", "0002", "0001"]


@pytest.mark.parametrize("state", ["stopped", "failed", "diverged", None])
def test_an_incomplete_configuration_does_not_precede_a_better_one_by_being_cheaper(store, state):
    """The second is cut short; the third may pass the first, and the fourth, dearer, nobody."""
    for number, (value, cost) in enumerate([(0.803, 9), (0.802, 1), (0.801, 7), (0.800, 10)]):
        add(store, f"{number:04d}", value, cost, state if number == 1 else "completed")
    assert order(store) == ["0002", "0000", "0001", "0003"]


def test_without_terms_the_value_decides_and_the_trials_are_told(store):
    add(store, "0000", 0.8, cost=9, images=False)
    add(store, "0001", 0.79, cost=1)
    add(store, "0002", 0.78, cost=1)
    store.storage.delete_folder("image-sums/0002")
    found = compare_first(store, {SCORE: "max"})
    assert [one.entry.trial for one in found.shown] == ["0000", "0001", "0002"]
    assert found.missing == ("0000", "0002")
    assert found.gains[SCORE][2] is None
    assert found.shown[0].standings[0].probability is None


def test_damaged_terms_are_missing_ones(store):
    add(store, "0000", 0.8)
    (entry,) = store.storage.list("image-sums/0000")
    store.storage.put(entry.name, b"something else")
    assert compare_first(store, {SCORE: "max"}).missing == ("0000",)


def test_the_order_does_not_depend_on_how_many_are_shown_and_few_are_read(store, monkeypatch):
    for number in range(BANDED + 8):
        add(store, f"{number:04d}", 0.5 if number == 0 else 0.8 - 0.0001 * number, cost=100 / (1 + number))
    every = order(store, limit=BANDED + 8)
    assert every[:BANDED] != sorted(every[:BANDED])  # the cheaper come first
    assert every[BANDED:] == [*(f"{number:04d}" for number in range(BANDED + 1, BANDED + 8)), "0000"]
    read = []
    monkeypatch.setattr(module, "read_sums", lambda storage, address: read.append(address))
    for limit in (1, BANDED):
        read.clear()
        compare_first(store, {SCORE: "max"}, limit=limit)
        assert len(read) == BANDED + 1  # with the preset itself
    monkeypatch.undo()
    assert order(store, limit=3) == every[:3]
    errors = {compare_first(store, {SCORE: "max"}, limit=limit).error for limit in (1, BANDED, BANDED + 8)}
    assert len(errors) == 1 and errors.pop() > 0


def test_folds_are_ranked_by_the_images_of_all_of_them(store):
    """Folds of different sizes: the mean over folds is another value than that of the images together."""
    parts = {"0000": (0.6, 0.5), "0001": (0.75, 0.4)}
    for name, values in parts.items():
        for fold, (value, size) in enumerate(zip(values, (20, 80), strict=True)):
            names = [f"{fold}-{index}" for index in range(size)]
            scores = value + np.random.default_rng(int(name) + fold).normal(0, 0.01, size)
            digest = put_sums(
                store.storage, f"{name}.{fold}", 1, 0, scored_images(scores - scores.mean() + value, names)
            )
            metrics = {SCORE: value, f"{SCORE}_se": 0.1}
            common = {"trial": f"{name}.{fold}", "configuration": int(name), "seed": fold, "attempt": 1, "epoch": 0}
            store.append([Record(kind="report", metrics=metrics, images=digest, best=True, **common)])
    assert [entry.configuration for entry in store.rank({SCORE: "max"})] == [1, 0]
    first, second = compare_first(store, {SCORE: "max"}).shown
    assert (first.entry.configuration, first.entry.values[0]) == (0, pytest.approx(0.52, abs=1e-4))
    assert second.entry.values[0] == pytest.approx(0.47, abs=1e-4)
    assert second.standings[0].from_best.value == pytest.approx(-0.05, abs=1e-4)
    assert first.entry.errors[0] > 0


def test_of_several_objectives_each_is_compared_and_a_cost_is_not(store):
    for number, (value, cost) in enumerate([(0.5, 30.0), (0.8, 90.0), (0.7, 20.0)]):
        add(store, f"{number:04d}", value, **{"holdout/iou": value / 2, "cost/latency_ms": cost})
    found = compare_first(store, {SCORE: "max", "cost/latency_ms": "min", "holdout/iou": "max"})
    assert [(one.entry.front, one.entry.trial) for one in found.shown] == [(1, "0001"), (1, "0002"), (2, "0000")]
    score, cost, iou = found.shown[1].standings
    assert score.from_best.value == pytest.approx(-0.1, abs=1e-4)
    assert iou.from_base.value == pytest.approx(0.1, abs=1e-4)
    assert (cost.from_best, cost.probability) == (None, None)
    best, base, difference = found.gains["cost/latency_ms"]
    assert (best.trial, base.trial, difference) == ("0002", "0000", None)
    assert compare_first(store, {"cost/latency_ms": "min"}).missing == ()


def test_what_may_not_be_called_the_best_has_no_probability_of_it(store):
    """One beyond the constraints, however good, is no measure for the others."""
    for number, (value, latency) in enumerate([(0.5, 20.0), (0.8, 90.0), (0.7, 20.0)]):
        add(store, f"{number:04d}", value, **{"cost/latency_ms": latency})
    found = compare_first(store, {SCORE: "max"}, limits=[Limit("cost/latency_ms", "<=", 50.0)])
    assert [one.entry.configuration for one in found.shown] == [2, 0, 1]
    assert [one.standings[0].probability for one in found.shown] == [
        pytest.approx(1, abs=0.01),
        pytest.approx(0, abs=0.01),
        None,
    ]
    assert [one.standings[0].from_best.value for one in found.shown] == pytest.approx([0, -0.2, 0.1], abs=1e-3)
    assert found.leader.configuration == 2
    nobody = compare_first(store, {SCORE: "max"}, limits=[Limit("cost/latency_ms", "<=", 5.0)])
    assert nobody.leader.configuration == 1
    assert sum(one.standings[0].probability for one in nobody.shown) == pytest.approx(1)


def test_in_a_race_what_has_too_few_runs_is_not_the_best(store):
    for name, value in (("0000.0", 0.9), ("0001.0", 0.7), ("0001.1", 0.7), ("0002.0", 0.6), ("0002.1", 0.6)):
        add(store, name, value)
    found = compare_first(store, {SCORE: "max"}, minimum=2)
    assert [one.entry.configuration for one in found.shown] == [1, 2, 0]
    assert [one.standings[0].probability for one in found.shown] == [
        pytest.approx(1, abs=0.01),
        pytest.approx(0, abs=0.01),
        None,
    ]
    assert found.leader.configuration == 1


def test_of_nothing_there_is_nothing(store):
    assert compare_first(store, {SCORE: "max"}).shown == []


def test_configurations_with_different_runs_are_ordered_over_those_that_both_have(store):
    """Run 2 holds out hard images, and only the best has it: by its own value it would be the second."""
    for name, value in (("0000.0", 0.7), ("0000.1", 0.7), ("0001.0", 0.8), ("0001.1", 0.8), ("0001.2", 0.4)):
        add(store, name, value)
    found = compare_first(store, {SCORE: "max"}, minimum=2)
    assert [one.entry.configuration for one in found.shown] == [1, 0]
    assert [one.standings[0].from_best.value for one in found.shown] == pytest.approx([0, -0.1], abs=1e-3)
