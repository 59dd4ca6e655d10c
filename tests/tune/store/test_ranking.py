"""Attempts and ranking: what a user sees, and the fast forms against plain ones on histories of all kinds."""

import dataclasses
import math
import statistics

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune.spec.constraints import parse_limit
from tune.store.ranking import fit_levels, pareto_fronts
from tune.store.records import Record, to_table, visible
from tune.store.results_store import ResultsStore
from tune.store.visible_records import find_visible_records

SCORE, ALARMS = "holdout/point_score", "holdout/fa"


@pytest.fixture
def store(tmp_path):
    return ResultsStore(tmp_path)


def trial(name, scores, cost=1.0, error=None, **fields):
    """Reports of a trial that was evaluated every epoch."""
    spread = {} if error is None else {f"{SCORE}_se": error}
    number, _, seed = name.partition(".")
    given = {"kind": "report", "trial": name, "configuration": int(number), "seed": int(seed or 0), "attempt": 1}
    return [
        Record(epoch=epoch, **(given | {"metrics": {SCORE: score} | spread, "device_s": cost} | fields))
        for epoch, score in enumerate(scores)
    ]


def end(name, state="completed"):
    number, _, seed = name.partition(".")
    return Record(
        kind="end", trial=name, configuration=int(number), seed=int(seed or 0), attempt=1, epoch=1, state=state
    )


def order(store, by="best", **objectives):
    return [entry.trial for entry in store.rank(objectives or {SCORE: "max"}, by)]


def test_ranked_by_best_last_or_robust(store):
    store.append(trial("0000", [0.1, 0.9, 0.2]) + trial("0001", [0.5, 0.6, 0.7]) + trial("0002", [0.1, 0.85, 0.8]))
    assert order(store) == ["0000", "0002", "0001"]
    assert order(store, "last") == ["0002", "0001", "0000"]
    assert order(store, "robust") == ["0001", "0002", "0000"]
    assert [e.trial for e in store.rank({SCORE: "max"}, "robust", last=2)] == ["0002", "0001", "0000"]
    assert store.rank({SCORE: "max"}, "robust")[0].values[0] == pytest.approx(0.6 - 0.1)
    assert [e.trial for e in store.rank({SCORE: "min"})] == ["0000", "0002", "0001"]


def test_configurations_beyond_a_constraint_come_last_and_are_named_with_their_values(store):
    limits = [parse_limit(ALARMS, "<= 20"), parse_limit("cost/latency_ms", "<= 5")]
    for name, score, alarms, latency in (
        *(("0000", 0.5, 10.0, 4.0), ("0001", 0.9, 30.0, 4.0), ("0002", 0.7, 20.0, 5.0), ("0003", 0.95, 30.0, 6.0)),
        *(("0004.0", 0.82, 10.0, 4.0), ("0004.1", 0.78, 32.0, 4.0), ("0005", 0.99, 1.0, None)),
    ):
        known = {} if latency is None else {"cost/latency_ms": latency}
        # the evaluation that counts is the best one; others do not matter
        store.append(trial(name, [score], metrics={SCORE: score, ALARMS: alarms} | known))
        store.append([Record(**vars(trial(name, [0.1, 0.1])[1]) | {"metrics": {SCORE: 0.1, ALARMS: 99.0}})])
    ranked = store.rank({SCORE: "max"}, limits=limits)
    assert [entry.trial for entry in ranked] == ["0002", "0000", "0005", "0003", "0001", "0004.0"]
    assert [set(entry.unmet) for entry in ranked[:3]] == [set(), set(), {"cost/latency_ms"}]
    assert ranked[3].unmet == {ALARMS: 30.0, "cost/latency_ms": 6.0}
    assert ranked[5].unmet == {ALARMS: 21.0}  # the mean over its seeds
    assert [entry.trial for entry in store.rank({SCORE: "max"}, limits=limits, limit=1, include=(0,))] == [
        "0002",
        "0000",
    ]
    assert [entry.unmet for entry in store.rank({SCORE: "max"})] == [{}] * 6


def test_of_several_objectives_the_front_is_that_of_the_configurations_within_the_constraints(store):
    for name, score, alarms in (("0000", 0.5, 10.0), ("0001", 0.9, 5.0), ("0002", 0.7, 20.0), ("0003", 0.4, 11.0)):
        store.append(trial(name, [score], metrics={SCORE: score, ALARMS: alarms}))
    ranked = store.rank({SCORE: "max", ALARMS: "min"}, limits=[parse_limit(SCORE, "<= 0.8")])
    assert [(entry.trial, entry.front) for entry in ranked] == [
        *(("0002", 1), ("0000", 1), ("0003", 2), ("0001", 3)),
    ]


def test_the_latest_of_equal_evaluations_is_the_best_as_in_training(store):
    store.append(trial("0000", [0.5, 0.7, 0.7, 0.1]))
    assert store.rank({SCORE: "max"})[0].epoch == 2


def test_of_equal_values_an_incomplete_configuration_comes_last(store):
    store.append([*trial("0000", [0.8], cost=1), end("0000", "stopped"), *trial("0001", [0.8], cost=9)])
    store.append([end("0001")])
    assert order(store) == ["0001", "0000"]


def test_a_configuration_is_complete_when_all_its_seeds_are(store):
    store.append([*trial("0000.0", [0.8], cost=9), end("0000.0"), *trial("0001.0", [0.8], cost=1), end("0001.0")])
    store.append(trial("0001.1", [math.nan]))
    assert [(entry.trial, entry.completed) for entry in store.rank({SCORE: "max"})] == [
        *(("0000.0", True), ("0001.0", False)),
    ]
    store.append([end("0001.1")])
    assert order(store) == ["0001.0", "0000.0"]


def test_the_value_decides_whatever_its_error_and_cost(store):
    store.append(trial("0000", [0.8], cost=9, error=0.5) + trial("0001", [0.79999], cost=1))
    assert order(store) == ["0000", "0001"]
    assert [entry.errors for entry in store.rank({SCORE: "max"})] == [(0.5,), (None,)]


def test_seeds_of_a_configuration_are_ranked_by_their_mean(store):
    store.append(trial("0000.0", [0.9], error=0.03) + trial("0000.1", [0.5], error=0.04))
    store.append(trial("0001.0", [0.75]) + trial("0001.1", [0.81]) + trial("0001.2", [0.78]))
    first, second = store.rank({SCORE: "max"})
    assert (first.configuration, first.trials, first.trial) == (1, ("0001.0", "0001.1", "0001.2"), "0001.1")
    assert first.values == (pytest.approx(0.78),)
    assert first.errors == (pytest.approx(0.03 / math.sqrt(3)),)
    assert (second.trial, second.values) == ("0000.0", (pytest.approx(0.7),))
    assert second.errors == (pytest.approx(math.sqrt(0.08 / 2 + (0.03**2 + 0.04**2) / 2)),)


def test_several_objectives_put_the_pareto_front_first(store):
    for number, (score, alarms) in enumerate([(0.5, 50), (0.9, 90), (0.7, 20), (0.6, 10), (0.8, 95), (0.55, 15)]):
        store.append(trial(f"{number:04d}", [score], metrics={SCORE: score, ALARMS: alarms}))
    entries = store.rank({SCORE: "max", ALARMS: "min"})
    assert [(e.front, e.trial) for e in entries] == [
        *((1, "0001"), (1, "0002"), (1, "0003")),
        *((2, "0004"), (2, "0005")),
        (3, "0000"),
    ]


def test_accuracy_against_latency_makes_a_front(store):
    cost = "cost/latency_ms"
    for number, (score, latency) in enumerate([(0.7, 30), (0.8, 90), (0.6, 60), (0.75, 45)]):
        # the first epoch has no evaluation, but the costs of the detector, as every epoch has
        unevaluated, evaluated = {"inner_loss": 1.0, cost: latency}, {SCORE: score, cost: latency}
        name = f"{number:04d}"
        first, second = trial(name, [0, 0])
        store.append([dataclasses.replace(first, metrics=unevaluated), dataclasses.replace(second, metrics=evaluated)])
    entries = store.rank({SCORE: "max", cost: "min"})
    assert [(e.front, e.trial) for e in entries] == [(1, "0001"), (1, "0003"), (1, "0000"), (2, "0002")]
    assert entries[0].values == (0.8, 90)
    assert all(entry.epoch == 1 for entry in entries)
    assert [e.trial for e in store.rank({cost: "min"})] == ["0000", "0003", "0002", "0001"]


def test_a_trial_without_an_evaluation_is_not_ranked(store):
    store.append(trial("0000", [0.5], metrics={"inner_loss": 1.0}) + trial("0001", [math.nan]) + trial("0002", [0.1]))
    assert order(store) == ["0002"]
    assert store.rank({"holdout/nothing": "max"}) == []


def test_params_and_state_are_those_of_the_best_trial(store):
    store.append(trial("0000.0", [0.5, 0.1], params={"a": 1}, checkpoint="c", sha256="s", best=True))
    end = {"trial": "0000.0", "configuration": 0, "seed": 0, "attempt": 1, "epoch": 2}
    store.append([Record(kind="end", state="diverged", reason="loss was nan", **end)])
    (entry,) = store.rank({SCORE: "max"})
    assert (entry.params, entry.state, entry.reason, entry.epochs) == ({"a": 1}, "diverged", "loss was nan", 2)
    assert entry.checkpoint == "c"


# --- against plain forms -------------------------------------------------------------------------------------------

ERROR = 0.137  # no difference of means of scores
SCORES = st.one_of(st.none(), st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]))


@st.composite
def histories(draw):
    """Records of a few trials, by attempts that overlap, restart earlier, repeat themselves and end."""
    records = []
    for number in range(draw(st.integers(1, 3))):
        for seed in range(draw(st.integers(1, 2))):
            for _ in range(draw(st.integers(0, 4))):
                first = draw(st.integers(0, 4))
                common = {
                    "trial": f"{number:04d}.{seed}",
                    "configuration": number,
                    "seed": seed,
                    "attempt": draw(st.integers(1, 3)),
                    "writer": draw(st.sampled_from(["a", "b"])),
                    "device_s": float(draw(st.integers(0, 3))),
                }
                for kind in ("retry", "start", "fault"):
                    if draw(st.booleans()):
                        records.append(Record(kind=kind, epoch=first, **common))
                for epoch in range(first, first + draw(st.integers(0, 4))):
                    score, alarms = draw(SCORES), draw(st.sampled_from([1.0, 2.0, 3.0]))
                    metrics = {} if score is None else {SCORE: score, ALARMS: alarms, f"{SCORE}_se": ERROR}
                    records.append(Record(kind="report", epoch=epoch, metrics=metrics, **common))
                if draw(st.booleans()):
                    state = draw(st.sampled_from(["completed", "stopped"]))
                    records.append(Record(kind="end", epoch=first, state=state, **common))
    times = draw(st.permutations(range(len(records))))
    return [Record(**(vars(record) | {"time": float(time)})) for record, time in zip(records, times, strict=True)]


def of_trials(records):
    found = {}
    for record in records:
        found.setdefault(record.trial, []).append(record)
    return {name: visible(found[name]) for name in sorted(found)}


@settings(max_examples=150, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_visible_records_equal_those_of_the_plain_implementation(records, random):
    """In any order, and with doubles."""
    shuffled = records + random.choices(records, k=3) if records else []
    random.shuffle(shuffled)
    table = to_table(shuffled)
    columns = dict(zip(table.column_names, table.columns, strict=True))
    found = find_visible_records(columns, lambda positions: np.array([shuffled[row].time for row in positions]))
    plain = of_trials(records)
    assert found.trials == list(plain)
    for index, history in enumerate(plain.values()):
        reports = [shuffled[row] for row in found.reports[found.report_trials == index]]
        assert reports == [record for record in history if record.kind == "report"]
        ends = [record for record in history if record.kind == "end"]
        assert [shuffled[row] for row in found.ends[index : index + 1] if row >= 0] == ends


@settings(max_examples=150, deadline=None)
@given(histories())
def test_each_epoch_is_visible_once_and_higher_attempts_hide_lower_ones(records):
    for history in of_trials(records).values():
        reports = [record for record in history if record.kind == "report"]
        epochs = [record.epoch for record in reports]
        assert epochs == sorted(set(epochs))
        assert [r.attempt for r in reports] == sorted(r.attempt for r in reports)
        for start in (record for record in history if record.kind in ("start", "retry")):
            assert not any(r.attempt < start.attempt and r.epoch >= start.epoch for r in reports)
        assert len([record for record in history if record.kind == "end"]) <= 1


def plain_rank(records, objectives, by, last):
    """`tune.store.ranking` as its docstring says it, one configuration after the other."""
    names = list(objectives)
    sign = {name: 1 if way == "max" else -1 for name, way in objectives.items()}
    found, cut = {}, set()
    for history in of_trials(records).values():
        if not any(r.kind == "end" and r.state == "completed" for r in history):
            cut.add(history[0].configuration)
        evaluations = [r for r in history if r.kind == "report" and math.isfinite(r.metrics.get(names[0], math.nan))]
        if len(evaluations) < (2 if by == "robust" else 1):
            continue
        if by == "best":
            evaluations = [max(evaluations, key=lambda r: (sign[names[0]] * r.metrics[names[0]], r.epoch))]
        evaluations = evaluations[-last if by == "robust" else -1 :]
        if len(evaluations) < 2 and by == "robust":
            continue
        values = []
        for name in names:
            recent = [r.metrics[name] for r in evaluations]
            spread = statistics.stdev(recent) if by == "robust" else 0
            values.append(statistics.mean(recent) - sign[name] * spread)
        own = sorted((r for r in records if r.trial == history[0].trial), key=lambda r: r.time)
        distinct = {(r.attempt, r.writer, r.epoch, r.kind): r for r in own}
        cost = sum(record.device_s for record in distinct.values())
        found.setdefault(history[0].configuration, []).append((values, cost))
    places = []
    for configuration, runs in found.items():
        mean = [statistics.mean(values[i] for values, _ in runs) for i in range(len(names))]
        spread = statistics.variance(values[0] for values, _ in runs) if len(runs) > 1 else 0.0
        error = math.sqrt(spread / len(runs) + ERROR**2)
        places.append((configuration, mean, error, statistics.mean(cost for _, cost in runs)))
    ranked = []
    while places:
        front = [p for p in places if not any(dominates(q[1], p[1], sign, names) for q in places)]
        places = [p for p in places if p not in front]
        ranked += sorted(front, key=lambda p: (-sign[names[0]] * p[1][0], p[0] in cut, p[3]))
    return ranked


def dominates(one, other, sign, names):
    pairs = [(sign[name] * a, sign[name] * b) for name, a, b in zip(names, one, other, strict=True)]
    if len(names) == 1:
        return False
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=histories(),
    objectives=st.sampled_from([{SCORE: "max"}, {SCORE: "min"}, {SCORE: "max", ALARMS: "min"}]),
    by=st.sampled_from(["best", "last", "robust"]),
    last=st.integers(2, 4),
)
def test_the_ranking_equals_that_of_the_plain_implementation(tmp_path_factory, records, objectives, by, last):
    store = ResultsStore(tmp_path_factory.mktemp("ranking"))
    store.append(records)
    ranked = store.rank(objectives, by, last=last)
    plain = plain_rank(records, objectives, by, last)
    assert sorted(entry.configuration for entry in ranked) == sorted(place[0] for place in plain)
    by_number = {place[0]: place for place in plain}
    for entry, place in zip(ranked, plain, strict=True):
        own = by_number[entry.configuration]
        assert entry.values == pytest.approx(own[1])
        assert entry.errors[0] == pytest.approx(own[2])
        assert entry.device_s == pytest.approx(own[3])
        same = (entry.device_s, *entry.values) == pytest.approx((place[3], *place[1]))  # but for rounding
        assert entry.configuration == place[0] or same


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=12))
def test_each_front_is_the_pareto_front_of_the_rest(points):
    values = np.array(points, float)
    fronts = pareto_fronts(values)
    left = list(range(len(values)))
    number = 0
    while left:
        best = [
            i for i in left if not any((values[j] >= values[i]).all() and (values[j] > values[i]).any() for j in left)
        ]
        assert sorted(np.flatnonzero(fronts == number)) == best
        left = [i for i in left if i not in best]
        number += 1


def test_in_a_race_the_order_leaves_out_how_hard_the_runs_are(store):
    """Run 1 is easy and run 2 hard: the mean of the best, which alone has the hard one, is the lowest."""
    easy, hard = 0.2, -0.3
    for number, level in enumerate((0.5, 0.6, 0.4)):
        runs = [level, level + easy, *([level + hard] if number == 1 else [])]
        for index, score in enumerate(runs):
            store.append([*trial(f"{number:04d}.{index}", [score]), end(f"{number:04d}.{index}")])
    store.append([*trial("0003.0", [0.58]), end("0003.0")])
    assert [e.configuration for e in store.rank({SCORE: "max"}, minimum=2)] == [1, 0, 2, 3]
    assert [e.configuration for e in store.rank({SCORE: "max"})] == [0, 3, 1, 2]


def test_in_a_race_a_run_that_lasts_does_not_count_beside_enough_completed_ones(store):
    for name, score in (("0000.0", 0.6), ("0000.1", 0.6), ("0001.0", 0.5), ("0001.1", 0.5)):
        store.append([*trial(name, [score]), end(name)])
    store.append(trial("0000.2", [0.1]))
    store.append([*trial("0001.2", [0.1]), end("0001.2", "diverged")])
    first, second = store.rank({SCORE: "max"}, minimum=2)
    assert (first.configuration, first.values[0], first.trials) == (0, 0.6, ("0000.0", "0000.1"))
    assert second.trials == ("0001.0", "0001.1", "0001.2")


def test_levels_are_those_of_an_additive_model():
    rng = np.random.default_rng(0)
    levels, effects = rng.normal(0, 1, 40), rng.normal(0, 1, 5)
    configurations, runs = (axis.ravel() for axis in np.indices((40, 5)))
    kept = (runs == 0) | (rng.random(200) < 0.6)
    configurations, runs = configurations[kept], runs[kept]
    noise = rng.normal(0, 0.1, len(runs))
    found = fit_levels(configurations, runs, levels[configurations] + effects[runs] + noise)
    assert np.abs(found.levels - levels - effects.mean()).max() < 0.3
    assert found.variance == pytest.approx(0.01, rel=0.4)
    assert fit_levels(np.array([0, 1]), np.array([0, 0]), np.array([0.3, 0.5])).variance is None
