"""Real sweeps: trials run, are recorded, stop on request and resume, and free all resources."""

import json
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from ray.train import WorkerGroupError

from semprior.config.schema import flatten
from semprior.errors import SettingError, StorageError, UserError
from tests.tiny import SPLITS
from tests.tune import breaking
from tests.tune.listening import listening
from tests.tune.real_sweep import STOPPING, new_sweep, ray_cluster, results
from tests.tune.widened import Widened
from tune.monitor.heartbeat import Heartbeat
from tune.session.attempt_registry import AttemptOverError, attempt_registry
from tune.session.attempt_spec import AttemptSpec
from tune.session.session import SweepState, run_sweep
from tune.session.trainable import PLAN, Attempts, TrialOver, TrialPlan, TrialTrainable
from tune.session.tune_search import TuneSearch
from tune.store.checkpoints import SupersededError
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import extend_sweep, with_extensions

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(cache):
    with ray_cluster(2) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


def remaining_resources():
    """Placement groups that are not removed, and actors that are alive."""
    import ray
    from ray._private.state import actors

    groups = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
    return groups + [actor for actor in actors().values() if actor["State"] not in ("DEAD",)]


@pytest.mark.slow
def test_a_sweep_runs_its_trials_and_records_every_epoch_once(cluster, folder, cache):
    vision = ("scam.stages=[1]", "vfm.name=test_vit", "vfm.weights=random")
    sweep = new_sweep(folder, "plain", trials=2, base=vision)
    assert run_sweep(sweep.spec, sweep.storage.uri, 1)
    curves, trials = results(sweep)
    assert list(trials) == ["0000", "0001"]
    assert all(state == "completed" for state, _, _ in trials.values())
    assert all([epoch for epoch, *_ in curve] == [0, 1, 2] for curve in curves.values())
    assert trials["0000"][2]["optim.rate"] == 5e-3  # the base itself
    for trial in ResultsStore(sweep.storage).trials():
        assert trial.checkpoint and sweep.storage.exists(f"{trial.checkpoint}/manifest.json")
        assert sweep.storage.exists(f"logs/{trial.trial}.log")
        assert sweep.storage.exists(f"tensorboard/{trial.trial}/1")
    # One pass of the vision model over the images, for all trials together: an entry an image, and one for black.
    (index,) = cache.glob("*/index.jsonl")
    assert len(index.read_text().splitlines()) == SPLITS["train"] + SPLITS["val"] + 1
    computed = [f"({count} computed now)" for count in (SPLITS["train"] + SPLITS["val"], 0)]
    for trial, told in zip(trials, computed, strict=True):
        assert told in sweep.storage.read(f"logs/{trial}.log").decode()
    assert not remaining_resources()


@pytest.mark.slow
def test_early_stops_free_all_resources_and_trial_processes_take_no_slots(cluster, folder):
    """Two slots, more trials than slots, most of them stopped, and no dashboard that Ray Train could ask."""
    sweep = new_sweep(folder, "asha", trials=4, epochs=6, concurrent="auto", **STOPPING)
    assert run_sweep(sweep.spec, sweep.storage.uri, 1)
    trials = ResultsStore(sweep.storage).trials()
    assert [trial.trial for trial in trials] == [f"{number:04d}" for number in range(4)]
    stopped = [trial for trial in trials if trial.state == "stopped"]
    assert len(stopped) >= 2
    assert {(trial.reason, trial.epochs) for trial in stopped} == {("stopped by asha at epoch 4", 5)}
    assert {trial.epochs for trial in trials if trial.state == "completed"} == {6}
    records = ResultsStore(sweep.storage).records()
    started, ended = ({t: r.time for t, told in records.items() for r in told if r.kind == k} for k in ("start", "end"))
    assert started["0001"] < ended["0000"]  # two at a time
    assert not remaining_resources()


@pytest.mark.slow
def test_a_diverging_trial_keeps_its_best_and_a_stopped_sweep_resumes(cluster, folder):
    grid = {"search": {"optim.rate": {"values": [5e-3, 1000]}}, "sampler": {"name": "grid"}}
    sweep = new_sweep(folder, "cut", trials=2, epochs=4, base=("optim.weight_decay=100",), **grid)
    store = ResultsStore(sweep.storage)
    assert not run_sweep(sweep.spec, sweep.storage.uri, 1, stop=lambda: len(store.curve("0000")) > 1)
    (cut,) = store.trials()
    assert (cut.state, cut.attempt) == ("running", 1)
    newest = store.curve("0000")[-1].checkpoint
    (Path(sweep.storage.path(newest)) / "arrays.npz").write_bytes(b"damaged")

    assert run_sweep(sweep.spec, sweep.storage.uri, 2)
    whole, diverged = store.trials()
    assert (whole.state, whole.epochs, whole.attempt) == ("completed", 4, 2)
    again = next(r for r in store.records()["0000"] if r.kind == "start" and r.attempt == 2)
    assert again.epoch == cut.epochs - 1 and "arrays.npz" in again.reason
    assert (diverged.state, diverged.attempt) == ("diverged", 1)
    assert "not finite" in diverged.reason or "the loss is" in diverged.reason
    assert not remaining_resources()


@contextmanager
def heard():
    """Within the context, the addresses on which workers of trials listen are collected in the set that it gives."""
    from ray._private.state import actors

    found, over = set(), threading.Event()

    def look():
        while not over.wait(0.2):
            workers = [actor["Pid"] for actor in actors().values() if actor["ActorClassName"] == "RayTrainWorker"]
            found.update(address for process in workers for address, _ in listening(process))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join(60)


@pytest.mark.slow
def test_two_workers_train_a_trial_and_one_without_memory_is_retried_once(cluster, folder):
    vision = ("scam.stages=[1]", "vfm.name=test_resnet", "vfm.weights=random", "vfm.width=8")
    grid = {"search": {"vfm.width": {"values": [8, 16]}}, "sampler": {"name": "grid"}}
    both = {"workers": 2, "cpus": 2}
    sweep = new_sweep(folder, "workers", trials=2, epochs=2, base=vision, resources=both, **grid)
    with heard() as addresses:
        assert run_sweep(sweep.spec, sweep.storage.uri, 1, trainable=Widened)
    if sys.platform == "linux":
        assert addresses == {"127.0.0.1"}
    store = ResultsStore(sweep.storage)
    trained, large = store.trials()
    assert (trained.state, trained.epochs, trained.attempt) == ("completed", 2, 1)
    assert [record.epoch for record in store.curve("0000")] == [0, 1]  # of two workers one records
    assert trained.device_s == pytest.approx(2 * trained.wall_s)
    assert "worker 1 of 2" in sweep.storage.read("logs/0000.log").decode()
    assert (large.state, large.epochs, large.params) == ("failed", 0, {"vfm.width": 16})
    assert large.reason.startswith("out of memory: ")
    assert large.reason.endswith(" (after 2 attempts)")  # though two retries were allowed
    assert not remaining_resources()


@pytest.mark.slow
def test_an_exception_of_a_worker_ends_the_sweep_with_the_line_of_code(cluster, folder):
    vision = ("scam.stages=[1]", "vfm.name=test_resnet", "vfm.weights=random", "vfm.width=32")
    sweep = new_sweep(folder, "raises", trials=3, base=vision)
    place = r"semprior/\S+\.py:\d+, \S+; torch/\S+\.py:\d+, \w+"
    with pytest.raises(
        UserError, match=rf"^RuntimeError: .* \({place}\), twice in trial 0000, before an epoch .*0000.log$"
    ):
        run_sweep(sweep.spec, sweep.storage.uri, 1, trainable=Widened)
    (trial,) = ResultsStore(sweep.storage).trials()
    assert (trial.state, trial.attempt, trial.epochs) == ("running", 2, 0)
    log = sweep.storage.read("logs/0000.log").decode()
    assert log.count("Traceback") == 2
    assert "semprior/models/scam.py" in log
    assert not remaining_resources()


@pytest.mark.slow
def test_a_sweep_with_seeds_resumes_and_ends_when_its_hours_are_over(cluster, folder, monkeypatch):
    limits = {"seeds": 2, "budget": {"trials": 4, "hours": 1}, "concurrent": 2}
    sweep = new_sweep(folder, "seeds", trials=4, epochs=4, **limits)
    store, uri = ResultsStore(sweep.storage), sweep.storage.uri
    first = ["0000.0", "0000.1"]
    assert not run_sweep(sweep.spec, uri, 1, stop=lambda: any(store.curve(trial) for trial in first))
    cut = {trial.trial: trial.epochs for trial in store.trials() if trial.state == "running"}
    assert set(cut) <= set(first)
    assert cut

    def clock():  # the hours are over once a trial of the next configuration has an epoch
        return time.monotonic() + (7200 if store.curve("0001.0") else 0)

    monkeypatch.setattr("tune.session.session.time", SimpleNamespace(monotonic=clock))
    assert run_sweep(sweep.spec, uri, 2)
    trials = {trial.trial: trial for trial in store.trials()}
    for trial in first:
        assert (trials[trial].state, trials[trial].epochs) == ("completed", 4)
        starts = [record.epoch for record in store.history(trial) if record.kind == "start"]
        assert starts == ([0, cut[trial]] if trial in cut else [0])  # went on where it was, or was not begun again
        assert [record.epoch for record in store.curve(trial)] == list(range(4))
    assert [trials[trial].seed for trial in first] == [1, 2]
    late = trials["0001.0"]  # finished its epoch
    assert (late.state, late.reason, late.epochs) == ("stopped", "the sweep's hours are over", 1)
    assert late.checkpoint and sweep.storage.exists(f"{late.checkpoint}/manifest.json")
    assert set(trials) <= {*first, "0001.0", "0001.1"}  # of the configurations left in the budget none was begun
    assert all(trial.state != "running" for trial in trials.values())
    (base,) = (entry for entry in store.rank(dict(sweep.spec.objective)) if entry.configuration == 0)
    assert base.trials == tuple(first)
    assert not remaining_resources()


@pytest.mark.slow
def test_a_budget_is_raised_while_the_sweep_runs_and_again_when_it_is_done(cluster, folder, monkeypatch):
    monkeypatch.setattr("tune.session.session.INTERVAL", 0.0)
    sweep = new_sweep(folder, "extended", trials=1, epochs=8)
    store, uri = ResultsStore(sweep.storage), sweep.storage.uri
    breaking.write_breaks(sweep.spec.data)

    def extend_once():
        if store.curve("0000") and not with_extensions(sweep).extensions:
            extend_sweep(sweep, 1, 0.0, begun=1, generation=1)
        return False

    why = run_sweep(sweep.spec, uri, 1, stop=extend_once, trainable=breaking.Breaking)
    assert why == "its budget of 2 configurations is spent"
    assert {trial.trial: trial.state for trial in store.trials()} == dict.fromkeys(("0000", "0001"), "completed")
    assert run_sweep(sweep.spec, uri, 2, trainable=breaking.Breaking) == why  # as the driver who knows the old budget
    extend_sweep(sweep, 1, 0.0, begun=2, generation=2)
    assert run_sweep(sweep.spec, uri, 3, trainable=breaking.Breaking) == "its budget of 3 configurations is spent"
    assert [trial.state for trial in store.trials()] == ["completed"] * 3
    assert not remaining_resources()


class TwoObjectives(breaking.Breaking):
    """Trials whose second objective is their rate, the lower the better; the score of trial 0001 is the best."""

    @staticmethod
    def make_workers(spec, folder, on_report):
        return TwoValued(spec, on_report)


class TwoValued(breaking.BreakingClock):
    def call(self, name, *arguments):
        done = super().call(name, *arguments)
        if name == "begin":
            score = {"0000": 0.5, "0001": 0.9}.get(self.spec.trial, 0.1)
            self._epochs.scores = dict.fromkeys(range(6), score)
            append, rate = self._epochs._append, self.spec.config["optim.rate"]
            costed = {"holdout/point_score": score, "holdout/point_size": rate}

            def append_both(kind, epoch, metrics=None):
                self._epochs.best = [score, rate] if kind == "report" else []
                append(kind, epoch, costed if metrics else None)

            self._epochs._append = append_both
        return done


@pytest.mark.slow
def test_several_objectives_stop_trials_early_and_a_resumed_sweep_stops_alike(cluster, folder):
    keys = {
        "search": {"optim.rate": {"float": [1e-3, 1e-2], "log": True}},
        "objective": {"holdout/point_score": "max", "holdout/point_size": "min"},
        "scheduler": {"name": "moasha", "factor": 3, "first": 4},
        "sampler": {"name": "random", "seed": 3},
    }
    found = []
    for name, cut in (("front", False), ("front-cut", True)):
        sweep = new_sweep(folder, name, trials=7, epochs=6, **keys)
        breaking.write_breaks(sweep.spec.data)
        store, uri = ResultsStore(sweep.storage), sweep.storage.uri
        if cut:
            assert not run_sweep(sweep.spec, uri, 1, lambda store=store: bool(store.curve("0003")), TwoObjectives)
        assert run_sweep(sweep.spec, uri, 2, trainable=TwoObjectives)
        found.append({trial.trial: (trial.state, trial.epochs, trial.reason) for trial in store.trials()})
    assert found[0] == found[1]
    stopped = [trial for trial, (_, _, reason) in found[0].items() if reason == "stopped by moasha at epoch 4"]
    assert 2 <= len(stopped) <= 5
    assert not {"0000", "0001"} & set(stopped)
    assert not remaining_resources()


@pytest.mark.slow
def test_the_hours_are_raised_while_the_sweep_runs(cluster, folder, monkeypatch):
    sweep = new_sweep(folder, "longer", trials=2, epochs=4, budget={"trials": 2, "hours": 1})
    store, uri = ResultsStore(sweep.storage), sweep.storage.uri
    breaking.write_breaks(sweep.spec.data)
    monkeypatch.setattr("tune.session.session.INTERVAL", 0.0)

    def clock():  # an hour is over once the first trial has an epoch
        return time.monotonic() + (5400 if store.curve("0000") else 0)

    def extend_first():
        if not with_extensions(sweep).extensions:
            extend_sweep(sweep, 0, 1.0, begun=0, generation=1)
        return False

    monkeypatch.setattr("tune.session.session.time", SimpleNamespace(monotonic=clock))
    assert run_sweep(sweep.spec, uri, 1, stop=extend_first, trainable=breaking.Breaking)
    assert {trial.trial: trial.state for trial in store.trials()} == dict.fromkeys(("0000", "0001"), "completed")


def test_a_sweep_with_folds_resumes_and_each_run_holds_out_its_fold(cluster, tmp_path):
    sweep = new_sweep(tmp_path, "folds", trials=2, epochs=3, runs={"folds": 3}, concurrent=2)
    breaking.write_breaks(tmp_path / "data", seconds=0.05)
    store, uri = ResultsStore(sweep.storage), sweep.storage.uri
    assert not run_sweep(sweep.spec, uri, 1, stop=lambda: bool(store.curve("0000.2")), trainable=breaking.Breaking)
    assert len(store.trials()) < 6
    assert run_sweep(sweep.spec, uri, 2, trainable=breaking.Breaking)
    trials = {trial.trial: trial for trial in store.trials()}
    assert list(trials) == [f"000{number}.{fold}" for number in range(2) for fold in range(3)]
    for name, trial in trials.items():
        fold = int(name[-1])
        assert (trial.state, [record.epoch for record in store.curve(name)]) == ("completed", [0, 1, 2])
        assert (trial.config["data.folds"], trial.config["data.fold"]) == (3, fold)
        assert trial.seed == trial.config["seed"] == sweep.spec.base_config().seed + fold
    assert trials["0001.0"].params == trials["0001.2"].params != trials["0000.0"].params
    assert [len(entry.trials) for entry in store.rank(dict(sweep.spec.objective))] == [3, 3]
    assert not remaining_resources()


def test_the_hours_are_those_of_the_drivers_and_at_least_those_of_the_trials(folder):
    sweep = new_sweep(folder, "hours", trials=2, budget={"trials": 2, "hours": 2})
    store = ResultsStore(sweep.storage)
    report = {"kind": "report", "trial": "0000", "configuration": 0, "seed": 1, "attempt": 1, "epoch": 0}
    store.append([Record(**report, config=flatten(sweep.spec.base_config()), wall_s=5400.0)])
    assert SweepState(sweep.spec, store, sweep.storage.uri, 2).hours_left(2) == pytest.approx(2 - 0.75)
    beat = Heartbeat(1, "stopped", 1e9, 0.0, "elsewhere", "", 7, active=3600.0)  # its clock jumped by 30 years
    sweep.storage.put("heartbeat/0001.json", json.dumps(asdict(beat)).encode())
    assert SweepState(sweep.spec, store, sweep.storage.uri, 2).hours_left(2) == pytest.approx(2 - 1)


def test_a_trial_that_fits_nowhere_is_refused_with_the_numbers(cluster, folder):
    sweep = new_sweep(folder, "large", trials=1, resources={"gpus": 2})
    with pytest.raises(UserError, match="a trial takes 1 CPUs and 2 GPUs, but there is one node, with 2 CPUs and 0"):
        run_sweep(sweep.spec, sweep.storage.uri, 1)


class Breaking:
    """Workers that fail at their start, without a record."""

    def __init__(self, error):
        self.error = error

    def fit(self):
        raise self.error

    def abort(self):
        """They have ended already."""


@pytest.fixture
def registry(cluster):
    with attempt_registry("a driver") as made:
        yield made


@pytest.fixture
def plan(registry, folder):
    """Makes the plan of a trial, with two retries."""

    def make(name):
        spec = AttemptSpec(
            uri=str(folder / name),
            registry=registry,
            data="none",
            trial="0000",
            configuration=0,
            config={"seed": 0},
            params={"vfm.weights": "hub"},
            objectives=("holdout/point_score",),
        )
        return TrialPlan(spec, previous_attempts=0, last_epoch=-1, retries=2, folder=str(folder))

    return make


@pytest.fixture
def attempts(plan, request):
    """Runs the attempts of a trial whose workers fail with errors, in this order and then with the last one.

    Returns the result, the number of attempts and the trials in the store.
    """

    def run(name, *errors, where="fit"):
        made = []

        def make_workers(spec, _folder, _on_report):
            made.append(spec.attempt)
            error = errors[min(len(made), len(errors)) - 1]
            if where == "make_workers":
                raise error
            return Breaking(error)

        running = Attempts(plan(name), make_workers)
        request.addfinalizer(running.stop)
        return running.next(), len(made), ResultsStore(running.plan.spec.uri).trials()

    return run


class Waiting:
    """Workers that wait for an epoch which is never permitted."""

    def __init__(self, spec, waits):
        self.spec, self.waits = spec, waits

    def fit(self):
        self.waits.set()
        self.spec.registry.wait(self.spec.name, 99)

    def abort(self):
        """They are released when their attempt is over."""


def test_stopping_a_trial_releases_workers_that_wait_for_permission(registry, plan):
    waits = threading.Event()
    running = Attempts(plan("waiting"), lambda spec, *_: Waiting(spec, waits))
    threading.Thread(target=running.next, daemon=True).start()
    assert waits.wait(60)
    stopping = threading.Thread(target=running.stop, daemon=True)
    stopping.start()
    stopping.join(60)
    assert not stopping.is_alive()
    assert ResultsStore(running.plan.spec.uri).trials() == []


def test_a_process_that_ray_tune_makes_and_does_not_step_leaves_the_trial_alone(plan):
    told = plan("made twice")
    store = ResultsStore(told.spec.uri)
    begun = {"kind": "start", "trial": "0000", "configuration": 0, "seed": 0, "attempt": 1, "epoch": 0}
    store.append([Record(**begun, config={}, params={})])  # by the process that is stepped
    unused = TrialTrainable({PLAN: replace(told, retries=0)})
    unused.stop()
    assert [record.kind for record in store.history("0000")] == ["start"]


def test_an_attempt_that_the_registry_lost_does_not_count_as_a_failure(attempts):
    over = [AttemptOverError("attempt 0000/1 is over")] * 4
    result, made, (trial,) = attempts("lost", *over, WorkerGroupError("", {0: RayActorError()}))
    assert (result, made) == (TrialOver(), 4 + 3)
    assert (trial.state, trial.attempt) == ("failed", 7)


def test_a_trial_fails_when_its_retries_are_used_up(attempts):
    result, made, (trial,) = attempts("dead", WorkerGroupError("", {0: RayActorError()}))
    assert (result, made) == (TrialOver(), 3)
    assert (trial.state, trial.epochs) == ("failed", 0)
    assert trial.reason.startswith("a worker died: ")
    assert trial.reason.endswith(" (after 3 attempts)")


def test_a_recurring_exception_ends_the_sweep_and_not_the_trial(attempts, folder):
    result, made, (trial,) = attempts("broken", RuntimeError("no library of that name"))
    assert (made, trial.state) == (2, "running")
    assert result.interruption.startswith("RuntimeError: no library of that name (")
    assert result.interruption.endswith(
        f", twice in trial 0000, before an epoch was trained; log: {folder}/broken/logs/0000.log"
    )
    log = (folder / "broken" / "logs" / "0000.log").read_text()
    assert log.count("Traceback") == 2
    assert Path(__file__).name in log


@pytest.mark.parametrize(
    ("error", "interrupted"),
    [(UserError("x.png: is damaged"), True), (SettingError("vfm.weights: none", "vfm.weights"), False)],
)
def test_a_fault_of_the_user_is_not_retried(attempts, error, interrupted):
    result, made, (trial,) = attempts(f"user-{interrupted}", WorkerGroupError("", {0: error}))
    assert (made, result.interruption) == (1, str(error) if interrupted else None)
    assert (trial.state, trial.reason) == (("running", "") if interrupted else ("failed", str(error)))


def test_a_failing_storage_ends_no_trial(attempts):
    result, made, trials = attempts("away", WorkerGroupError("", {0: StorageError("s3://b/runs: cannot be reached")}))
    assert result == TrialOver("s3://b/runs: cannot be reached")
    assert (made, trials) == (1, [])  # on a disk, another attempt would wait for as long again


def test_a_superseded_driver_leaves_the_trial_to_the_other_one(attempts):
    result, made, trials = attempts("two", WorkerGroupError("", {0: SupersededError("attempt 1 was followed")}))
    assert result == TrialOver("attempt 1 was followed; another driver runs this sweep")
    assert (made, trials) == (1, [])


def test_an_unexpected_error_is_raised_in_the_step_of_the_trial(attempts):
    with pytest.raises(RuntimeError, match="the registry is gone"):
        attempts("unforeseen", RuntimeError("the registry is gone"), where="make_workers")


def test_the_search_learns_the_metrics_that_it_uses_of_the_best_evaluation(folder):
    bounds = {"constraints": {"holdout/point_fa": "<= 20"}, "budget": {"trials": 2, "patience": 2}}
    sweep = new_sweep(folder, "bounded", trials=2, **bounds)
    store = ResultsStore(sweep.storage)
    state = SweepState(sweep.spec, store, sweep.storage.uri, 1)
    search = TuneSearch(state.search, store, [], state.attempt_spec, lambda spec: state.trial_plan(spec, ""), 2, "asha")
    asked = state.search.ask()
    search.live = {"0000": state.attempt_spec("0000", 0, asked.leaves, asked.parameters)}
    made = {"kind": "report", "trial": "0000", "configuration": 0, "seed": 1, "attempt": 1, "values": (0.5,)}
    used = {"holdout/point_fa": 7.0, "holdout/point_score_se": 0.02}
    store.append([Record(epoch=0, best=True, metrics={**used, "holdout/iou": 0.4}, **made)])
    store.append([Record(epoch=1, metrics={"holdout/point_fa": 99.0}, **made)])
    search.on_trial_complete("0000", {"epoch": 1})
    assert state.search.history.configurations[0].runs[0].metrics == used
    assert SweepState(sweep.spec, store, sweep.storage.uri, 2).search.history.configurations[0].runs[0].metrics == used


def test_an_end_that_cannot_be_recorded_interrupts_the_sweep_without_an_exception(folder, monkeypatch):
    """Ray Tune would take an exception for an error of the trial and restart it."""
    sweep = new_sweep(folder, "unrecorded", trials=2)
    store = ResultsStore(sweep.storage)
    state = SweepState(sweep.spec, store, sweep.storage.uri, 1)
    search = TuneSearch(state.search, store, [], state.attempt_spec, lambda spec: state.trial_plan(spec, ""), 2, "asha")
    spec = state.attempt_spec("0000", 0, {"seed": 0}, {})
    search.live = {"0000": spec, "0001": replace(spec, trial="0001")}

    def refuse(*_):
        raise StorageError("s3://b/runs: cannot be reached")

    monkeypatch.setattr("tune.session.tune_search.end_trial", refuse)
    search.on_trial_complete("0000", {"epoch": 4})
    search.on_trial_complete("0000", {"epoch": 4}, error=True)
    assert search.fault == "s3://b/runs: cannot be reached"
    assert search.is_finished()
    monkeypatch.undo()
    search.on_trial_complete("0001", {"epoch": 4})  # it continues in the next session, like the first
    assert store.trials() == []
