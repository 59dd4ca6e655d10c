"""Real sweeps survive kill -9 of a worker, of a node and of the driver without a change in their results.

Each sweep must end like an undisturbed one: the same trials and values, each epoch recorded once, the same state of
search and scheduler.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest

from tests.repository import ROOT
from tests.tune.real_sweep import STOPPING, new_sweep, ray_cluster, results, wait_for
from tune.session.session import SweepState, run_sweep
from tune.store.results_store import ResultsStore

pytestmark = [pytest.mark.slow, pytest.mark.ray]

SEARCHING = {**STOPPING, "sampler": {"name": "tpe", "startup": 2}}


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


@pytest.fixture(scope="module")
def undisturbed(cluster, folder):
    sweep = sweep_of(folder, "undisturbed")
    assert run_sweep(sweep.spec, sweep.storage.uri, 1)
    assert [state for state, _, _ in results(sweep)[1].values()] == ["completed", "stopped", "stopped"]
    assert [set(passed) for passed in memory(sweep)[1][0].values()] == [{"0000", "0001", "0002"}]
    return sweep


def workers():
    """Process ids and nodes of the workers that are alive."""
    from ray._private.state import actors

    alive = [a for a in actors().values() if a["State"] == "ALIVE" and a["ActorClassName"] == "RayTrainWorker"]
    return [(actor["Pid"], actor["Address"]["NodeID"]) for actor in alive]


def reached(sweep, trial, epoch):
    return len(ResultsStore(sweep.storage).curve(trial)) > epoch


def run_and(strike, sweep):
    """Run a sweep, and call `strike` once its second trial has recorded an epoch."""
    done = []

    def wait_and_strike():
        wait_for(lambda: reached(sweep, "0001", 0))
        done.append(strike())

    thread = threading.Thread(target=wait_and_strike, daemon=True)
    thread.start()
    assert run_sweep(sweep.spec, sweep.storage.uri, 1)
    thread.join(timeout=60)
    assert done


def assert_like_undisturbed(sweep, undisturbed):
    assert results(sweep) == results(undisturbed)
    assert memory(sweep) == memory(undisturbed)
    records = ResultsStore(sweep.storage).records()
    attempts = {trial: max(record.attempt for record in told) for trial, told in records.items()}
    assert attempts == {"0000": 1, "0001": 2, "0002": 1}  # what had ended was not run again, what runs was cut once
    for trial, told in records.items():
        assert set(Counter(r.epoch for r in told if r.kind == "report").values()) == {1}, trial
        assert sum(r.kind == "end" for r in told) == 1, trial
    second = next(r for r in records["0001"] if r.kind == "start" and r.attempt == 2)
    assert second.checkpoint == f"checkpoints/0001/1/epoch-{second.epoch:04d}"


def test_a_worker_is_killed(cluster, folder, undisturbed):
    sweep = sweep_of(folder, "worker")
    run_and(lambda: os.kill(workers()[0][0], signal.SIGKILL) or True, sweep)
    assert_like_undisturbed(sweep, undisturbed)
    started = [r for r in ResultsStore(sweep.storage).history("0001") if r.kind == "start"]
    assert "a worker died" in started[-1].reason


def test_the_driver_is_killed(cluster, folder, undisturbed):
    sweep = sweep_of(folder, "driver")
    command = [sys.executable, "-m", "tests.tune.drive_sweep", cluster.address, sweep.storage.uri]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: reached(sweep, "0001", 0))
    driver.kill()
    driver.wait()
    assert run_sweep(sweep.spec, sweep.storage.uri, 2)
    assert_like_undisturbed(sweep, undisturbed)


def test_a_node_is_killed(cluster, folder, undisturbed):
    sweep = sweep_of(folder, "node")

    def strike():
        where = workers()[0][1]
        node = next(node for node in cluster.list_all_nodes() if node.node_id == where)
        cluster.remove_node(node, allow_graceful=False)
        return True

    run_and(strike, sweep)
    assert_like_undisturbed(sweep, undisturbed)
