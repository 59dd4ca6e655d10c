"""A sweep ends when its configurations stop improving, whichever driver counts them."""

import pytest

from tests.tune.images import noisy_scores, scored_images
from tests.tune.small_sweep import spec_of
from tune.search.patience import Outcome, improves, without_improvement
from tune.search.search import Search
from tune.store.records import Record
from tune.store.results_store import ResultsStore

SCORE, ERROR = "holdout/point_score", "holdout/point_score_se"


def counted(values, error=0.02, since=0):
    leader, count = without_improvement(
        [Outcome(n, value, error) for n, value in enumerate(values)], "point_score", since
    )
    return leader and leader.number, count


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), (None, 0)),
        ((0.5,), (0, 0)),
        ((0.5, 0.48, 0.53, 0.6, 0.61, 0.58), (3, 2)),  # .61 is better by less than its error
        ((0.5, 0.51, 0.515, 0.521), (3, 0)),  # small gains add up
        ((None, 0.1, 0.09), (1, 1)),  # diverged before its first evaluation
        ((0.5, None, None), (0, 2)),
    ],
)
def test_configurations_in_a_row_without_an_improvement_are_counted(values, expected):
    assert counted(values) == expected


def test_only_configurations_from_a_number_on_are_counted_and_those_before_may_lead():
    assert counted((0.6, 0.5, 0.5, 0.5), since=2) == (0, 2)


def test_without_a_standard_error_any_gain_is_an_improvement():
    assert improves(Outcome(0, 0.5), Outcome(1, 0.5001), "point_score")
    assert not improves(Outcome(0, 0.5), Outcome(1, 0.5), "point_score")


def test_where_the_images_are_known_the_error_is_that_of_the_difference():
    """All find the same images hard: the leader's own error hides a gain that its images show."""
    leader, better = (Outcome(n, v, 0.02, {0: scored_images(noisy_scores(v, n))}) for n, v in ((0, 0.5), (1, 0.51)))
    assert improves(leader, better, "point_score")
    assert not improves(better, leader, "point_score")
    by_luck = Outcome(2, 0.501, 0.02, {0: scored_images(noisy_scores(0.501, 2))})
    assert not improves(leader, by_luck, "point_score")


def test_one_that_had_a_hard_fold_alone_is_compared_on_that_fold():
    """Its value is below the leader's, which is the mean of a hard fold and an easy one."""
    parts = [[f"{fold}-{index}" for index in range(24)] for fold in range(2)]
    folds = {fold: scored_images(noisy_scores(value, fold), parts[fold]) for fold, value in enumerate((0.3, 0.6))}
    leader = Outcome(0, 0.45, 0.02, folds)
    better, worse = (
        Outcome(n, value, 0.02, {0: scored_images(noisy_scores(value, n), parts[0])})
        for n, value in ((1, 0.4), (2, 0.2))
    )
    assert improves(leader, better, "point_score")
    assert not improves(leader, worse, "point_score")


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return spec_of(tmp_path, ("name: tpe", "name: random"), ("trials: 12", "trials: 12, patience: 3"))


def run(search, store, value, state="completed", error=0.02):
    """Run the next configuration: its best evaluation is in the middle, and its last is worse."""
    asked = search.ask()
    if asked is None:
        return None
    common = {"trial": f"{asked.number:04d}", "configuration": asked.number, "seed": 0, "attempt": 1}
    common |= {"config": asked.leaves, "params": asked.parameters, "values": () if value is None else (value,)}
    metrics = {} if value is None else {SCORE: value, ERROR: error}
    worse = {} if value is None else {SCORE: value - 0.3, ERROR: 9.0}
    store.append(
        [
            Record(kind="report", epoch=0, metrics=metrics, best=value is not None, **common),
            Record(kind="report", epoch=1, metrics=worse, **common),
            Record(kind="end", epoch=2, state=state, **common),
        ]
    )
    search.tell(asked.number, state, common["values"], metrics=metrics)
    return asked.number


def rebuilt(spec, store, since=0):
    search = Search(spec, since=since)
    search.rebuild(store.trials(), store.curves())
    return search


def test_a_search_without_improvement_ends_and_ends_likewise_when_it_is_rebuilt(spec, tmp_path):
    search, store = Search(spec), ResultsStore(tmp_path / "store")
    for value, state in ((0.5, "completed"), (0.6, "stopped"), (0.61, "completed"), (None, "failed"), (0.4, "stopped")):
        run(search, store, value, state)
        assert search.over() == rebuilt(spec, store).over() == ""
    run(search, store, 0.55)
    why = "its patience is at an end: 3 configurations in a row did not improve on 0001 by more than the standard error"
    assert search.over() == rebuilt(spec, store).over() == why
    assert search.ask() is None
    assert rebuilt(spec, store).ask() is None


def test_a_trial_that_ends_later_may_show_that_the_search_goes_on(spec, tmp_path):
    search, store = Search(spec), ResultsStore(tmp_path / "store")
    run(search, store, 0.5)
    late = search.ask()
    for _ in range(3):
        run(search, store, 0.5)
    assert "3 configurations in a row" in search.over()
    search.tell(late.number, "completed", (0.9,), metrics={ERROR: 0.02})
    assert "did not improve on 0001" in search.over()  # three after it did not
    other = Search(spec)
    first = [other.ask().number for _ in range(5)]
    for number in first[:4]:
        other.tell(number, "completed", (0.5,))
    assert other.over()
    other.tell(first[4], "completed", (0.6,))
    assert other.over() == ""


def test_a_configuration_beyond_the_constraints_is_no_improvement(tmp_path, spec):
    bounds = ("sampler: ", "constraints: {holdout/point_fa: '<= 20'}\nsampler: ")
    search = Search(spec_of(tmp_path, ("trials: 12", "trials: 12, patience: 2"), bounds))
    for value, alarms in ((0.9, 30.0), (0.5, 10.0), (0.8, 30.0), (0.5, 10.0)):
        search.tell(search.ask().number, "completed", (value,), metrics={ERROR: 0.02, "holdout/point_fa": alarms})
    assert "2 configurations in a row did not improve on 0001" in search.over()


def test_a_raised_budget_renews_the_patience(spec, tmp_path):
    search, store = Search(spec), ResultsStore(tmp_path / "store")
    for _ in range(4):
        run(search, store, 0.5)
    assert search.over()
    assert rebuilt(spec, store, since=4).over() == ""
    search.extend(spec, since=4)
    assert [run(search, store, 0.5) for _ in range(4)] == [4, 5, 6, None]
    assert rebuilt(spec, store, since=4).over() == search.over() != ""


def test_a_raised_budget_of_trials_is_spent_next(spec, tmp_path):
    search, store = Search(spec), ResultsStore(tmp_path / "store")
    for number in range(12):
        run(search, store, 0.1 * number)
    assert search.over() == "its budget of 12 configurations is spent"
    search.extend(spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": 13})}), since=12)
    assert (run(search, store, 3.0), run(search, store, 4.0)) == (12, None)
