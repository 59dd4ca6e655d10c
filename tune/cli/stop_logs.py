"""`stop` and `logs`: stop the driver of a sweep, and print what it or a trial has written."""

from __future__ import annotations

import time

from rich.console import Console

from semprior.errors import UserError
from semprior.reporting.terminal import print_lines, say
from tune.launch.ray_jobs import Jobs
from tune.launch.target import Target
from tune.monitor.heartbeat import last_heartbeat, observe, request_stop
from tune.store.sweeps import Sweep, driver_log

_STOP_TIMEOUT = 180.0  # seconds that a driver may take to stop
_POLL = 1.0


def stop(name: str, target: Target, console: Console) -> None:
    """Request a sweep's driver to stop, and wait until it has.

    Raises:
        UserError: there is no such sweep, or its driver does not stop.
    """
    sweep, jobs = target.sweep(name), target.connect()
    heartbeat, state = observe(sweep.storage)
    if heartbeat is None or state != "running":
        _stop_job(sweep, jobs, console)
        if state == "done":
            say(console, f"{name} is done already")
        else:
            say(console, f"{name} does not run ({state}); continue with: {target.command('resume', sweep)}")
        return
    request_stop(sweep.storage, heartbeat.generation)
    say(console, f"stopping {name}: its trials keep the checkpoint of their last complete epoch")
    deadline = time.monotonic() + _STOP_TIMEOUT
    while state == "running" and time.monotonic() < deadline:
        time.sleep(_POLL)
        state = observe(sweep.storage)[1]
    if state == "running":
        raise UserError(f"{name}: its driver on {heartbeat.host} (process {heartbeat.pid}) does not stop; end it there")
    _stop_job(sweep, jobs, console)
    way_out = "" if state == "done" else f"continue with: {target.command('resume', sweep)}"
    say(console, f"{name} is {state}; {way_out}")


def _stop_job(sweep: Sweep, jobs: Jobs | None, console: Console) -> None:
    job = jobs.find(sweep.storage.uri) if jobs is not None else None
    if jobs is not None and job is not None and not job.over:
        jobs.stop(job.id)
        say(console, f"job {job.id} was ended")


def logs(name: str, trial: str | None, target: Target, follow: bool) -> None:
    """Print a log.

    Args:
        name: id of the sweep.
        trial: id of a trial; None: the driver's log.
        target: where the sweep is stored and runs.
        follow: whether to print what is added to the log until the sweep ends.

    Raises:
        UserError: there is no such log.
    """
    sweep, jobs = target.sweep(name), target.connect()
    printed = 0
    while True:
        heartbeat = last_heartbeat(sweep.storage)
        running = heartbeat is not None and heartbeat.observed_state() == "running"
        text = _read_log(sweep, trial, jobs, heartbeat.generation if heartbeat is not None else 1)
        print_lines(text[printed:])
        printed = len(text)
        if not follow or not running:
            return
        time.sleep(_POLL)


def _read_log(sweep: Sweep, trial: str | None, jobs: Jobs | None, generation: int) -> str:
    if trial is None and jobs is not None:
        job = jobs.find(sweep.storage.uri)
        if job is None:
            raise UserError(f"{sweep.id}: {jobs.server.option} has no job of it")
        return jobs.logs(job.id)
    name = driver_log(generation) if trial is None else f"logs/{trial}.log"
    try:
        return sweep.storage.read(name).decode(errors="replace")
    except FileNotFoundError:
        known = [entry.name.removeprefix("logs/").removesuffix(".log") for entry in sweep.storage.list("logs")]
        logs = ", ".join(known) if known else "none yet"
        raise UserError(f"{sweep.id}: no log of {trial or 'its driver'}; there is: {logs}") from None
