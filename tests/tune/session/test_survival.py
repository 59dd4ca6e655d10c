"""A race survives kill -9 of a worker, of a node and of the driver without a change in its results.

It must end like an undisturbed one: the same trials and values, each epoch recorded once, the same state of search and
scheduler.
"""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tests.repository import ROOT
from tests.tune.breaking import write_breaks
from tests.tune.racing import Racing
from tests.tune.real_sweep import STOPPING, new_sweep, ray_cluster, results, wait_for
from tune.comparison.ranked import compare_first
from tune.session.session import SweepState, run_sweep
from tune.store.results_store import ResultsStore

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SEARCHING = {
    "search": STOPPING["search"],
    "scheduler": {"name": "race", "factor": 4, "first": 4, "minimum": 2},
    "seeds": 2,
    "sampler": {"name": "tpe", "startup": 2},
}


@pytest.fixture(scope="module")
def cluster(cache):
    with ray_cluster(0, 1, 1) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("survival")


def sweep_of(folder, name):
    return new_sweep(folder, name, trials=3, epochs=6, **SEARCHING)


def memory(sweep):
    """The state of search and scheduler as rebuilt from the store."""
    state = SweepState(sweep.spec, ResultsStore(sweep.storage), sweep.storage.uri, 2)
    known = {number: (dict(c.parameters), c.runs) for number, c in state.search.history.configurations.items()}
    return known, state.scheduler().rungs


def assert_whole(sweep):
    """The base completes, the others, which do not learn, are stopped early, and the base has both runs."""
    states = {trial: state for trial, (state, _, _) in results(sweep)[1].items()}
    assert states == {"0000.0": "completed", "0001.0": "stopped", "0002.0": "stopped", "0000.1": "completed"}
    assert [set(passed) for passed in memory(sweep)[1][0].values()] == [{"0000.0", "0001.0", "0002.0"}]


def workers():
    """Process ids and nodes of the workers that are alive."""
    from ray._private.state import actors

    alive = [a for a in actors().values() if a["State"] == "ALIVE" and a["ActorClassName"] == "RayTrainWorker"]
    return [(actor["Pid"], actor["Address"]["NodeID"]) for actor in alive]


def reached(sweep, trial, epoch):
    return len(ResultsStore(sweep.storage).curve(trial)) > epoch


def kill_worker():
    os.kill(workers()[0][0], signal.SIGKILL)


def kill_node(cluster):
    where = workers()[0][1]
    node = next(node for node in cluster.list_all_nodes() if node.node_id == where)
    cluster.remove_node(node, allow_graceful=False)


def test_a_worker_a_node_and_the_driver_are_killed(cluster, folder):
    """One after the other, each in a trial of its own."""
    undisturbed = sweep_of(folder, "undisturbed")
    assert run_sweep(undisturbed.spec, undisturbed.storage.uri, 1)
    assert_whole(undisturbed)

    sweep = sweep_of(folder, "disturbed")
    command = [sys.executable, "-m", "tests.tune.drive_sweep", cluster.address, sweep.storage.uri]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    strikes = {"0000.0": kill_worker, "0001.0": lambda: kill_node(cluster), "0000.1": driver.kill}
    for trial, strike in strikes.items():
        wait_for(lambda trial=trial: reached(sweep, trial, 0))
        strike()
    driver.wait()
    assert run_sweep(sweep.spec, sweep.storage.uri, 2)

    assert results(sweep) == results(undisturbed)
    assert memory(sweep) == memory(undisturbed)
    records = ResultsStore(sweep.storage).records()
    attempts = {trial: max(record.attempt for record in told) for trial, told in records.items()}
    assert attempts == {"0002.0": 1, **dict.fromkeys(strikes, 2)}  # what had ended was not run again
    for trial, told in records.items():
        assert set(Counter(r.epoch for r in told if r.kind == "report").values()) == {1}, trial
        assert sum(r.kind == "end" for r in told) == 1, trial
        second = next((r for r in told if r.kind == "start" and r.attempt == 2), None)
        if second is None:
            continue
        assert second.checkpoint == f"checkpoints/{trial}/1/epoch-{second.epoch:04d}"
        assert trial != "0000.0" or "a worker died" in second.reason


def test_a_race_goes_on_where_its_killed_driver_was(cluster, folder):
    """With folds: the same configurations get the same runs, and the best has all of them."""
    ended = []
    for name in ("race", "cut race"):
        keys = {"scheduler": {"name": "race", "minimum": 2}, "runs": {"folds": 3}, "search": STOPPING["search"]}
        sweep = new_sweep(folder, name.replace(" ", "-"), trials=4, epochs=2, **keys)
        store = ResultsStore(sweep.storage)
        write_breaks(sweep.spec.data, seconds=0.05)
        if name == "cut race":
            command = [sys.executable, "-m", "tests.tune.drive_sweep", cluster.address, sweep.storage.uri, "racing"]
            driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(lambda store=store: any(trial.trial.endswith(".1") for trial in store.trials()))
            driver.kill()
            driver.wait()
            assert any(trial.state == "running" for trial in store.trials()) or len(store.trials()) < len(ended[0])
        assert run_sweep(sweep.spec, sweep.storage.uri, 2, trainable=Racing)
        ended.append({trial.trial: (trial.state, trial.params, trial.values) for trial in store.trials()})
    assert ended[0] == ended[1]
    runs = Counter(trial.partition(".")[0] for trial in ended[0])
    assert runs["0002"] == 3 and runs["0001"] == 1
    assert all(state == "completed" for state, _, _ in ended[0].values())
    first, *_ = compare_first(store, dict(sweep.spec.objective), minimum=2).shown
    assert (first.entry.configuration, len(first.entry.trials)) == (2, 3)
