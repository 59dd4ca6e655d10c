"""Successive halving by several objectives: non-dominated first, spread out, and the same after a restart."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from tests.tune.small_sweep import spec_of
from tune.search.early_stopping import make_scheduler, replay_curves
from tune.search.moasha import MultiObjectiveHalving, chosen, spread
from tune.search.ray_tune_internals import EPOCH, VALUES

BOTH = (
    ("{holdout/point_score: max}", "{holdout/point_score: max, cost/latency_ms: min}"),
    ("{name: asha, factor: 3}", "{name: moasha, factor: 3, first: 12}"),
)


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return spec_of(tmp_path, *BOTH)


def tell(scheduler, trial, epoch, values):
    result = {EPOCH: epoch} | ({VALUES: list(values)} if values else {})
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), result)


def curve(trial):
    """Best so far of an imagined trial of 45 epochs: the longer it takes, the better it is, give or take."""
    draw = random.Random(trial)
    latency = draw.uniform(1, 10)
    level, best = 0.3 + 0.05 * latency * draw.random(), 0.0
    found = []
    for epoch in range(45):
        if epoch % 3 == 2:
            best = max(best, level * (1 - 0.9**epoch) + draw.gauss(0, 0.02))
        found.append((epoch, (best, latency) if epoch > 5 else ()))
    return found


def brute_force_ranks(values):
    """The front of each row, by peeling one front after the other."""
    left, ranks, front = set(range(len(values))), {}, 0
    while left:
        best = {
            i for i in left if not any((values[j] >= values[i]).all() and (values[j] > values[i]).any() for j in left)
        }
        ranks |= dict.fromkeys(best, front)
        left, front = left - best, front + 1
    return [ranks[i] for i in range(len(values))]


def test_trials_of_better_fronts_are_chosen_first():
    values = np.random.default_rng(0).integers(0, 8, (60, 2)).astype(float)
    ranks = brute_force_ranks(values)
    for count in (1, 7, 20, 60):
        found = chosen(values, count)
        assert len(found) == count
        left_out = set(range(60)) - found
        assert not left_out or max(ranks[i] for i in found) <= min(ranks[i] for i in left_out)


def test_a_part_of_a_front_is_spread_and_begins_with_the_first_objective():
    front = np.array([[0.0, 10.0], [0.1, 9.9], [0.5, 5.0], [0.55, 4.0], [1.0, 0.0]])
    assert spread(front, 1).tolist() == [4]
    assert spread(front, 3).tolist() == [4, 0, 2]
    in_seconds = front * [1, 1e-3]
    assert spread(in_seconds, 3).tolist() == [4, 0, 2]  # whatever the units
    assert spread(front[:, :1], 2).tolist() == [4, 0]
    assert spread(np.array([[1.0, 2.0]] * 3), 2).tolist() == [0, 1]


def test_rungs_are_those_of_asha(spec, tmp_path):
    scheduler = make_scheduler(spec)
    assert isinstance(scheduler, MultiObjectiveHalving)
    assert list(scheduler.rungs) == [12, 36]
    one = make_scheduler(spec_of(tmp_path, (BOTH[1][0], "{name: asha, factor: 3, first: 12}")))
    assert sorted(epoch for rung in one.rungs for epoch in rung) == [12, 36]


def test_a_dominated_trial_is_stopped_and_one_that_is_best_at_anything_continues(spec):
    scheduler = make_scheduler(spec)
    known = {"0001": (0.6, 5.0), "0002": (0.5, 4.0), "0003": (0.4, 6.0), "0004": (0.3, 7.0), "0005": (0.2, 8.0)}
    for trial, values in known.items():
        scheduler.replay(trial, [(12, values)])
    assert tell(scheduler, "0006", 11, (0.1, 9.0)) == "CONTINUE"  # not at a rung
    assert tell(scheduler, "0006", 12, ()) == "CONTINUE"
    assert tell(scheduler, "0006", 12, (0.59, 5.5)) == "STOP"
    assert tell(scheduler, "0007", 12, (0.1, 1.0)) == "CONTINUE"  # the fastest
    assert tell(scheduler, "0008", 12, (0.9, 9.0)) == "CONTINUE"  # the best
    assert tell(scheduler, "0008", 12, (0.9, 9.0)) == "CONTINUE"  # told twice
    assert tell(scheduler, "0000", 12, (0.01, 99.0)) == "CONTINUE"  # the base is never stopped


def run(scheduler_of, cuts):
    """Trials side by side, four at a time; at some steps the scheduler is lost and made anew."""
    scheduler = scheduler_of()
    waiting, running, told, ended = [f"{number:04d}" for number in range(30)], [], {}, {}
    for step in range(1000):
        if step in cuts:
            scheduler = scheduler_of()
            replay_curves(scheduler, dict(sorted(told.items())))
        while waiting and len(running) < 4:
            running.append(waiting.pop(0))
            told[running[-1]] = []
        for trial in list(running):
            epoch, values = curve(trial)[len(told[trial])]
            told[trial].append((epoch, values))
            stop = tell(scheduler, trial, epoch, values) == "STOP"
            if stop or epoch == 44:
                ended[trial] = (epoch, stop)
                running.remove(trial)
        if not running:
            return ended, scheduler.rungs
    raise AssertionError("it does not end")


def test_a_scheduler_that_is_fed_decides_as_one_that_never_stopped(spec):
    unbroken, rungs = run(lambda: make_scheduler(spec), ())
    broken, rebuilt = run(lambda: make_scheduler(spec), (9, 40, 41, 77, 120))
    assert broken == unbroken
    assert rebuilt == rungs
    stopped = [epoch for epoch, stop in unbroken.values() if stop]
    assert len(stopped) > 12
    assert set(stopped) <= {12, 36}
    assert not unbroken["0000"][1]


def test_much_less_is_trained_and_those_that_finish_are_better_placed(spec):
    ended, _ = run(lambda: make_scheduler(spec), ())
    assert sum(epoch + 1 for epoch, _ in ended.values()) < 0.7 * 30 * 45
    names = sorted(set(ended) - {"0000"})
    values = np.array([curve(trial)[-1][1] for trial in names]) * [1, -1]
    ranks = dict(zip(names, brute_force_ranks(values), strict=True))
    finished = {trial for trial in names if not ended[trial][1]}
    assert 2 < len(finished) < 10
    assert np.mean([ranks[t] for t in finished]) < np.mean([ranks[t] for t in set(names) - finished])
