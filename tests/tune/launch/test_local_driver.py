"""A real sweep on this machine as a user runs it: started, cut off, interrupted, resumed, shown, repeated."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny import write_dataset
from tests.tune.listening import listening, processes_with
from tests.tune.monitor.test_live_view import view
from tune.cli.app import main
from tune.monitor.heartbeat import last_heartbeat
from tune.monitor.live_view import watch
from tune.store.results_store import ResultsStore
from tune.store.sweeps import open_sweep

pytestmark = pytest.mark.ray

SWEEP = """\
name: small
data: scenes
base:
  {preset: quick, detector: mlclnet, epochs: 16, data.crop: 64, data.batch: 4, data.holdout: 0.3, clusters.count: 2,
  scam.stages: none, select.after: 0, select.every: 1}
search: {optim.rate: {values: [1.0e-3, 2.0e-3]}}
objective: {holdout/point_score: max}
sampler: {name: random}
scheduler: {name: none}
budget: {trials: 2}
concurrent: 1
"""
PATIENCE = 600.0


def mark(folder):
    """A variable that every process has which descends from a command of `tune`, and no other."""
    return f"SEMPRIOR_TEST={folder}"


def tune(folder, *words):
    """A command in a process of its own, with a pipe in the place of a terminal, and an empty home."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tune", *words],
        cwd=folder,
        env={
            **os.environ,
            **dict([mark(folder).split("=")]),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "HOME": str(home),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a suite that was started in the background ignores interrupts, and so would whatever it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def until(condition):
    """Wait for a condition that must come true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def epochs(folder):
    """Epochs that the store holds."""
    return sum(trial.epochs for trial in ResultsStore(folder / "runs" / "small").trials())


def assert_closed_to_others(folder):
    """While a sweep runs: what its processes listen on, where their token is, and who can open their files."""
    processes = processes_with(mark(folder))
    heard = {process: listening(process) for process in processes}
    for program in ("gcs_server", "raylet", "dashboard/agent.py", "runtime_env/agent/main.py"):
        assert any(heard[process] for process, words in processes.items() if program in words), program
    trial = [process for process, words in processes.items() if "RayTrainWorker" in words]
    assert len(trial) == 1 and heard[trial[0]]
    for process, sockets in heard.items():
        assert {address for address, _ in sockets} <= {"127.0.0.1", "::1"}, (processes[process], sockets)
    assert not any(re.search("[0-9a-f]{64}", words) for words in processes.values())  # everybody sees command lines
    (private,) = {Path(path) for words in processes.values() for path in re.findall(r"/\S*?/st-[^/\s]+(?=/r/)", words)}
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    (variables,) = {Path(f"/proc/{process}/environ").read_bytes() for process in trial}
    (token,) = re.findall(rb"\0RAY_AUTH_TOKEN=([0-9a-f]{64})\0", variables)
    written = [*private.rglob("*"), *folder.rglob("*")]
    assert not [path for path in written if path.is_file() and token in path.read_bytes()]
    assert not (folder / "home" / ".ray").exists()


@pytest.mark.slow
def test_a_sweep_is_cut_off_interrupted_resumed_and_a_trial_repeated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEMPRIOR_STORAGE", raising=False)
    write_dataset(tmp_path / "scenes")
    (tmp_path / "sweep.yaml").write_text(SWEEP)

    begun = tune(tmp_path, "submit", "sweep.yaml")
    until(lambda: (tmp_path / "runs/small/heartbeat").is_dir() and epochs(tmp_path) >= 1)
    assert main(["resume", "small"]) == 2
    assert "small: is running on" in capsys.readouterr().err
    if sys.platform == "linux":
        assert_closed_to_others(tmp_path)
    begun.kill()  # the process that watches is gone: the driver stops by itself
    begun.wait()
    storage = open_sweep("runs/small").storage
    until(lambda: last_heartbeat(storage).observed_state() == "stopped")
    before = epochs(tmp_path)
    assert before < 2 * 16

    resumed = tune(tmp_path, "resume", "small")
    until(lambda: epochs(tmp_path) > before)
    resumed.send_signal(signal.SIGINT)
    said, _ = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 130, (before, said)
    assert "stopping: every trial keeps the checkpoint" in said
    assert said.endswith("small was stopped; continue with: semprior-tune resume small\n")
    assert "Traceback" not in said and "ray" not in said
    assert last_heartbeat(storage).observed_state() == "stopped"

    finished = tune(tmp_path, "resume", "small")
    said, _ = finished.communicate(timeout=PATIENCE)
    assert finished.returncode == 0
    assert said.endswith("small is done; its ranking: semprior-tune top small\n")
    trials = ResultsStore(storage).trials()
    assert [(trial.trial, trial.state, trial.epochs) for trial in trials] == [
        (name, "completed", 16) for name in ("0000", "0001")
    ]
    assert "trial 0001 completed after epoch 16/16" in said

    capsys.readouterr()
    assert main(["show", "small", "0001"]) == 0
    (line,) = re.findall(r"^repeat it: (.*)$", capsys.readouterr().out, re.MULTILINE)
    threads, program, *words = shlex.split(line)
    assert program == "semprior"
    done = subprocess.run(
        [sys.executable, "-m", "semprior", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **dict([threads.split("=")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    repeated = [json.loads(line) for line in (tmp_path / "small-0001/metrics.jsonl").read_text().splitlines()]
    curve = ResultsStore(storage).curve("0001")
    for name in ("inner_loss", "holdout/point_score", "holdout/iou", "holdout/teacher/iou"):
        assert [line[name] for line in repeated] == [record.metrics[name] for record in curve], name


def test_a_view_is_taken_once_more_after_the_driver_ended():
    from rich.console import Console

    words = iter(["running", "running", "done"])
    alive = iter([True, True, False])
    last = watch(lambda: view(trials=1, state=next(words)), Console(quiet=True), poll=0.0, alive=lambda: next(alive))
    assert last.state == "done"
