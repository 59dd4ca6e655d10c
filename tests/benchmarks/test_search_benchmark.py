"""The benchmark of the search: real runs, a surrogate that behaves like them, and sweeps simulated on it."""

import dataclasses
import json
import math

import numpy as np
import pytest

from benchmarks import record
from benchmarks import search as benchmark
from benchmarks.record import RecordedRun, read_recording, runs_of
from benchmarks.simulated_sweep import evaluated_epochs
from benchmarks.surrogate import (
    HELD_OUT,
    Evaluations,
    Facts,
    Spread,
    Surrogate,
    curve,
    image_values,
    read_curves,
    read_facts,
)
from semprior.errors import UserError
from semprior.evaluation.image_sums import image_sums
from tests.tune.made_up import made_up_sweep
from tune.comparison.paired import Comparison
from tune.search.search import Search
from tune.spec.sweep_file import load_sweep

DIFFICULTY, BY_IMAGE, BY_RUN = 0.2, 0.1, 0.03


def made_up_runs(configurations=8, images=400, folds=5):
    """Runs whose values by image scatter as the constants above say."""
    rng = np.random.default_rng(0)
    difficulty, found = rng.normal(0, DIFFICULTY, images), []
    for number in range(configurations):
        own = 0.7 + number / 50 + difficulty + rng.normal(0, BY_IMAGE, images)
        for fold in range(folds):
            chosen = np.arange(fold, images, folds)
            values = own[chosen] + rng.normal(0, BY_RUN)
            evaluations = Evaluations((9,), tuple(f"{index:04d}" for index in chosen), values[None])
            scores = ((4, 0.1), (9, evaluations.scores[9]))
            found.append(RecordedRun(number, fold, fold, 10, {}, scores, 9, evaluations.images(9)))
    return found


@pytest.fixture(scope="module")
def spec():
    return load_sweep(benchmark.SWEEP, {})


@pytest.fixture(scope="module")
def facts():
    return Facts.of(read_curves(), made_up_runs())


def test_the_mean_of_the_values_of_images_is_the_score_and_scatters_like_it():
    rng = np.random.default_rng(0)
    joint, either = rng.uniform(50, 100, 60), rng.uniform(50, 100, 60)
    terms = {"common_area": joint * rng.uniform(0.6, 1, 60), "joint_area": joint}
    terms |= {"common_pixels": either * rng.uniform(0.8, 1, 60), "joint_pixels": either}
    images = image_sums([f"{index:02d}" for index in range(60)], terms)
    values, comparison = image_values(images), Comparison([{0: images}], "point_score")
    assert values.mean() == pytest.approx(comparison.value(0), rel=1e-6)
    assert values.std(ddof=1) / math.sqrt(60) == pytest.approx(comparison.error(0), rel=0.08)


def test_recorded_folds_say_what_images_and_runs_contribute():
    spread = Spread.of(made_up_runs())
    assert spread.difficulty.std() == pytest.approx(DIFFICULTY, rel=0.1)
    assert spread.by_image == pytest.approx(BY_IMAGE, rel=0.05)
    assert spread.by_run == pytest.approx(BY_RUN, rel=0.3)
    assert (spread.scale**2).mean() == pytest.approx(1)


def test_runs_that_found_nothing_and_single_configurations_say_nothing():
    runs = made_up_runs(3)
    blind = dataclasses.replace(runs[0].images, table=np.zeros_like(runs[0].images.table))
    spoilt = [dataclasses.replace(run, images=blind) if run.configuration == 2 else run for run in runs]
    assert Spread.of(spoilt).by_image == Spread.of(runs[:10]).by_image
    with pytest.raises(UserError, match="no two configurations"):
        Spread.of(runs[:5])


def test_the_surrogate_scatters_as_the_real_runs_do(spec, facts):
    surrogate = Surrogate(facts, benchmark.ranges_of(spec), 0)
    base = Search(spec).space.base_parameters()
    due = evaluated_epochs(spec.base_config())
    leaves = {"epochs": 45, "seed": 0, "data.folds": 0, "data.fold": 0}
    drawn = np.array([list(surrogate.run(base, leaves, due, noise).scores.values()) for noise in range(300)])
    chosen = surrogate.held_out(0, 0)
    level = surrogate.quality(base)
    level += (facts.spread.difficulty + surrogate.interaction(base))[chosen].mean()
    expected = [curve(level, facts.start, facts.pace, (epoch + 1) / 45) for epoch in due]
    late = slice(len(due) // 2, None)
    assert np.allclose(drawn.mean(axis=0)[late], expected[late], atol=0.02)
    by_image = (facts.run_image**2 + facts.evaluation**2) * (facts.spread.scale[chosen] ** 2).mean() / HELD_OUT
    end = slice(-4, None)  # before it, runs scatter by their pace too
    assert np.allclose(drawn.std(axis=0)[end], math.sqrt(facts.run_shift**2 + by_image), rtol=0.35)


def test_folds_hold_out_every_image_once_and_other_runs_the_same_few(spec, facts):
    surrogate = Surrogate(facts, benchmark.ranges_of(spec), 0)
    folds = [surrogate.held_out(5, fold) for fold in range(5)]
    assert sorted(np.concatenate(folds).tolist()) == list(range(400))
    assert len(surrogate.held_out(0, 0)) == HELD_OUT


def test_configurations_spread_as_far_as_the_method_gained(spec, facts):
    changed = {"budget": spec.budget.model_copy(update={"trials": 70})}
    levels = []
    for landscape in range(6):
        surrogate = Surrogate(facts, benchmark.ranges_of(spec), landscape)
        sampler = spec.sampler.model_copy(update={"name": "random", "seed": landscape})
        search = Search(spec.model_copy(update={**changed, "sampler": sampler}))
        own = [surrogate.quality(search.ask().parameters) for _ in range(70)]
        assert max(own) <= surrogate.best_level()
        levels += own
    assert 0.6 < np.std(levels) / (facts.method - facts.plain) < 1.3
    assert abs(np.mean(levels) - (facts.method + facts.plain) / 2) < 0.02


def test_early_stopping_saves_epochs_and_a_race_adds_runs(spec, facts, tmp_path):
    surrogate = Surrogate(facts, benchmark.ranges_of(spec), 1)
    sweeps = {}
    for label in ("random", "TPE + ASHA", "race"):
        sweeps[label] = benchmark.simulation(spec, benchmark.KINDS[label], 1, surrogate, 12, tmp_path / label)
        while sweeps[label].train():
            pass
        assert sweeps[label].recommended() in [run.suggestion.parameters for run in sweeps[label].runs]
    assert sweeps["random"].spent == 12 * 45
    assert sweeps["TPE + ASHA"].spent < sweeps["random"].spent
    race = sweeps["race"]
    assert {run.suggestion.number for run in race.runs if not run.run} == set(range(12))
    assert 1 < max(run.run for run in race.runs) < 5


def test_the_benchmark_prints_one_object_and_goes_on_where_it_was(spec, facts, monkeypatch, capsys, tmp_path):
    small = spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": 14})})
    monkeypatch.setattr(benchmark, "load_sweep", lambda *_: small)
    monkeypatch.setattr(benchmark, "read_facts", lambda: facts)
    monkeypatch.setattr(benchmark, "LIMIT", 1)
    kinds = ["--kinds", "random", "TPE + ASHA + promote", "race", "--out", str(tmp_path / "seeds.jsonl")]
    assert benchmark.main(["--seeds", "1", "--json", *kinds]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures["kinds"]) == {"random", "TPE + ASHA + promote", "race"}
    assert figures["kinds"]["random"]["of_random"] == 1
    assert figures["kinds"]["race"]["of_promoted"] > 0
    assert figures["budget"] == 14 * 45
    monkeypatch.setattr(benchmark, "measure", None)
    assert benchmark.main(["--seeds", "1", *kinds]) == 0
    assert "630 epochs each, 1 seeds" in capsys.readouterr().out


def test_a_sweep_is_recorded_with_the_images_of_its_completed_runs(tmp_path, capsys):
    sweep = made_up_sweep(tmp_path)
    out = tmp_path / "recorded.jsonl"
    assert record.main([sweep.storage.uri, "--out", str(out)]) == 0
    (run,) = read_recording(out)
    (expected,) = runs_of(sweep.storage.uri)
    assert (run.configuration, run.best, run.images.names) == (0, 4, expected.images.names)
    assert np.allclose(run.images.table, expected.images.table, atol=0.01)
    assert dict(run.scores)[4] == pytest.approx(0.5)
    sweep.storage.delete_folder("image-sums")
    with pytest.raises(UserError, match="no completed run with values image by image"):
        runs_of(sweep.storage.uri)


def test_without_a_recording_the_benchmark_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.surrogate.FOLDS", tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"python -m benchmarks\.record SWEEP"):
        read_facts()
