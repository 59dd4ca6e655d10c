"""`ray up deploy/onprem.yaml` on three hosts, sweeps from outside, and the loss of one host after the other.

One story in the order of the tests: each begins where the one before it ended. `pytest -s` shows how long things take.
What is waited for is read from the sweep's storage, which this machine shares: a command a look would take the
processors from the hosts.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from semprior.config.schema import parse_settings
from semprior.io.storage import open_storage
from tests.repository import ROOT
from tests.tiny import SETTINGS, write_dataset
from tune.launch.cluster_file import find_head, read_cluster, tunnel
from tune.monitor.heartbeat import last_heartbeat
from tune.store.results_store import ResultsStore

PATIENCE = 420.0  # seconds that anything may take on a busy machine
FIRST, SECOND = (3, 12), (4, 3)  # trials, and epochs of each
pytestmark = [pytest.mark.slow, pytest.mark.ray]


def launcher(verb, file):
    """`ray up` or `ray down`, as a user types it."""
    ray, began = Path(sys.executable).with_name("ray"), time.monotonic()
    done = subprocess.run([ray, verb, file, "--yes"], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    print(f"{time.strftime('%H:%M:%S')} `ray {verb}`: {time.monotonic() - began:.1f} s")


def tune(*arguments, status=0, **environment):
    """A command of `python -m tune`; its output, or its complaint where it is to be refused."""
    done = subprocess.run(
        [sys.executable, "-m", "tune", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == status, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stderr if status else done.stdout


def wait_for(what, found):
    """Ask until there is an answer."""
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        answer = found()
        if answer:
            print(f"{time.strftime('%H:%M:%S')} {what}: {time.monotonic() - began:.1f} s")
            return answer
        time.sleep(1.0)
    raise AssertionError(f"{what}: not within {PATIENCE:.0f} s")


def sweep_file(hosts, name, trials, epochs):
    """A sweep of one trial a host at a time, on data that every node fetches."""
    spec = {
        "name": name,
        "data": f"file://{hosts.shared}/data",
        "base": parse_settings([*SETTINGS, f"epochs={epochs}"]),
        "search": {"optim.rate": {"float": [1e-3, 1e-2], "log": True}},
        "objective": {"holdout/point_score": "max"},
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
        "budget": {"trials": trials},
        "resources": {"cpus": os.cpu_count()},
    }
    path = hosts.shared / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def storage_of(hosts, name):
    """Where a sweep is kept."""
    return open_storage(read_cluster(hosts.file)["provider"]["storage"]).child(name)


def summaries(hosts, name):
    """The trials of a sweep by id, as the store tells them."""
    storage = storage_of(hosts, name)
    return {trial.trial: trial for trial in ResultsStore(storage).trials()} if storage.exists("records") else {}


def host_of(trial):
    """Number of the host that a trial was last heard from."""
    return int(trial.last.host.removeprefix("sprior"))


def wait_for_state(hosts, name, state):
    """Wait until a sweep's driver is `done` or `lost`, and see that `status` says so from outside."""
    wait_for(f"{name} is {state}", lambda: last_heartbeat(storage_of(hosts, name)).observed_state() == state)
    assert f"{name}: {state}" in tune("status", name, "--cluster", hosts.file)


def check_whole(hosts, name, trials, epochs):
    """Every trial ended, with each of its epochs told once, and what it points to is there."""
    storage = storage_of(hosts, name)
    store = ResultsStore(storage)
    found = {trial.trial: trial for trial in store.trials()}
    assert len(found) == trials
    assert {trial.state for trial in found.values()} == {"completed"}
    for trial in found.values():
        assert [record.epoch for record in store.curve(trial.trial)] == list(range(epochs))
        assert storage.exists(f"{trial.checkpoint}/manifest.json")
    return found


@pytest.fixture(scope="module")
def cluster(hosts, tmp_path_factory):
    """The cluster, up once, with a first sweep submitted at once; and down at the end, whatever happened."""
    data = write_dataset(tmp_path_factory.mktemp("data") / "set")
    command = [sys.executable, "-m", "semprior", "data", "push", str(data), f"file://{hosts.shared}/data"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE).returncode == 0
    began = time.time()
    launcher("up", hosts.file)
    said = tune("submit", sweep_file(hosts, "first", *FIRST), "--cluster", hosts.file, "--detach")
    assert "not counted, because not there" not in said  # it waits for the workers, which come after the head
    trials = wait_for("a first step", lambda: summaries(hosts, "first"))
    first_step = min(trial.updated for trial in trials.values())
    print(f"\nfrom `ray up` to the first trial's first step: {first_step - began:.1f} s")
    yield hosts
    subprocess.run([Path(sys.executable).with_name("ray"), "down", hosts.file, "--yes"], cwd=ROOT, capture_output=True)


def test_a_host_that_is_cut_off_and_one_that_dies_cost_no_trial(cluster):
    before = {}

    def spread():
        """Pause the trials that have begun, so that none ends before the others begin."""
        for trial in summaries(cluster, "first").values():
            if trial.epochs > 1 and host_of(trial) not in before:
                cluster("pause", host_of(trial))
                before[host_of(trial)] = trial.trial
        return set(before) == {0, 1, 2}

    wait_for("trials on all hosts", spread)
    cluster("cut", 1)
    cluster("kill", 2)
    for host in (0, 1):
        cluster("continue", host)
    lost = {before[host] for host in (1, 2)}
    assert all(summaries(cluster, "first")[trial].state == "running" for trial in lost)  # else it tells nothing

    def elsewhere():
        now = summaries(cluster, "first")
        return all(now[trial].attempt > 1 for trial in lost)  # both hosts count as dead, though one of them lives

    wait_for("the lost trials elsewhere", elsewhere)
    cluster("heal", 1)
    wait_for_state(cluster, "first", "done")
    found = check_whole(cluster, "first", *FIRST)
    assert all(found[trial].attempt > 1 for trial in lost)
    cluster("boot", 2)
    # A host fetches the data once, whatever it was asked for since.
    fetched = Counter(int(path.parts[3]) for path in cluster.shared.parent.glob("*/.cache/semprior/fetched/[!.]*"))
    assert set(fetched.values()) == {1}


def test_the_ranking_and_the_best_come_from_outside(cluster, tmp_path):
    ranked = json.loads(tune("top", "first", "--cluster", cluster.file, "--format", "json"))
    assert len(ranked) == FIRST[0]
    tune("pull", "first:best", "--out", tmp_path / "best", "--cluster", cluster.file)
    assert (tmp_path / "best" / "manifest.json").is_file()


def test_a_wrong_token_and_a_sweep_that_does_not_fit_are_refused_in_one_line(cluster):
    with tunnel(find_head(cluster.file)) as (port, token):
        address = f"http://127.0.0.1:{port}"
        file = cluster.shared / "first.yaml"
        error = tune("submit", file, "--address", address, "--id", "never", status=2, RAY_AUTH_TOKEN="0" * len(token))
    assert error.count("\n") == 1
    assert "refuses this machine's token" in error
    spec = yaml.safe_load((cluster.shared / "first.yaml").read_text())
    path = cluster.shared / "gpus.yaml"
    path.write_text(yaml.safe_dump(spec | {"name": "gpus", "resources": {"gpus": 1}}))
    error = tune("submit", path, "--cluster", cluster.file, status=2)
    assert error.count("\n") == 1
    assert "a trial takes 1 CPU and 1 GPU" in error.replace("CPUs", "CPU").replace("GPUs", "GPU")
    path.write_text(yaml.safe_dump(spec | {"name": "apart"}))
    error = tune("submit", path, "--cluster", cluster.file, "--storage", "/tmp/of-each-host", status=2)
    assert error.count("\n") == 1
    assert "all nodes must share it" in error
    assert {entry.name for entry in open_storage(cluster.shared / "runs").list()} == {"first"}


def test_a_sweep_goes_on_after_its_head_was_lost(cluster):
    tune("submit", sweep_file(cluster, "second", *SECOND), "--cluster", cluster.file, "--detach")

    def some_ended():
        known = summaries(cluster, "second").values()
        return {trial.trial: trial for trial in known if trial.state == "completed"}

    wait_for("a finished trial", some_ended)
    cluster("kill", 0)
    ended = some_ended()
    assert len(ended) < SECOND[0]
    cluster("boot", 0)
    launcher("up", cluster.file)

    wait_for_state(cluster, "second", "lost")
    tune("resume", "second", "--cluster", cluster.file)
    found = check_whole(cluster, "second", *SECOND)
    for name, trial in ended.items():  # nothing finished was repeated
        assert (found[name].attempt, found[name].updated) == (trial.attempt, trial.updated)


def test_nothing_is_left_when_the_cluster_is_down(cluster):
    launcher("down", cluster.file)
    wait_for("no process on any host", lambda: not any(cluster.processes(host) for host in range(3)))
