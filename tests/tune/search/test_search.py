"""The search: the base first, Optuna knowing what it is told, and the same after a restart."""

import math
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from tests.tune.images import noisy_scores, scored_images
from tests.tune.small_sweep import spec_of
from tune.search.dashboard_journal import DashboardJournal
from tune.search.history import shrunk
from tune.search.search import Search, make_sampler
from tune.store.records import Record, run_index, trial_ids
from tune.store.results_store import ResultsStore

LISTED = (("{int: [1, 128], log: true}", "{values: [1, 64]}"), ("{float: [0.05, 1.0]", "{float: [0.1, 0.3], step: 0.1"))
SAMPLERS = ("tpe", "random", "gp", "nsga2", "grid")


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def spec_for(folder, sampler="tpe", *changes):
    special = {
        "grid": (*LISTED, ("{float: [1, 8]", "{int: [1, 8]")),
        "gp": (("{subset: all}", "{subset: [5]}"), ("startup: 4", "startup: 3")),  # small, as it takes its time
    }
    return spec_of(folder, ("name: tpe", f"name: {sampler}"), *special.get(sampler, ()), *changes)


def goodness(parameters):
    """What an imagined trial of a configuration reaches."""
    stages = {"none": [], "all": [1, 2, 3, 4, 5]}.get(str(parameters["scam.stages"]), parameters["scam.stages"])
    near = abs(math.log(parameters["clusters.count"] / 16)) / 4
    return 0.5 - 0.2 * near + (0.3 if 5 in stages else 0) - 0.05 * len(stages)


def records_of(number, parameters, leaves, state, epochs, trial=None, seed=0):
    """What the store is told of an imagined trial that reaches its value along a line."""
    common = {"trial": trial or trial_ids(number, 1)[0], "configuration": number, "seed": seed, "attempt": 1}
    common |= {"config": leaves, "params": parameters}
    value = goodness(parameters)
    reports = [
        Record(kind="report", epoch=e, values=(value * (e + 1) / 10,), best=True, **common) for e in range(epochs)
    ]
    end = [Record(kind="end", epoch=epochs, state=state, **common)] if state != "running" else []
    return [Record(kind="start", epoch=0, **common), *reports, *end]


def run_one(search, store=None, state=None):
    """Ask for a configuration and run it: a bad one is stopped early."""
    asked = search.ask()
    if asked is None:
        return None
    value = goodness(asked.parameters)
    state = state or ("completed" if value > 0.5 else "stopped")
    records = records_of(*asked[:3], state, 10 if state == "completed" else 4)
    for record in records:
        if record.kind == "report":
            search.report(asked.number, record.epoch, record.values[0])
    if state != "running":
        search.tell(asked.number, state, records[-2].values)
    if store is not None:
        store.append(records)
    return asked


def test_configuration_0_is_the_base_itself(tmp_path):
    spec = spec_for(tmp_path)
    asked = Search(spec).ask()
    assert asked.number == 0
    assert asked.leaves == Search(spec).space.base
    assert asked.leaves["clusters.count"] == 64


def test_configurations_to_start_with_follow_the_base_and_the_search_follows_them(tmp_path):
    listed = "[{scam.scale: 3.0e-1}, {scam.stages: none}, {clusters.count: 64}, {scam.stages: [5], scam.scale: 1}]"
    spec, store = spec_for(tmp_path, "tpe", ("objective: ", f"start: {listed}\nobjective: ")), ResultsStore("store")
    search = Search(spec)
    asked = [run_one(search, store if number != 1 else None) for number in range(5)]
    base = search.space.base_parameters()
    assert asked[0].parameters == base
    assert asked[1].parameters == {**base, "scam.scale": 0.3}
    assert asked[2].parameters == {"clusters.count": 64, "scam.stages": "none"}
    assert asked[3].parameters == {**base, "scam.stages": [5], "scam.scale": 1.0}  # the third is the base itself
    assert asked[4].parameters not in [one.parameters for one in asked[:4]]
    again = Search(spec)
    again.rebuild(store.trials(), store.curves())
    assert again.ask() == asked[1]  # it had never begun


def test_listed_configurations_are_run_as_they_are(tmp_path):
    text = "data: d\nobjective: {holdout/iou: max}\nbudget: {trials: 2}\nbase: {preset: quick}\n"
    listed = "configurations: [{scam.scale: 0.3, scam.stages: [5]}, {clusters.count: 7}]\n"
    search = Search(spec_of(tmp_path, text=text + listed))
    first, second = search.ask(), search.ask()
    assert (first.parameters, second.parameters) == ({"scam.scale": 0.3, "scam.stages": [5]}, {"clusters.count": 7})
    assert first.leaves["scam.stages"] == [5]
    assert second.leaves == {**search.space.base, "clusters.count": 7}
    search.tell(0, "completed", (0.5,))
    assert search.ask() is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_is_rebuilt_asks_what_one_that_never_stopped_asks(tmp_path, sampler):
    count = 6 if sampler == "gp" else 14
    spec = spec_for(tmp_path, sampler, ("trials: 12", "trials: 40"))
    whole, cut, store = Search(spec), Search(spec), ResultsStore(tmp_path / "store")
    for step in range(count):
        if step in (4, 10):
            cut = Search(spec)
            cut.rebuild(store.trials(), store.curves())
        state = "completed" if sampler == "gp" else None  # it learns from complete ones only
        state = "running" if step in (2, 5) else state  # those still run when the next are asked for
        assert run_one(whole, state=state) == run_one(cut, store, state)


def test_a_search_for_the_best_finds_better_than_chance(tmp_path):
    best = {}
    for sampler in ("tpe", "random"):
        search = Search(spec_for(tmp_path, sampler, ("trials: 12", "trials: 40")))
        best[sampler] = sum(sorted(goodness(run_one(search).parameters) for _ in range(40))[-10:])
    assert best["tpe"] > best["random"]


def test_optuna_is_told_stopped_trials_as_pruned_by_their_own_epochs(tmp_path):
    search = Search(spec_for(tmp_path))
    for state in ("completed", "stopped", "diverged", "failed", "running"):
        run_one(search, state=state)
    study = search.history.study(optuna.samplers.TPESampler())
    states = [trial.state for trial in study.trials]
    expected = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)
    assert states == list(expected)
    assert list(study.trials[1].intermediate_values) == [0, 1, 2, 3]
    assert study.trials[1].value == max(study.trials[1].intermediate_values.values())
    assert study.best_trial.number == 0


def test_a_trial_that_gave_no_value_is_failed_whatever_ended_it(tmp_path):
    search = Search(spec_for(tmp_path))
    for state in ("completed", "stopped", "diverged", "failed"):
        asked = search.ask()
        search.report(asked.number, 0, None)
        search.report(asked.number, 1, float("nan"))
        search.tell(asked.number, state, (float("nan"),) if state == "diverged" else ())
    states = {trial.state for trial in search.history.study(optuna.samplers.TPESampler()).trials}
    assert states == {TrialState.FAIL}


def test_the_budget_counts_configurations_and_failed_ones_among_them(tmp_path):
    search = Search(spec_for(tmp_path, "random", ("trials: 12", "trials: 3")))
    for _ in range(3):
        run_one(search, state="failed")
    assert search.ask() is None


def test_a_configuration_that_never_began_is_asked_for_again(tmp_path):
    spec, store = spec_for(tmp_path), ResultsStore(tmp_path / "store")
    search = Search(spec)
    asked = [search.ask() for _ in range(4)]
    for one in (*asked[:2], asked[3]):
        store.append(records_of(*one[:3], "completed", 10))
    again = Search(spec)
    again.rebuild(store.trials(), store.curves())
    assert [again.ask().number for _ in range(2)] == [2, 4]


def test_a_configuration_with_several_seeds_counts_once_by_its_mean(tmp_path):
    search = Search(spec_for(tmp_path, "tpe", ("seeds: 1", "seeds: 3")))
    number = search.ask().number
    for run, value in enumerate((0.3, 0.5, 0.9)):
        search.report(number, 5, value, run)
        assert search.history.frozen(number).state == TrialState.RUNNING
        search.tell(number, "failed" if run == 2 else "completed", (value,), run)
    told = search.history.frozen(number)
    assert (told.state, told.value, told.intermediate_values) == (TrialState.COMPLETE, 0.4, {5: 0.4})
    assert trial_ids(7, 3) == ["0007.0", "0007.1", "0007.2"]
    assert [run_index(trial) for trial in ("0007", "0007.2")] == [0, 2]


@pytest.mark.parametrize("sampler", ["grid", "tpe", "random"])
def test_every_configuration_of_a_finite_space_is_tried_once(tmp_path, sampler):
    one_stage = ("{subset: all}", "{subset: [5]}")
    fewer = ("{int: [1, 8]", "{int: [1, 3]")
    spec = spec_for(tmp_path, "grid", one_stage, fewer, ("trials: 12", "trials: 99"))
    spec = spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"name": sampler})})
    search, found = Search(spec), []
    while asked := run_one(search):
        found.append(asked.leaves)
    assert len(found) == 1 + 2 * (1 + 3 * 3)  # the base's placement, all stages, is none of the grid's
    assert len({repr(leaves) for leaves in found}) == len(found)


def test_several_objectives_give_a_front(tmp_path):
    objectives = ("{holdout/point_score: max}", "{holdout/iou: max, holdout/fa: min}")
    unstopped = ("scheduler: {name: asha, factor: 3}\n", "")
    for sampler in ("tpe", "nsga2", "random"):
        search = Search(spec_for(tmp_path, sampler, objectives, unstopped))
        for _ in range(10):
            number, parameters, *_ = search.ask()
            values = (goodness(parameters), float(parameters["clusters.count"]))
            search.report(number, 3, values[0])
            search.tell(number, "stopped" if number == 4 else "completed", values)
        study = search.history.study(make_sampler(search.spec.sampler, 0))
        if sampler != "random":
            assert study.directions[1] == optuna.study.StudyDirection.MINIMIZE
            assert 0 < len(study.best_trials) < 10


def bounded(folder, sampler, trials=40):
    bounds = ("sampler: ", "constraints: {cost/latency_ms: '<= 4'}\nsampler: ")
    return spec_for(folder, sampler, bounds, ("trials: 12", f"trials: {trials}"))


def latency(parameters):
    return {"cost/latency_ms": 1.0 + math.log2(parameters["clusters.count"])}


def run_bounded(search, store=None):
    asked = search.ask()
    records = records_of(*asked[:3], "completed", 10)
    records[-2] = Record(**vars(records[-2]) | {"metrics": latency(asked.parameters)})
    for record in records[1:-1]:
        search.report(asked.number, record.epoch, record.values[0])
    search.tell(asked.number, "completed", records[-2].values, metrics=latency(asked.parameters) | {"other": 1.0})
    if store is not None:
        store.append(records)
    return asked


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_samplers_are_told_the_constraints_and_a_rebuilt_search_asks_the_same(tmp_path, sampler):
    spec, store = bounded(tmp_path, sampler), ResultsStore(tmp_path / "store")
    whole, cut = Search(spec), Search(spec)
    for step in range(6 if sampler == "gp" else 12):
        if step == 5:
            cut = Search(spec)
            cut.rebuild(store.trials(), store.curves())
        assert run_bounded(whole) == run_bounded(cut, store)
    told = whole.history.frozen(0)
    assert told.constraints == {"cost/latency_ms": pytest.approx(0.75)}  # 7 ms for 64 clusters, 4 are allowed
    assert [cut.history.frozen(number).constraints for number in range(6)] == [
        whole.history.frozen(number).constraints for number in range(6)
    ]


def test_a_search_with_constraints_looks_where_they_are_met(tmp_path):
    met = {}
    for sampler in ("tpe", "random"):
        search = Search(bounded(tmp_path, sampler))
        last = [run_bounded(search).parameters for _ in range(40)][-20:]
        met[sampler] = sum(latency(parameters)["cost/latency_ms"] <= 4 for parameters in last)
    assert met["tpe"] > met["random"]


def test_children_come_from_the_best_of_the_generation_before(tmp_path):
    search = Search(spec_for(tmp_path, "nsga2", ("trials: 12", "trials: 60")))
    values = [goodness(run_one(search, state="completed").parameters) for _ in range(40)]
    assert sum(values[20:]) > sum(values[:20])


def test_the_study_can_be_opened_while_the_search_goes_on(tmp_path):
    path = tmp_path / "study.journal"
    spec, store = spec_for(tmp_path), ResultsStore(tmp_path / "store")
    search = Search(spec, DashboardJournal(path, "small"))

    def opened():
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
        return optuna.load_study(study_name="small", storage=storage).trials

    for state in ("completed", "stopped", "running"):
        run_one(search, store, state)
    before = opened()
    assert [trial.state.name for trial in before] == ["COMPLETE", "PRUNED", "RUNNING"]
    assert before[0].params == search.history.frozen(0).params
    assert before[2].intermediate_values == search.history.frozen(2).intermediate_values
    again = Search(spec, DashboardJournal(path, "small"))
    again.rebuild(store.trials(), store.curves())
    assert [(t.state, t.params, t.intermediate_values) for t in opened()] == [
        (t.state, t.params, t.intermediate_values) for t in before
    ]
    again.tell(2, "completed", (0.5,))
    run_one(again)
    after = opened()
    assert [trial.state.name for trial in after] == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED"]
    assert after[2].value == 0.5


def test_a_study_that_cannot_be_written_does_not_stop_the_search(tmp_path, caplog):
    search = Search(spec_for(tmp_path), DashboardJournal(tmp_path / "nowhere" / "study.journal", "small"))
    assert run_one(search).number == 0
    assert run_one(search).number == 1
    assert caplog.text.count("not written any more") == 1


def test_a_value_keeps_of_its_distance_from_the_mean_what_is_not_noise():
    levels = np.random.default_rng(0).normal(0.5, 0.03, 4000)
    noise = np.where(np.arange(4000) % 2, 0.01, 0.06)
    values = levels + np.random.default_rng(1).normal(0, noise)
    found = np.array(shrunk(list(zip(values, noise, strict=True))))
    assert np.mean((found - levels) ** 2) < 0.5 * np.mean((values - levels) ** 2)
    expected = 0.5 + (values - 0.5) * 0.03**2 / (0.03**2 + noise**2)  # the best estimate there is
    assert np.abs(found - expected).max() < 0.02
    assert shrunk([(0.5, 0.1)]) == [0.5]
    assert shrunk([(0.4, 0.0), (0.6, 0.0)]) == [0.4, 0.6]
    assert shrunk([(0.4, 1.0), (0.6, 1.0)]) == [0.5, 0.5]  # nothing but noise


def test_a_sampler_that_shrinks_does_not_follow_a_lucky_value(tmp_path):
    """What is told is the same, but how much the images of the lucky one disagree; hard images mislead nobody."""
    spec = spec_for(tmp_path, "tpe", ("startup: 4", "startup: 4, shrink: true"))
    studies = []
    for noise in (0.01, 1.0):
        search = Search(spec)
        assert search.uses_images
        for index in range(8):
            asked = search.ask()
            lucky = index == 3
            search.report(asked.number, 9, value := 0.9 if lucky else 0.5 + index / 100)
            scores = noisy_scores(value, index, common=0.2, noise=noise if lucky else 0.01)
            search.tell(asked.number, "completed", (value,), images=scored_images(scores))
        study = search.history.study(make_sampler(spec.sampler, 0), "point_score")
        studies.append([trial.value for trial in study.trials])
    sure, unsure = studies
    assert max(sure) == sure[3] == pytest.approx(0.9, abs=0.01)
    assert max(sure[:3]) - min(sure[:3]) > 0.015
    assert unsure[3] < 0.75


def test_without_images_a_value_is_kept(tmp_path):
    search = Search(spec_for(tmp_path, "tpe", ("startup: 4", "startup: 4, shrink: true")))
    for value in (0.5, 0.6, 0.9):
        asked = search.ask()
        search.report(asked.number, 9, value)
        search.tell(asked.number, "completed", (value,))
    study = search.history.study(make_sampler(search.spec.sampler, 0), "point_score")
    assert [trial.value for trial in study.trials] == pytest.approx([0.5, 0.6, 0.9])


def test_a_share_of_the_configurations_is_drawn_at_random(tmp_path, monkeypatch):
    spec = spec_for(tmp_path, "tpe", ("startup: 4", "startup: 2, random: 0.5"), ("trials: 12", "trials: 40"))
    made = []
    monkeypatch.setattr(
        "tune.search.search.make_sampler", lambda chosen, seed: made.append(seed) or make_sampler(chosen, seed)
    )
    search = Search(spec)
    asked = [run_one(search, state="completed").parameters for _ in range(40)]
    assert 10 < len(made) < 30
    again = Search(spec)
    assert [run_one(again, state="completed").parameters for _ in range(40)] == asked


def test_a_race_begins_runs_one_by_one_and_a_rebuilt_one_goes_on_alike(tmp_path):
    """Configurations that have ended stay so for the sampler and the journal while further runs of them last."""
    changes = ("name: asha, factor: 3", "name: race, factor: 3"), ("seeds: 1", "seeds: 3"), ("trials: 12", "trials: 6")
    spec, path = spec_for(tmp_path, "tpe", *changes), tmp_path / "study.journal"
    search, store, images, begun = Search(spec), ResultsStore(tmp_path / "store"), {}, []
    while (asked := search.ask()) is not None:
        (run,) = asked.runs
        trial = trial_ids(asked.number, 3)[run]
        again = Search(spec)
        again.rebuild(store.trials(), store.curves(), images)
        assert again.ask() == asked
        begun.append(trial)
        if run:
            DashboardJournal(path, "small").rewrite(search.history)
            journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
            trials = optuna.load_study(study_name="small", storage=journal).trials
            assert {one.state for one in trials} == {TrialState.COMPLETE}
        scores = noisy_scores(0.5 + asked.number / 20, 10 * asked.number + run)
        images[trial] = scored_images(scores)
        value = (float(scores.mean()),)
        records = records_of(*asked[:3], "completed", 3, trial, run)
        store.append(replace(record, values=value) for record in records)
        search.report(asked.number, 2, value[0], run)
        search.tell(asked.number, "completed", value, run, images=images[trial])
        states = {one.state for one in search.history.study(make_sampler(spec.sampler, 0)).trials}
        assert states <= {TrialState.COMPLETE}
    assert begun[:5] == ["0000.0", "0001.0", "0002.0", "0003.0", "0003.1"]
    assert {"0005.0", "0005.1", "0005.2"} <= set(begun)
    assert not {"0000.1", "0001.1"} & set(begun)
    assert "configurations is spent" in search.over()


def test_the_group_of_a_trial_is_the_value_that_it_trains_with(tmp_path):
    """Also where the search did not choose one, as the leaf's condition does not hold, and in the base."""
    within = "name: asha, factor: 3", "name: asha, factor: 3, within: clusters.count"
    clusters = "{int: [1, 128], log: true}", "{values: [64, 8], when: {scam.stages: nonempty}}"
    search, found = Search(spec_for(tmp_path, "random", within, clusters)), {}
    for _ in range(12):
        asked = search.ask()
        found.setdefault(search.group_of(f"{asked.number:04d}"), set()).add(asked.leaves["clusters.count"])
    assert sorted(map(sorted, found.values())) == [[8], [64]]
    ungrouped = Search(spec_for(tmp_path))
    assert ungrouped.group_of(f"{ungrouped.ask().number:04d}") == ""


def test_a_run_that_the_end_of_the_hours_cut_off_says_nothing_in_a_race(tmp_path):
    """The best configuration stays in the lead, and gets the runs that it lacks once the hours are raised."""
    changes = ("name: asha, factor: 3", "name: race, factor: 3"), ("seeds: 1", "seeds: 3"), ("trials: 12", "trials: 4")
    spec = spec_for(tmp_path, "random", *changes)
    search, records, images = Search(spec), [], {}

    def run(cut_off=False):
        asked = search.ask()
        (index,) = asked.runs
        trial = trial_ids(asked.number, 3)[index]
        scores = noisy_scores(0.2 if cut_off else 0.5 + (asked.number == 1) / 5, 10 * asked.number + index)
        value, images[trial] = (float(scores.mean()),), scored_images(scores)
        ended = [replace(one, values=value) for one in records_of(*asked[:3], "completed", 3, trial, index)]
        if cut_off:
            ended[-1] = replace(ended[-1], state="stopped", reason="the sweep's hours are over")
        records.extend(ended)
        search.report(asked.number, 2, value[0], index)
        search.tell(asked.number, ended[-1].state, value, index, images=images[trial], cut_off=cut_off)
        return asked.number, index

    begun = [run() for _ in range(4)]
    assert begun == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert run(cut_off=True) == (1, 1)
    store = ResultsStore(tmp_path / "store")
    store.append(records)
    again = Search(spec)
    again.rebuild(store.trials(), store.curves(), images)
    assert again.ask() == (asked := search.ask())
    assert (asked.number, asked.runs) == (1, (2,))
    search.tell(1, "completed", (0.7,), 2, images=images["0001.0"])
    assert search.ask() is None  # its three runs have begun


def test_what_does_not_meet_the_constraints_gets_no_further_run(tmp_path):
    changes = ("name: asha, factor: 3", "name: race, factor: 3"), ("seeds: 1", "seeds: 2"), ("trials: 12", "trials: 4")
    objective = "objective: {holdout/point_score: max}"
    bound = objective, objective + '\nconstraints: {holdout/point_fa: "<= 20"}'
    search, begun = Search(spec_for(tmp_path, "random", *changes, bound)), []
    while (asked := search.ask()) is not None:
        (run,) = asked.runs
        begun.append((asked.number, run))
        score = 0.9 if asked.number == 1 else 0.5
        metrics = {"holdout/point_fa": 50.0 if asked.number == 1 else 10.0}
        search.tell(asked.number, "completed", (score,), run, metrics)
    assert (1, 1) not in begun
    assert {(0, 1), (2, 1), (3, 1)} <= set(begun)


def test_a_sampler_is_told_values_of_a_race_without_the_effects_of_its_folds(tmp_path):
    """The second run is harder by .2; the leader, which alone has it, is told as if all had it."""
    changes = ("name: asha, factor: 3", "name: race, factor: 3"), ("seeds: 1", "seeds: 2"), ("trials: 12", "trials: 9")
    spec = spec_for(tmp_path, "tpe", *changes)
    search, levels = Search(spec), [0.5, 0.6, 0.7, 0.8, 0.65]
    ended = set()
    while len(search.history.configurations) < len(levels):
        asked = search.ask()
        (run,) = asked.runs
        score = levels[asked.number] - 0.2 * run
        search.report(asked.number, 9, score, run)
        search.tell(asked.number, "completed", (score,), run, images=scored_images(np.full(8, score)))
        ended.add((asked.number, run))
    assert {run for number, run in ended if number == 3} == {0, 1}
    told = [trial.value for trial in search.history.study(make_sampler(spec.sampler, 0)).trials[:5]]
    count = len(told)
    assert [value - told[0] for value in told] == pytest.approx([level - 0.5 for level in levels[:count]], abs=1e-9)


def test_a_gaussian_process_learns_from_stopped_runs_and_keeps_the_dimensions_that_some_do_not_have(tmp_path):
    search = Search(spec_for(tmp_path, "random", ("{subset: all}", "{subset: [5]}")))  # it asks faster
    for number in range(6):
        asked = search.ask()
        assert asked.number == number
        for epoch in (4, 9):
            search.report(number, epoch, 0.3 + number / 100 + (0.2 if epoch == 9 else 0.0))
            if number == 5 and epoch == 4:
                break
        last = search.history.configurations[number].runs[0].curve
        search.tell(number, "stopped" if number == 5 else "completed", (last[max(last)],))
    study = search.history.study(sampler := make_sampler(spec_for(tmp_path, "gp").sampler, 0))
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert study.trials[5].value == pytest.approx(0.35 + 0.2)  # what the others gained after its last epoch
    dimensions = set(sampler.infer_relative_search_space(study, study.trials[0]))
    assert {"clusters.count", "scam.stages[5]", "scam.scale"} <= dimensions
    stages = {str(one.parameters["scam.stages"]) for one in search.history.configurations.values()}
    assert "none" in stages
