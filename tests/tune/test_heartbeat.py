"""A sweep's heartbeat says running, stopped or done; a driver that died is lost; a request to stop is heard."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from semprior.errors import UserError
from semprior.storage import open_storage
from tests.tune.real_sweep import wait_for
from tune.heartbeat import LOST_AFTER, Heart, Heartbeat, hours_before, last_heartbeat, request_stop


@pytest.fixture
def sweep(tmp_path):
    return open_storage(tmp_path / "sweep")


def test_running_then_done(sweep):
    assert last_heartbeat(sweep) is None
    with Heart(sweep, 1) as heart:
        assert last_heartbeat(sweep).word() == "running"
        heart.finish("done")
        assert last_heartbeat(sweep).word() == "running"
    assert last_heartbeat(sweep).word() == "done"


def test_an_error_is_noted(sweep):
    with pytest.raises(ZeroDivisionError), Heart(sweep, 1):
        _ = 1 / 0
    last = last_heartbeat(sweep)
    assert last.word() == "stopped"
    assert re.fullmatch(
        r"ZeroDivisionError: division by zero \(.*test_heartbeat.py:\d+, test_an_error_is_noted\)", last.note
    )


def test_a_request_to_stop_is_heard_by_its_generation_alone(sweep):
    with Heart(sweep, 2, every=0.01) as heart:
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
    with Heart(sweep, 1, every=0.01) as first:
        with pytest.raises(UserError, match=r"another driver has begun, the 1\. of this sweep"), Heart(sweep, 1):
            pass
        assert not first.stop_requested
        with Heart(sweep, 2):  # of someone who took the first for lost
            wait_for(lambda: first.stop_requested)


def test_hours_are_those_of_the_drivers_before(sweep):
    for generation, hours in ((1, 2.0), (2, 0.5), (3, 4.0)):
        beat = Heartbeat(generation, "stopped", 7.2e3 + 3.6e3 * hours, 7.2e3, "host", "", os.getpid())
        sweep.put(f"heartbeat/{generation:04d}.json", json.dumps(asdict(beat)).encode())
    assert hours_before(sweep, 1) == 0
    assert hours_before(sweep, 3) == pytest.approx(2.5)


def test_silence_and_a_process_that_is_gone_are_lost(sweep):
    with Heart(sweep, 1):
        beat = last_heartbeat(sweep)
    running = replace(beat, state="running", pid=os.getpid())
    assert running.word(beat.time + LOST_AFTER - 1) == "running"
    assert running.word(beat.time + LOST_AFTER + 1) == "lost"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert replace(running, pid=gone.pid).word(beat.time) == "lost"
    assert replace(running, pid=gone.pid, host="elsewhere").word(beat.time) == "running"


def test_the_newest_generation_speaks(sweep):
    for generation in (1, 2):
        with Heart(sweep, generation):
            pass
    assert last_heartbeat(sweep).generation == 2
