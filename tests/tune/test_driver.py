"""Real sweeps: their trials run, are recorded, stop when asked, and go on; nothing is left behind."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from ray.train import WorkerGroupError

from semprior.errors import SettingError, StorageError, UserError
from tests.tiny import SPLITS
from tests.tune.real_sweep import STOPPING, new_sweep, ray_cluster, results
from tune.driver import Past, run_sweep
from tune.order import Order
from tune.proposals import Proposals
from tune.results import ResultsStore
from tune.retention import SupersededError
from tune.trial import Attempts, Brief


@pytest.fixture(scope="module")
def cluster(cache):
    with ray_cluster(2) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


def left_behind():
    """Placement groups that are still there, and actors that still live."""
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
    assert not left_behind()


@pytest.mark.slow
def test_early_stops_leave_nothing_behind_and_drivers_take_no_slots(cluster, folder):
    """Two slots, more trials than slots, most of them stopped, and no dashboard that Ray Train could ask."""
    sweep = new_sweep(folder, "asha", trials=6, epochs=6, concurrent="auto", **STOPPING)
    assert run_sweep(sweep.spec, sweep.storage.uri, 1)
    trials = ResultsStore(sweep.storage).trials()
    assert [trial.trial for trial in trials] == [f"{number:04d}" for number in range(6)]
    stopped = [trial for trial in trials if trial.state == "stopped"]
    assert len(stopped) >= 2
    assert {(trial.reason, trial.epochs) for trial in stopped} == {("stopped by asha at epoch 4", 5)}
    assert {trial.epochs for trial in trials if trial.state == "completed"} == {6}
    records = ResultsStore(sweep.storage).records()
    started, ended = ({t: r.time for t, told in records.items() for r in told if r.kind == k} for k in ("start", "end"))
    assert started["0001"] < ended["0000"]  # two at a time
    assert not left_behind()


@pytest.mark.slow
def test_a_trial_that_diverges_ends_with_its_best_and_a_stopped_sweep_goes_on(cluster, folder):
    grid = {"search": {"optim.rate": {"values": [5e-3, 1e20]}}, "sampler": {"name": "grid"}}
    sweep = new_sweep(folder, "cut", trials=2, epochs=4, **grid)
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
    assert not left_behind()


@pytest.mark.slow
def test_two_workers_train_a_trial_and_one_without_memory_is_tried_twice(cluster, folder):
    vision = ("scam.stages=[1]", "vfm.name=test_resnet", "vfm.weights=random", "vfm.width=8")
    grid = {"search": {"vfm.width": {"values": [8, 2**38]}}, "sampler": {"name": "grid"}}  # the second: many terabytes
    both = {"workers": 2, "cpus": 2}
    sweep = new_sweep(folder, "workers", trials=2, epochs=2, base=vision, resources=both, **grid)
    assert run_sweep(sweep.spec, sweep.storage.uri, 1)
    store = ResultsStore(sweep.storage)
    trained, large = store.trials()
    assert (trained.state, trained.epochs, trained.attempt) == ("completed", 2, 1)
    assert [record.epoch for record in store.curve("0000")] == [0, 1]  # of two workers one records
    assert trained.device_s == pytest.approx(2 * trained.wall_s)
    assert "worker 1 of 2" in sweep.storage.read("logs/0000.log").decode()
    assert (large.state, large.epochs, large.params) == ("failed", 0, {"vfm.width": 2**38})
    assert large.reason.startswith("out of memory: ")
    assert large.reason.endswith(" (after 2 attempts)")  # though two retries were allowed
    assert not left_behind()


@pytest.mark.slow
def test_an_exception_of_a_worker_ends_the_sweep_and_is_told_with_its_place(cluster, folder):
    vision = ("scam.stages=[1]", "vfm.name=test_resnet", "vfm.weights=random", f"vfm.width={2**62}")
    sweep = new_sweep(folder, "raises", trials=3, base=vision)
    place = r"semprior/\S+\.py:\d+, \S+; torch/\S+\.py:\d+, \w+"
    with pytest.raises(
        UserError, match=rf"^RuntimeError: .* \({place}\), twice in trial 0000, before an epoch .*0000.log$"
    ):
        run_sweep(sweep.spec, sweep.storage.uri, 1)
    (trial,) = ResultsStore(sweep.storage).trials()
    assert (trial.state, trial.attempt, trial.epochs) == ("running", 2, 0)
    log = sweep.storage.read("logs/0000.log").decode()
    assert log.count("Traceback") == 2
    assert "semprior/models/scam.py" in log
    assert not left_behind()


@pytest.mark.slow
def test_a_sweep_with_seeds_goes_on_and_ends_when_its_hours_are_over(cluster, folder, monkeypatch):
    limits = {"seeds": 2, "budget": {"trials": 4, "hours": 1}, "concurrent": 2}
    sweep = new_sweep(folder, "seeds", trials=4, epochs=6, **limits)
    store, uri = ResultsStore(sweep.storage), sweep.storage.uri
    first = ["0000.0", "0000.1"]
    assert not run_sweep(sweep.spec, uri, 1, stop=lambda: any(store.curve(trial) for trial in first))
    cut = {trial.trial: trial.epochs for trial in store.trials() if trial.state == "running"}
    assert set(cut) <= set(first)
    assert cut

    def clock():  # the hours are over once a trial of the next configuration has an epoch
        return time.monotonic() + (7200 if store.curve("0001.0") else 0)

    monkeypatch.setattr("tune.driver.time", SimpleNamespace(monotonic=clock))
    assert run_sweep(sweep.spec, uri, 2)
    trials = {trial.trial: trial for trial in store.trials()}
    for trial in first:
        assert (trials[trial].state, trials[trial].epochs) == ("completed", 6)
        starts = [record.epoch for record in store.history(trial) if record.kind == "start"]
        assert starts == ([0, cut[trial]] if trial in cut else [0])  # went on where it was, or was not begun again
        assert [record.epoch for record in store.curve(trial)] == list(range(6))
    assert [trials[trial].seed for trial in first] == [1, 2]
    late = trials["0001.0"]  # finished its epoch
    assert (late.state, late.reason, late.epochs) == ("stopped", "the sweep's hours are over", 1)
    assert late.checkpoint and sweep.storage.exists(f"{late.checkpoint}/manifest.json")
    assert set(trials) <= {*first, "0001.0", "0001.1"}  # of the configurations left in the budget none was begun
    assert all(trial.state != "running" for trial in trials.values())
    (base,) = (entry for entry in store.rank(dict(sweep.spec.objective)) if entry.configuration == 0)
    assert base.trials == tuple(first)
    assert not left_behind()


def test_a_trial_that_fits_nowhere_is_refused_with_the_numbers(cluster, folder):
    sweep = new_sweep(folder, "large", trials=1, resources={"gpus": 2})
    with pytest.raises(UserError, match="a trial takes 1 CPUs and 2 GPUs, but there is one node, with 2 CPUs and 0"):
        run_sweep(sweep.spec, sweep.storage.uri, 1)


class Breaking:
    """Workers that never begin: nothing of them is in the store."""

    def __init__(self, error):
        self.error = error

    def fit(self):
        raise self.error

    def abort(self):
        """It is over already."""


@pytest.fixture
def attempts(cluster, folder, request):
    """Begin the attempts of a trial whose workers break with an error; what they say last, and how many there were."""

    def run(name, error, where="fit"):
        hired = []

        def hire(order, _folder, _take, _placed):
            hired.append(order.attempt)
            if where == "hire":
                raise error
            return Breaking(error)

        order = Order(
            uri=str(folder / name),
            data="none",
            trial="0000",
            configuration=0,
            leaves={"seed": 0},
            params={"vfm.weights": "hub"},
            objectives=("holdout/point_score",),
            attempt=0,
        )
        made = Attempts(Brief(order, before=0, heard=-1, retries=2, folder=str(folder)), hire)
        request.addfinalizer(made.stop)
        return made.next(), len(hired), ResultsStore(order.uri).trials()

    return run


def test_attempts_whose_workers_die_come_to_an_end(attempts):
    said, hired, (trial,) = attempts("dead", WorkerGroupError("", {0: RayActorError()}))
    assert (said, hired) == ({"done": True}, 3)
    assert (trial.state, trial.epochs) == ("failed", 0)
    assert trial.reason.startswith("a worker died: ")
    assert trial.reason.endswith(" (after 3 attempts)")


def test_an_exception_that_comes_again_ends_the_sweep_and_not_the_trial(attempts, folder):
    said, hired, (trial,) = attempts("broken", RuntimeError("no library of that name"))
    assert (hired, trial.state) == (2, "running")
    assert said["done"]
    assert said["left"].startswith("RuntimeError: no library of that name (")
    assert said["left"].endswith(
        f", twice in trial 0000, before an epoch was trained; log: {folder}/broken/logs/0000.log"
    )
    log = (folder / "broken" / "logs" / "0000.log").read_text()
    assert log.count("Traceback") == 2
    assert "test_driver.py" in log


@pytest.mark.parametrize(
    ("error", "left"),
    [(UserError("x.png: is damaged"), True), (SettingError("vfm.weights: none", "vfm.weights"), False)],
)
def test_a_fault_of_the_user_is_met_once(attempts, error, left):
    said, hired, (trial,) = attempts(f"user-{left}", WorkerGroupError("", {0: error}))
    assert (hired, said.get("left")) == (1, str(error) if left else None)
    assert (trial.state, trial.reason) == (("running", "") if left else ("failed", str(error)))


def test_a_storage_that_stays_away_ends_no_trial(attempts):
    said, hired, trials = attempts("away", WorkerGroupError("", {0: StorageError("s3://b/runs: cannot be reached")}))
    assert said == {"done": True, "left": "s3://b/runs: cannot be reached"}
    assert (hired, trials) == (3, [])


def test_a_trial_that_another_driver_runs_is_left_to_it(attempts):
    said, hired, trials = attempts("two", WorkerGroupError("", {0: SupersededError("attempt 1 was followed")}))
    assert said == {"done": True, "left": "attempt 1 was followed; another driver runs this sweep"}
    assert (hired, trials) == (1, [])


def test_what_nobody_foresaw_is_raised_where_tune_waits(attempts):
    with pytest.raises(RuntimeError, match="the key-value store is gone"):
        attempts("unforeseen", RuntimeError("the key-value store is gone"), where="hire")


def test_an_end_that_cannot_be_recorded_breaks_the_sweep_off_and_raises_nothing(folder, monkeypatch):
    """Ray Tune would begin the trial anew: it takes whatever is raised there for a fault of the trial."""
    sweep = new_sweep(folder, "unrecorded", trials=2)
    past = Past(sweep.spec, ResultsStore(sweep.storage), sweep.storage.uri, 1)
    proposals = Proposals(past.search, ResultsStore(sweep.storage), [], past.order, past.briefing(""), 2, "asha")
    order = past.order("0000", 0, {"seed": 0}, {})
    proposals.live = {"0000": order, "0001": replace(order, trial="0001")}

    def refuse(*_):
        raise StorageError("s3://b/runs: cannot be reached")

    monkeypatch.setattr("tune.proposals.end_trial", refuse)
    proposals.on_trial_complete("0000", {"epoch": 4})
    proposals.on_trial_complete("0000", {"epoch": 4}, error=True)
    assert proposals.broken == "s3://b/runs: cannot be reached"
    assert proposals.is_finished()
    monkeypatch.undo()
    proposals.on_trial_complete("0001", {"epoch": 4})  # it goes on with the next driver, like the first
    assert ResultsStore(sweep.storage).trials() == []
