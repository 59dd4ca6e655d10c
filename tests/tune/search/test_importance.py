"""The importance of the dimensions of a sweep."""

import itertools
import random

import numpy as np
from sklearn.tree import DecisionTreeRegressor

from tests.tune.small_sweep import spec_of
from tune.search.importance import importance, main_effects
from tune.search.search import Search
from tune.store.records import Record
from tune.store.results_store import ResultsStore


def store_of(folder, spec, count, value_of, error=0.0):
    """Imagined trials by chance, most of them stopped early."""
    store, search = ResultsStore(folder), Search(spec)
    records = []
    for _ in range(count):
        number, parameters, leaves, _ = search.ask()
        epochs = 20 if number % 8 == 0 else 12
        common = {"trial": f"{number:04d}", "configuration": number, "seed": 0, "attempt": 1}
        common |= {"config": leaves, "params": parameters}
        values = [value_of(parameters) * (epoch + 1) / 20 for epoch in range(epochs)]
        common["metrics"] = {"holdout/point_score_se": error}
        records += [Record(kind="report", epoch=e, values=(v,), best=True, **common) for e, v in enumerate(values)]
        state = "completed" if epochs == 20 else "stopped"
        records += [Record(kind="end", epoch=epochs, state=state, **common)]
    store.append(records)
    return store


def told(spec, store):
    return importance(spec, store.trials(), store.curves())


def test_the_dimension_that_matters_comes_first_though_it_is_conditional(tmp_path):
    spec = spec_of(tmp_path, ("name: tpe", "name: random"), ("trials: 12", "trials: 40"))
    noise = random.Random(0)
    store = store_of(tmp_path / "s", spec, 40, lambda p: p.get("scam.scale", 0.05) + 0.01 * noise.random())
    found = told(spec, store)
    assert next(iter(found.shares)) == "scam.scale"
    assert set(found.shares) == set(spec.search)
    assert abs(sum(found.shares.values()) - 1) < 1e-9
    assert "over 40 trials at epoch 12: scam.scale" in found.summary
    assert told(spec, store) == found


def test_the_switches_of_the_stages_are_one_dimension(tmp_path):
    spec = spec_of(tmp_path, ("name: tpe", "name: random"), ("trials: 12", "trials: 40"))

    def value_of(parameters):
        stages = parameters["scam.stages"]
        return 0.8 if stages == "all" or (stages != "none" and 5 in stages) else 0.5

    store = store_of(tmp_path / "s", spec, 40, value_of)
    found = told(spec, store)
    assert next(iter(found.shares)) == "scam.stages"
    assert found.shares["scam.stages"] > 0.8


def test_detectors_of_different_depth_are_held_against_each_other(tmp_path):
    both = (
        "  scam.stages: {subset: all}\n",
        "  scam.stages: {subset: all}\n  detector: {values: [mlclnet, alclnet]}\n",
    )
    spec = spec_of(tmp_path, both, ("name: tpe", "name: random"), ("trials: 12", "trials: 40"))
    found = told(spec, store_of(tmp_path / "s", spec, 30, lambda p: 0.5 + 0.3 * (p["detector"] == "mlclnet")))
    assert next(iter(found.shares)) == "detector"


def test_dimensions_that_do_nothing_cannot_be_told_from_noise(tmp_path):
    spec = spec_of(tmp_path, ("name: tpe", "name: random"), ("trials: 12", "trials: 60"))
    noise = random.Random(0)
    effect = {"clusters.count": 0.004}

    def value_of(parameters):
        return 0.5 + effect["clusters.count"] * parameters["clusters.count"] + noise.gauss(0, 0.03)

    found = told(spec, store_of(tmp_path / "one", spec, 60, value_of, error=0.03))
    assert set(found.noise) >= {"scam.stages", "scam.scale"}  # one in ten that do nothing passes
    assert "clusters.count" not in found.noise
    low, high = found.intervals["clusters.count"]
    assert 0.3 < low < found.shares["clusters.count"] < high <= 1
    assert found.summary.startswith("importance of the dimensions over 60 trials at epoch 12: clusters.count ")
    assert f"({low:.0%} to {high:.0%})" in found.summary
    assert "; cannot be told from noise: " in found.summary

    effect["clusters.count"] = 0.0
    found = told(spec, store_of(tmp_path / "none", spec, 60, value_of, error=0.03))
    assert set(found.noise) == set(spec.search)
    assert "at epoch 12: cannot be told from noise: " in found.summary


def test_the_noise_of_the_values_hides_a_dimension(tmp_path):
    spec = spec_of(tmp_path, ("name: tpe", "name: random"), ("trials: 12", "trials: 40"))

    def value_of(parameters):
        return 0.5 + 0.001 * parameters["clusters.count"]

    exact, noisy = (told(spec, store_of(tmp_path / str(error), spec, 40, value_of, error)) for error in (0.0, 0.5))
    assert "clusters.count" not in exact.noise
    assert "clusters.count" in noisy.noise


def test_the_error_beside_the_others_takes_the_place_of_that_of_the_evaluations(tmp_path):
    """Images that are hard for all make each value uncertain, and none of the differences."""
    spec = spec_of(tmp_path, ("name: tpe", "name: random"), ("trials: 12", "trials: 40"))
    store = store_of(tmp_path / "s", spec, 40, lambda p: 0.5 + 0.001 * p["clusters.count"], error=0.5)
    found = importance(spec, store.trials(), store.curves(), error=0.005)
    assert "clusters.count" not in found.noise
    assert found.shares["clusters.count"] > 2 * told(spec, store).shares["clusters.count"]


def test_effects_of_folds_and_runs_that_have_just_begun_change_nothing(tmp_path):
    """In a race, configurations have different folds, some of which are harder than others."""
    changes = ("name: tpe", "name: random"), ("trials: 12", "trials: 40")
    race = ("name: asha, factor: 3", "name: race"), ("seeds: 1", "runs: {folds: 3}")
    spec = spec_of(tmp_path, *changes, *race)
    store, search = ResultsStore(tmp_path / "s"), Search(spec_of(tmp_path, *changes))
    records = []
    for number in range(30):
        asked = search.ask()
        for run in range(1 + number % 3):
            of = {"trial": f"{number:04d}.{run}", "configuration": number, "seed": run, "attempt": 1}
            of |= {"config": asked.leaves, "params": asked.parameters}
            value = 0.001 * asked.parameters["clusters.count"] + (0.0, -0.4, 0.3)[run]
            begun = number % 3 == 2 and run == 2  # this run lasts yet, and its value is low
            records.append(Record(kind="report", epoch=0 if begun else 19, values=(value - begun,), best=True, **of))
            if not begun:
                records.append(Record(kind="end", epoch=20, state="completed", **of))
    store.append(records)
    found = importance(spec, store.trials(), store.curves(), error=0.001)
    assert "over 30 trials at epoch 20: clusters.count" in found.summary
    assert found.shares["clusters.count"] > 0.8


def test_main_effects_are_those_of_the_predictions_at_all_points_of_a_grid():
    rng = np.random.default_rng(0)
    table = rng.random((40, 3))
    table[:, 2] = (np.floor(4 * table[:, 2]) + 0.5) / 4
    values = table[:, 0] ** 2 + (table[:, 2] > 0.6) * table[:, 1]
    model = DecisionTreeRegressor(max_leaf_nodes=9, random_state=0).fit(table, values)
    cuts = [np.unique(np.r_[0, 1, model.tree_.threshold[model.tree_.feature == column]]) for column in range(2)]
    points = [*((cut[1:] + cut[:-1]) / 2 for cut in cuts), (np.arange(4) + 0.5) / 4]
    weights = [*map(np.diff, cuts), np.full(4, 0.25)]
    shape = tuple(map(len, points))
    predicted = model.predict(np.array(list(itertools.product(*points)))).reshape(shape)
    weight = np.einsum("i,j,k->ijk", *weights)
    mean = (weight * predicted).sum()
    expected = []
    for column in range(3):
        others = tuple(axis for axis in range(3) if axis != column)
        average = (weight * predicted).sum(others) / weights[column]
        expected.append((weights[column] * (average - mean) ** 2).sum())
    assert min(expected) > 1e-4
    np.testing.assert_allclose(main_effects(model.tree_, np.array([0, 0, 4])), expected, rtol=1e-5)


def test_too_few_trials_and_equal_ones_are_said_in_a_line(tmp_path):
    spec = spec_of(tmp_path, ("name: tpe", "name: random"), ("trials: 12", "trials: 40"))
    few = told(spec, store_of(tmp_path / "few", spec, 7, lambda p: p["clusters.count"]))
    assert few.summary == "importance of the dimensions: unknown until 8 configurations are evaluated; there are 7"
    assert few.shares == {}
    alike = told(spec, store_of(tmp_path / "alike", spec, 10, lambda p: 0.5))
    assert "all trials are equal" in alike.summary
