"""The importance of the dimensions of a sweep."""

import random

from tests.tune.small_sweep import spec_of
from tune.search.importance import importance
from tune.search.search import Search
from tune.store.records import Record
from tune.store.results_store import ResultsStore


def store_of(folder, spec, count, value_of):
    """Imagined trials by chance, most of them stopped early."""
    store, search = ResultsStore(folder), Search(spec)
    records = []
    for _ in range(count):
        number, parameters, leaves = search.ask()
        epochs = 20 if number % 8 == 0 else 12
        common = {"trial": f"{number:04d}", "configuration": number, "seed": 0, "attempt": 1}
        common |= {"config": leaves, "params": parameters}
        values = [value_of(parameters) * (epoch + 1) / 20 for epoch in range(epochs)]
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


def test_too_few_trials_and_equal_ones_are_said_in_a_line(tmp_path):
    spec = spec_of(tmp_path, ("name: tpe", "name: random"), ("trials: 12", "trials: 40"))
    few = told(spec, store_of(tmp_path / "few", spec, 7, lambda p: p["clusters.count"]))
    assert few.summary == "importance of the dimensions: unknown until 8 trials are evaluated; there are 7"
    assert few.shares == {}
    alike = told(spec, store_of(tmp_path / "alike", spec, 10, lambda p: 0.5))
    assert "all trials are equal" in alike.summary
