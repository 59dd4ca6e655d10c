"""A heartbeat says running, stopped or done; a driver that died is lost; a request to stop reaches the driver."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

import semprior.io.storage
from semprior.errors import UserError
from semprior.io.storage import open_storage
from tests.tune.real_sweep import wait_for
from tune.monitor.heartbeat import (
    LOST_AFTER,
    Heartbeat,
    HeartbeatWriter,
    hours_before,
    last_heartbeat,
    observe,
    read_drivers,
    request_stop,
)


@pytest.fixture
def sweep(tmp_path):
    return open_storage(tmp_path / "sweep")


def test_running_then_done(sweep):
    assert last_heartbeat(sweep) is None
    with HeartbeatWriter(sweep, 1) as heart:
        assert last_heartbeat(sweep).observed_state() == "running"
        heart.finish("done")
        assert last_heartbeat(sweep).observed_state() == "running"
    assert last_heartbeat(sweep).observed_state() == "done"


def test_an_error_is_noted(sweep):
    with pytest.raises(ZeroDivisionError), HeartbeatWriter(sweep, 1):
        _ = 1 / 0
    last = last_heartbeat(sweep)
    assert last.observed_state() == "stopped"
    assert re.fullmatch(
        r"ZeroDivisionError: division by zero \(.*test_heartbeat.py:\d+, test_an_error_is_noted\)", last.note
    )


def test_a_request_to_stop_reaches_its_generation_alone(sweep):
    with HeartbeatWriter(sweep, 2, interval=0.01) as heart:
        request_stop(sweep, 1)
        began = last_heartbeat(sweep).time
        while last_heartbeat(sweep).time < began + 0.05:
            time.sleep(0.01)
        assert not heart.stop_requested
        request_stop(sweep, 2)
        deadline = time.monotonic() + 30
        while not heart.stop_requested and time.monotonic() < deadline:
            time.sleep(0.01)
        assert heart.stop_requested


def test_of_two_drivers_one_runs(sweep):
    with HeartbeatWriter(sweep, 1, interval=0.01) as first:
        with (
            pytest.raises(UserError, match=r"another driver has begun, number 1 of this sweep"),
            HeartbeatWriter(sweep, 1),
        ):
            pass
        assert not first.stop_requested
        with HeartbeatWriter(sweep, 2):  # of someone who took the first for lost
            wait_for(lambda: first.stop_requested)


def test_hours_are_those_of_the_drivers_before(sweep):
    for generation, hours in ((1, 2.0), (2, 0.5), (3, 4.0)):
        # the clock of the day jumped by ten hours meanwhile
        beat = Heartbeat(generation, "stopped", 3.6e4, 0.0, "host", "", os.getpid(), active=3600 * hours)
        sweep.put(f"heartbeat/{generation:04d}.json", json.dumps(asdict(beat)).encode())
    assert hours_before(sweep, 1) == 0
    assert hours_before(sweep, 3) == pytest.approx(2.5)


def test_a_driver_counts_the_seconds_that_it_runs_whatever_the_clock_of_the_day_says(sweep, monkeypatch):
    days = iter(range(1000))
    monkeypatch.setattr("tune.monitor.heartbeat.time.time", lambda: 86400.0 * next(days))
    began = time.monotonic()
    with HeartbeatWriter(sweep, 1):
        time.sleep(0.01)
    assert 0.01 <= last_heartbeat(sweep).active <= time.monotonic() - began
    assert hours_before(sweep, 2) < 0.1


def foreign(sweep, state="running", ahead=0.0, **changes):
    """A heartbeat of a driver on another machine, whose clock is ahead."""
    now = time.time() + ahead
    beat = replace(Heartbeat(1, state, now, now, "elsewhere", "", 7), **changes)
    sweep.put(f"heartbeat/{beat.generation:04d}.json", json.dumps(asdict(beat)).encode())
    return beat


@pytest.mark.parametrize("ahead", [10 * 3600.0, -10 * 3600.0])
def test_a_heartbeat_of_another_clock_counts_while_it_is_renewed(sweep, ahead):
    foreign(sweep, ahead=ahead)
    assert observe(sweep, 0.2)[1] == "lost"

    renewed = threading.Event()

    def renew():
        while not renewed.wait(0.05):
            foreign(sweep, ahead=ahead)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        assert observe(sweep, 30.0)[1] == "running"
    finally:
        renewed.set()
        thread.join()
    foreign(sweep, "stopped", ahead)
    assert observe(sweep, 0.2)[1] == "stopped"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"generation": 2}', b"\xff", b"[" * 100_000])
def test_a_damaged_heartbeat_is_named_and_a_resume_follows_it(sweep, content):
    foreign(sweep, "stopped", active=3600.0)
    sweep.put("heartbeat/0002.json", content)
    drivers = read_drivers(sweep)
    assert (drivers.newest.generation, observe(sweep, 0.1)[1]) == (2, "lost")
    assert len(drivers.left_out) == 1 and drivers.left_out[0].startswith("heartbeat/0002.json is damaged")
    assert hours_before(sweep, 3) == pytest.approx(1)  # those of the first driver


def test_foreign_files_beside_the_heartbeats_are_named_and_a_newer_version_is_understood(sweep):
    beat = foreign(sweep)
    sweep.put("heartbeat/0001.json", json.dumps(asdict(beat) | {"mood": "good"}).encode())
    for name in ("notes.json", "0001 (conflicted copy).json", "0001.sync-conflict-20260101.json", "x.stop"):
        sweep.put(f"heartbeat/{name}", b"{}")
    request_stop(sweep, 1)
    drivers = read_drivers(sweep)
    assert drivers.newest == beat
    assert len(drivers.left_out) == 4
    assert "heartbeat/notes.json is not a heartbeat" in drivers.left_out


def test_a_driver_whose_sweep_was_removed_stops_and_writes_nothing(sweep):
    sweep.put("sweep.json", b"{}")
    with HeartbeatWriter(sweep, 1, interval=0.01, required="sweep.json") as heart:
        shutil.rmtree(sweep.local)
        wait_for(lambda: heart.stop_requested)
    assert heart.fault == f"{sweep.uri}: the folder of the sweep was removed while it ran"
    assert not sweep.local.exists()


def test_of_two_drivers_that_claim_a_number_in_a_bucket_the_later_one_runs(sweep):
    with HeartbeatWriter(sweep, 1, interval=0.01) as first:
        beats = []
        # renewed, as a driver does: a single one is lost if the first looks before it and writes after it
        wait_for(lambda: beats.append(foreign(sweep)) or first.stop_requested)
        assert first.fault.endswith("another driver of the same number, 1, runs on elsewhere")
    assert last_heartbeat(sweep) == beats[-1]


class FullDisk:
    """No new file can be written, as on a full disk."""

    def __init__(self, monkeypatch):
        self.full = False
        write = semprior.io.storage.write_atomically

        def refuse(path, content):
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            write(path, content)

        monkeypatch.setattr("semprior.io.storage.write_atomically", refuse)


def test_on_a_full_disk_the_state_names_the_disk_and_the_end_is_written(sweep, monkeypatch):
    disk = FullDisk(monkeypatch)
    with HeartbeatWriter(sweep, 1, interval=0.01) as heart:
        disk.full = True
        beat = wait_for(lambda: (found := last_heartbeat(sweep)).note and found)
        assert beat.observed_state() == "running"
        assert re.fullmatch(r"waits for its storage: .*/heartbeat/0001.json: the disk is full", beat.note)
        heart.finish("stopped", "the disk is full")
    assert (last_heartbeat(sweep).state, last_heartbeat(sweep).note) == ("stopped", "the disk is full")


def test_a_disk_that_is_almost_full_is_named(sweep, monkeypatch):
    monkeypatch.setattr("tune.monitor.heartbeat.shutil.disk_usage", lambda _: SimpleNamespace(free=3e6))
    with HeartbeatWriter(sweep, 1, interval=0.01):
        wait_for(lambda: last_heartbeat(sweep).note)
        assert last_heartbeat(sweep).note == f"the disk of {sweep.local} is full: 3 MB are left"


def test_silence_and_a_process_that_is_gone_are_lost(sweep):
    with HeartbeatWriter(sweep, 1):
        beat = last_heartbeat(sweep)
    running = replace(beat, state="running", pid=os.getpid())
    assert running.observed_state(beat.time + LOST_AFTER - 1) == "running"
    assert running.observed_state(beat.time + LOST_AFTER + 1) == "lost"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert replace(running, pid=gone.pid).observed_state(beat.time) == "lost"
    assert replace(running, pid=gone.pid, host="elsewhere").observed_state(beat.time) == "running"


def test_the_newest_generation_speaks(sweep):
    for generation in (1, 2):
        with HeartbeatWriter(sweep, generation):
            pass
    assert last_heartbeat(sweep).generation == 2
