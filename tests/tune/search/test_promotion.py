"""A promotion trains the best configurations as they were found, in full; it ranks them by their mean over seeds."""

import math

import pytest

from semprior.errors import UserError
from semprior.io.storage import open_storage
from tests.tune.images import noisy_scores, scored_images
from tests.tune.made_up import made_up_sweep
from tune.cli.app import main
from tune.search.promotion import confidence_half_width, final, promotion, rank_promotion
from tune.search.search import Search
from tune.spec.constraints import parse_limit
from tune.spec.sweep_file import Runs
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import create_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return made_up_sweep(tmp_path_factory.mktemp("promoted"))


@pytest.fixture(scope="module")
def best(sweep):
    return ResultsStore(sweep.storage).rank(dict(sweep.spec.objective), limit=2)


def test_the_best_are_trained_in_full_without_search_or_early_stopping(sweep, best):
    spec = promotion(sweep.spec, best, 3, {"epochs": 90})
    assert (spec.scheduler.name, spec.seeds, spec.budget.trials, spec.search) == ("none", 3, 2, {})
    assert spec.base_config().seed == sweep.spec.base_config().seed + sweep.spec.seeds  # none of the search's
    assert promotion(sweep.spec, best, 3, {"seed": 7}).base_config().seed == 7
    search = Search(spec)
    asked = [search.ask(), search.ask()]
    assert search.ask() is None
    for suggestion, entry in zip(asked, best, strict=True):
        assert suggestion.parameters == entry.params
        assert suggestion.leaves == {**suggestion.leaves, **entry.params, "epochs": 90}


def test_a_promotion_of_folds_has_the_same_folds_and_other_seeds(sweep, best):
    folded = sweep.spec.model_copy(update={"runs": Runs(folds=5)})
    spec = promotion(folded, best, None, {})
    assert (spec.runs, spec.run_count, spec.base_config().seed) == (Runs(folds=5), 5, folded.base_config().seed + 5)
    with pytest.raises(UserError, match="--seeds: the runs of this sweep are its 5 folds; leave it out"):
        promotion(folded, best, 3, {})
    assert promotion(sweep.spec, best, None, {}).run_count == 3
    (first, *_) = rank_promotion(ResultsStore(sweep.storage).trials(), True, "holdout/point_score", {})
    last = final(folded, first)
    assert (last.run_count, last.holds_out, last.base["data.folds"]) == (1, False, 0)


def test_what_the_search_chose_cannot_be_set_again(sweep, best):
    with pytest.raises(UserError, match=r"--set clusters.count: is chosen by the search"):
        promotion(sweep.spec, best, 3, {"clusters.count": 9})
    with pytest.raises(UserError, match=r"unknown key 'epoch'; did you mean 'epochs'"):
        promotion(sweep.spec, best, 3, {"epoch": 9})


def test_a_promotion_is_ranked_by_means_over_seeds_with_a_confidence_interval(sweep, tmp_path):
    store = ResultsStore(tmp_path / "store")
    values = {0: (0.5, 0.6, 0.7), 1: (0.9, 0.8), 2: (0.1,), 3: (None, 0.95, None), 4: (None,)}
    for number, found in values.items():
        for run, value in enumerate(found):
            of = {"trial": f"{number:04d}.{run}", "configuration": number, "seed": run, "attempt": 1}
            if value is None:
                store.append([Record(kind="end", epoch=0, state="failed", **of)])
                continue
            metrics = {"holdout/point_score": value}
            store.append([Record(kind="report", epoch=0, metrics=metrics, values=(value,), best=True, **of)])
    images = {trial.trial: scored_images(noisy_scores(trial.values[0], 1)) for trial in store.trials() if trial.values}
    del images["0002.0"]
    ranked = rank_promotion(store.trials(), True, "holdout/point_score", images)
    assert ranked[0].from_first.value == 0
    assert ranked[3].probability is None  # it lacks runs, and those that it has may be the lucky ones
    assert ranked[1].from_first.value == pytest.approx(-0.3, abs=1e-4)  # the mean of two pairs
    assert (ranked[2].from_first, ranked[2].probability) == (None, None)
    bounded = rank_promotion(
        store.trials(), True, "holdout/point_score", images, [parse_limit("holdout/point_score", "<= 0.8")]
    )
    assert [standing.configuration for standing in bounded] == [0, 2, 1, 3]
    assert [standing.configuration for standing in ranked] == [1, 0, 2, 3]  # the last lacks runs
    assert [standing.missing for standing in ranked] == [0, 0, 0, 2]
    assert ranked[1].mean == pytest.approx(0.6)
    assert ranked[1].confidence_half_width == pytest.approx(
        4.302653 * 0.1 / math.sqrt(3)
    )  # Student's t, 2 degrees of freedom
    assert ranked[2].confidence_half_width is None
    assert confidence_half_width((0.9, 0.8)) == pytest.approx(12.7062 * math.sqrt(0.005) / math.sqrt(2), rel=1e-4)
    winner = final(sweep.spec, ranked[0])
    assert winner.base["data.holdout"] == 0.0
    assert (winner.seeds, winner.budget.trials) == (1, 1)
    paper = sweep.spec.model_copy(update={"base": {"preset": "paper", "data.holdout": 0.15}})
    assert final(paper, ranked[0]).base_config().data.holdout == 0.0


def test_faults_are_told_before_anything_runs(sweep, capsys):
    home = str(sweep.storage.local.parent)
    assert main(["promote", "small", "--storage", home, "--set", "scam.stages=[1]"]) == 2
    assert "--set scam.stages: is chosen by the search" in capsys.readouterr().err
    assert main(["promote", "nothing", "--storage", home]) == 2
    assert not (sweep.storage.local.parent / "small-promoted").exists()


def test_a_final_run_of_another_promotion_is_told_before_anything_runs(tmp_path, capsys, monkeypatch):
    sweep = made_up_sweep(tmp_path)
    home = sweep.storage.local.parent
    create_sweep(open_storage(home), "small-final", sweep.spec)
    monkeypatch.setattr("tune.cli.promote.check_data", lambda _: None)
    monkeypatch.setattr("tune.cli.promote.run", lambda *_: pytest.fail("it began"))
    arguments = ["promote", "small", "--storage", str(home), "--final"]
    assert main(arguments) == 2
    assert (
        "small-final: exists already and belongs to another promotion; choose another --id" in capsys.readouterr().err
    )
    assert not (home / "small-promoted").exists()
