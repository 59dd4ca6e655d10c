"""The commands refuse a sweep whose data were changed or that runs already, and name the files that they leave out."""

import json
import os
import time
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from semprior.data.remote_data import data_identity
from semprior.errors import UserError
from tests.tune.made_up import made_up_sweep
from tune.cli.app import main
from tune.launch.local_driver import run_here
from tune.launch.target import read_target
from tune.monitor.heartbeat import Heartbeat, HeartbeatWriter
from tune.store.records import SCHEMA_VERSION
from tune.store.results_store import ResultsStore
from tune.store.snapshot import NEW


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    made = made_up_sweep(tmp_path)
    monkeypatch.setenv("SEMPRIOR_STORAGE", str(tmp_path / "runs"))
    return made


def refused(capsys, *words):
    capsys.readouterr()
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("command", ["resume", "retry"])
def test_changed_data_are_refused_before_anything_begins(sweep, tmp_path, capsys, command):
    image = sorted((tmp_path / "scenes" / "images").iterdir())[0]
    whole, before = image.read_bytes(), data_identity(tmp_path / "scenes")
    image.write_bytes(whole + b"x")
    if command == "retry":
        trial_fails(sweep)
    assert "small: its data, " in refused(capsys, command, "small")
    assert not sweep.storage.exists("heartbeat") and not sweep.storage.exists("logs")
    image.write_bytes(whole)
    os.utime(image, (1, 1))
    assert data_identity(tmp_path / "scenes") == before


def trial_fails(sweep):
    store = ResultsStore(sweep.storage)
    last = store.history("0002")[-1]
    store.append([replace(last, kind="end", state="failed", reason="x", epoch=last.epoch + 1)])


def test_an_edited_sweep_is_refused_by_every_command(sweep, capsys):
    content = sweep.storage.read("sweep.json").replace(b'"trials": 12', b'"trials": 13')
    sweep.storage.put("sweep.json", content)
    for command in ("resume", "retry", "top", "status"):
        assert "sweep.json: was changed after the sweep had begun" in refused(capsys, command, "small")


def test_of_two_commands_at_the_same_moment_the_loser_says_that_the_other_runs(sweep, tmp_path):
    target = read_target({}, str(tmp_path / "runs"))
    with HeartbeatWriter(sweep.storage, 1), pytest.raises(UserError) as caught:
        run_here(sweep, 1, target, False, Console(quiet=True))
    assert f"(process {os.getpid()}), begun by another command at the same moment" in str(caught.value)
    log = tmp_path / str(caught.value).rpartition("log of this one: ")[2]
    assert "another driver has begun, number 1" in log.read_text()
    assert log.name != "driver-0001.log" and not (log.parent / "driver-0001.log").exists()


def test_a_heartbeat_from_the_future_does_not_block_resume(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tune.monitor.heartbeat.WATCH", 0.2)
    ahead = time.time() + 7200
    beat = Heartbeat(1, "running", ahead, ahead, "elsewhere", "", 7)
    sweep.storage.put("heartbeat/0001.json", json.dumps(asdict(beat)).encode())
    begun = []
    monkeypatch.setattr("tune.cli.submit.run_here", lambda sweep, generation, *_: begun.append(generation))
    assert main(["resume", "small"]) == 0
    assert begun == [2]
    assert "its driver on elsewhere seems to be lost; watching it first" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["top", "status", "list", "show", "pull"])
def test_what_is_left_out_is_said(sweep, tmp_path, capsys, command):
    sweep.storage.put(f"{NEW}/notes.json", b"")
    sweep.storage.put(f"{NEW}/x.{'0' * 64}@0005.v{SCHEMA_VERSION}.parquet", b"")
    words = {"show": ["0001"], "list": [], "pull": []}.get(command, [])
    name = [] if command == "list" else ["small"]
    if command == "pull":
        assert "has no checkpoint" in refused(capsys, "pull", "small:0001", "--out", str(tmp_path / "out"))
        return
    assert main([command, *name, *words]) == 0
    said = capsys.readouterr().out
    assert "2 files are left out: " in said
    assert "notes.json is not a file of records" in said
    assert "is empty (records of trial 0005 are missing)" in said
