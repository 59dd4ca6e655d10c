"""The benchmark of the search: real curves, a surrogate that behaves like them, and sweeps simulated on it."""

import json

import numpy as np
import pytest

from benchmarks import search as benchmark
from benchmarks.surrogate import Facts, Surrogate, curve, read_recorded
from tune.search.search import Search
from tune.spec.sweep_file import load_sweep


@pytest.fixture(scope="module")
def spec():
    return load_sweep(benchmark.SWEEP, {})


@pytest.fixture(scope="module")
def facts():
    return Facts.of(read_recorded())


def test_the_surrogate_scatters_as_the_real_trials_do(spec, facts):
    surrogate = Surrogate(facts, benchmark.ranges_of(spec), 0)
    base = Search(spec).space.base_parameters()
    due = benchmark.evaluations(spec.base_config())
    drawn = np.array([list(surrogate.trial(base, 45, due, seed).values()) for seed in range(300)])
    expected = [curve(surrogate.quality(base), facts.start, facts.pace, (epoch + 1) / 45) for epoch in due]
    late = slice(len(due) // 2, None)
    assert np.allclose(drawn.mean(axis=0)[late], expected[late], atol=0.02)
    end = slice(-4, None)  # before it, trials scatter by their pace too
    assert np.allclose(drawn.std(axis=0)[end], np.hypot(facts.seed_level, facts.noise), rtol=0.35)


def test_configurations_spread_as_far_as_the_method_gained(spec, facts):
    changed = {"budget": spec.budget.model_copy(update={"trials": 70})}
    levels = []
    for landscape in range(6):
        surrogate = Surrogate(facts, benchmark.ranges_of(spec), landscape)
        sampler = spec.sampler.model_copy(update={"name": "random", "seed": landscape})
        search = Search(spec.model_copy(update={**changed, "sampler": sampler}))
        levels += [surrogate.quality(search.ask().parameters) for _ in range(70)]
    assert 0.6 < np.std(levels) / (facts.method - facts.plain) < 1.3
    assert abs(np.mean(levels) - (facts.method + facts.plain) / 2) < 0.02


def test_early_stopping_saves_epochs_and_the_best_never_falls(spec, facts):
    surrogate = Surrogate(facts, benchmark.ranges_of(spec), 1)
    spent = {}
    for variant in ("random", "random + ASHA"):
        sweep = benchmark.simulation(spec, variant, 1, surrogate, 12)
        best = list(sweep.run())
        assert best == sorted(best)
        assert len(best) == sweep.spent
        spent[variant] = sweep.spent
    assert spent["random"] == 12 * 45
    assert spent["random + ASHA"] < spent["random"]


def test_the_benchmark_prints_one_object(spec, monkeypatch, capsys):
    small = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": 5})})
    monkeypatch.setattr(benchmark, "load_sweep", lambda *_: small)
    assert benchmark.main(["--seeds", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures["variants"]) == set(benchmark.VARIANTS)
    assert figures["variants"]["random"]["of_random"] == 1
    assert figures["budget_epochs"] == 5 * 45
