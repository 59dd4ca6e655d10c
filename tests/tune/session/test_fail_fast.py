"""A fault that every trial would have stops the sweep with one line; `resume` continues once the cause is removed.

The commands, driver, search, store and Ray are the service's own; most trials here only break as they are told to.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.tiny import SETTINGS, write_dataset
from tests.tune.breaking import write_breaks
from tests.tune.real_sweep import PLAIN, ray_cluster, wait_for
from tune.cli.app import main
from tune.monitor.heartbeat import last_heartbeat
from tune.store.results_store import ResultsStore
from tune.store.sweeps import open_sweep

pytestmark = [pytest.mark.slow, pytest.mark.ray]

BROKEN_DRIVER = """\
import tune.session.session


def run_sweep(*_, **__):
    raise KeyError("x")


tune.session.session.run_sweep = run_sweep
"""
INSTRUCTION = "no such instruction at {}"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Writes the sweep file for `submit` and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMPRIOR_STORAGE", raising=False)
    write_dataset(tmp_path / "data")

    def write(trials=3, epochs=3, base=(), **keys):
        settings = dict(setting.split("=") for setting in (*SETTINGS, f"epochs={epochs}", *base))
        typed = {key: yaml.safe_load(value) for key, value in settings.items()}
        spec = {"name": "small", "data": "data", "base": typed, "budget": {"trials": trials}, **PLAIN, **keys}
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(spec))
        return "small.yaml"

    return write


@pytest.fixture(scope="module")
def cluster(cache):
    with ray_cluster(2) as made:
        yield made


@pytest.fixture
def drivers(cluster, monkeypatch):
    """A function that makes the commands start drivers on one Ray, with trials of this kind: `breaking.TRIALS`."""
    popen = subprocess.Popen

    def use(trials):
        def start(words, **settings):
            place = words.index("tune.session.driver_process")
            return popen(
                [*words[:place], "tests.tune.breaking", cluster.address, trials, *words[place + 1 :]], **settings
            )

        replaced = SimpleNamespace(**(vars(subprocess) | {"Popen": start}))
        monkeypatch.setattr("tune.launch.local_driver.subprocess", replaced)

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    return use


@pytest.fixture
def breaking(drivers):
    """Makes the commands start drivers whose trials fail as `write_breaks` says."""
    drivers("breaking")


@pytest.fixture
def says(capsys):
    """Runs a command, checks its exit code and returns its output."""

    def run(*words, code=0):
        capsys.readouterr()
        assert main(list(words)) == code, capsys.readouterr()
        return capsys.readouterr()

    return run


def states():
    return {trial.trial: trial.state for trial in ResultsStore("runs/small").trials()}


def kinds(trial):
    return [record.kind for record in ResultsStore("runs/small").history(trial)]


def stopped():
    return last_heartbeat(open_sweep("runs/small").storage).observed_state() == "stopped"


def test_an_exception_in_two_trials_stops_the_sweep_until_the_cause_is_removed(sweep, breaking, says):
    write_breaks("data", every=(0, "RuntimeError", INSTRUCTION))
    told = says("submit", sweep(concurrent=2, trials=5, failures={"retries": 0}), code=2)
    assert told.err.count("\n") == 1
    for part in (
        "small: RuntimeError: no such instruction at",
        "breaking.py:",
        "_break",
    ):
        assert part in told.err
    assert re.search(r", in trials \d{4}(, \d{4})* and \d{4}, before an epoch was trained; ", told.err)
    assert "once that is mended, continue with: semprior-tune resume small" in told.err
    (log,) = [word for word in told.err.replace(";", " ").split() if word.endswith(".log")]
    content = Path(log).read_text()
    assert "Traceback" in content and "in _break" in content
    assert stopped()
    assert "0004" not in states()  # the others were not begun
    shown = says("status", "small").out
    assert "RuntimeError: no such instruction" in shown and "small: stopped" in shown
    assert "broke off after 0 epochs: RuntimeError: no such instruction" in says("show", "small", "0000").out

    write_breaks("data")
    told = says("resume", "small")
    assert told.out.endswith("small is done; its ranking: semprior-tune top small\n")
    assert states() == dict.fromkeys(("0000", "0001", "0002", "0003", "0004"), "completed")


def test_an_exception_twice_in_the_first_trial_stops_the_sweep_even_after_the_loss_of_its_driver(sweep, breaking, says):
    write_breaks("data", 300, every=(0, "RuntimeError", INSTRUCTION, 1))  # the second attempt is cut off
    says("submit", sweep(epochs=4), "--detach")
    store = ResultsStore("runs/small")
    wait_for(lambda: (last_heartbeat(store.storage) or None) and "fault" in kinds("0000"))
    beat = last_heartbeat(store.storage)
    os.kill(beat.pid, 9)
    os.waitpid(beat.pid, 0)  # this process has started it
    wait_for(lambda: last_heartbeat(store.storage).observed_state() == "lost")
    assert kinds("0000").count("fault") == 1
    write_breaks("data", every=(0, "RuntimeError", INSTRUCTION))
    told = says("resume", "small", code=2)
    assert "twice in trial 0000, before an epoch was trained" in told.err
    assert kinds("0000").count("fault") == 2
    assert list(states()) == ["0000"] and stopped()


def test_faults_of_single_trials_end_only_these_and_can_be_retried(sweep, breaking, says):
    write_breaks(
        "data",
        t0000=(0, "RuntimeError", INSTRUCTION, 1),  # that did not come again
        t0001=(0, "MemoryError", "Unable to allocate 1 TiB"),
        t0002=(3, "RuntimeError", "the fourth epoch is odd"),
    )
    told = says("submit", sweep(epochs=5, failures={"retries": 1}, budget={"trials": 4, "hours": 1}))
    assert states() == {"0000": "completed", "0001": "failed", "0002": "failed", "0003": "completed"}
    for line in ("failed: 0001: out of memory: ", "failed: 0002: RuntimeError: the fourth epoch is odd"):
        assert line in told.out
    assert "run the failed trials again with: semprior-tune retry small\n" in told.out

    for words, fault in (
        (("0004",), "no trial 0004; there are: 0000 to 0003"),
        (("0001", "0000"), "trial 0000 has not failed: completed"),
    ):
        assert says("retry", "small", *words, code=2).err == f"semprior-tune: small: {fault}\n"
    beat = Path("runs/small/heartbeat/0001.json")
    told = json.loads(beat.read_text())
    beat.write_text(json.dumps(told | {"started": told["started"] - 7200}))  # the sweep's hours are over
    write_breaks("data", t0001=(0, "MemoryError", "Unable to allocate 1 TiB"))
    says("retry", "small", "0002")
    assert states() == {"0000": "completed", "0001": "failed", "0002": "completed", "0003": "completed"}
    history = ResultsStore("runs/small").history("0002")
    assert [record.epoch for record in history if record.kind == "report"] == list(range(5))
    assert [record.epoch for record in history if record.kind == "start"][-1] == 3  # from where it was
    assert kinds("0001").count("retry") == 0
    assert "started again: tried again, as `retry` asked for" in says("show", "small", "0002").out
    ranked = json.loads(says("top", "small", "--format", "json").out)
    assert {entry["trial"]: entry["state"] for entry in ranked}["0002"] == "completed"

    write_breaks("data")
    says("retry", "small")
    assert set(states().values()) == {"completed"}
    assert says("retry", "small", "--failed").out == "small: no trial has failed\n"
    assert "--failed: means all failed trials" in says("retry", "small", "0001", "--failed", code=2).err


def test_a_sweep_without_a_value_shows_the_most_common_reason(sweep, breaking, says):
    write_breaks("data", every=(0, "MemoryError", "Unable to allocate 1 TiB"), t0001=(0, "MemoryError", "odd"))
    said = (
        "small: no trial has a value of holdout/point_score: out of memory: Unable to allocate 1 TiB (after 2 attempts)"
    )
    told = says("submit", sweep(), code=2)
    assert told.err.startswith(f"semprior-tune: {said}")
    assert "(2 of 3 trials); once that is mended, run them again with: semprior-tune retry small\n" in told.err
    assert says("resume", "small", code=2).err == told.err
    assert said in says("status", "small").out


def test_a_driver_that_fails_reports_the_error_and_its_log(sweep, breaking, says, tmp_path, monkeypatch):
    write_breaks("data")
    (tmp_path / "driver_that_breaks.py").write_text(BROKEN_DRIVER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    told = says("submit", sweep(), code=1)
    assert told.err.count("\n") == 1
    for part in ("small: its driver broke: KeyError: 'x' (", "driver_that_breaks.py:5, run_sweep"):
        assert part in told.err
    assert "Traceback" in Path(told.err.strip().rpartition("log: ")[2]).read_text()
    assert "KeyError: 'x'" in says("status", "small").out


def test_an_image_that_is_damaged_after_the_start_stops_a_real_sweep_until_it_is_repaired(sweep, drivers, says):
    drivers("training")
    image = sorted(Path("data/images").glob("train*.png"))[3]
    whole = image.read_bytes()
    file = sweep(trials=1, epochs=2)
    says("submit", file, "--detach")
    image.write_bytes(whole[: len(whole) // 2])
    store = wait_for(lambda: Path("runs/small/heartbeat/0001.json").exists() and ResultsStore("runs/small"))
    wait_for(lambda: last_heartbeat(store.storage).observed_state() != "running")
    beat = last_heartbeat(store.storage)
    assert beat.observed_state() == "stopped" and str(image.name) in beat.note, beat
    assert set(states().values()) == {"running"}
    image.write_bytes(whole)
    says("resume", "small")
    assert set(states().values()) == {"completed"}


def test_a_sweep_whose_folder_is_removed_while_it_runs_ends_as_an_error(sweep, says, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))

    def remove():
        wait_for(lambda: Path("runs/small/heartbeat/0001.json").exists() and ResultsStore("runs/small").curves())
        shutil.rmtree("runs/small", ignore_errors=True)

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    told = says("submit", sweep(trials=2, epochs=200), code=2)
    thread.join(60)
    assert "small: the folder of the sweep was removed while it ran" in told.err
    assert told.err.count("\n") == 1
    assert not Path("runs/small/sweep.json").exists() and not Path("runs/small/records").exists()


def test_a_sweep_that_is_done_goes_on_when_its_budget_is_raised(sweep, breaking, says):
    write_breaks("data")
    says("submit", sweep(trials=1, budget={"trials": 1, "hours": 5}))
    spent = "its budget of 1 configuration is spent"
    shown = " ".join(says("status", "small").out.split())
    assert "small: done, 1 of 1 trials ended, " in shown and spent in shown
    assert f"small is done: {spent}" in says("top", "small").out
    assert "nothing is left to run" in says("resume", "small").out
    told = says("extend", "small", "--trials", "+1", "--hours", "2").out
    assert "small: its budget is 2 configurations and 7 hours now\n" in told
    assert told.endswith("small is done; its ranking: semprior-tune top small\n")
    assert states() == dict.fromkeys(("0000", "0001"), "completed")
    assert "small is done: its budget of 2 configurations is spent" in says("top", "small").out
    (entry,) = json.loads(says("list", "--format", "json").out)
    assert (entry["ended"], entry["trials"]) == (2, 2)
    for words, fault in (
        ((), "extend: must be given --trials +N, --hours +H or both"),
        (("--trials", "0"), "--trials +0: must be a whole number above 0"),
        (("--trials", "some"), "--trials"),
        (("--hours", "nan"), "--hours +nan: must be a number above 0"),
        (("--hours", "-1"), "--hours -1: must be a number above 0"),
    ):
        error = says("extend", "small", *words, code=2).err
        assert fault in error and error.count("\n") == 1
    assert open_sweep("runs/small").spec.budget.trials == 2
