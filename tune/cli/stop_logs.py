"""`stop` and `logs`: what is said to a sweep's driver, and what it says."""

from __future__ import annotations

import sys
import time

from rich.console import Console

from semprior.errors import UserError
from semprior.reporting.terminal import say
from tune.cli.lookup import jobs_of, sweep_of
from tune.launch.next_command import command
from tune.launch.ray_jobs import Jobs
from tune.monitor.heartbeat import last_heartbeat, request_stop
from tune.store.sweeps import Sweep, driver_log

_PATIENCE = 180.0  # seconds that a driver may take to stop
_POLL = 1.0


def stop(name: str, storage: str | None, address: str | None, console: Console) -> None:
    """Ask a sweep's driver to stop, and wait until it has.

    Raises:
        UserError: it does not run, or does not answer.
    """
    sweep, jobs = sweep_of(name, storage), jobs_of(address)
    beat = last_heartbeat(sweep.storage)
    word = beat.word() if beat is not None else "waiting"
    if beat is None or word != "running":
        _stop_job(sweep, jobs, console)
        if word == "done":
            say(console, f"{name} is done already")
        else:
            say(console, f"{name} does not run ({word}); go on with: {command('resume', sweep)}")
        return
    request_stop(sweep.storage, beat.generation)
    say(console, f"stopping {name}: its trials keep the checkpoint of their last whole epoch")
    deadline = time.monotonic() + _PATIENCE
    while word == "running" and time.monotonic() < deadline:
        time.sleep(_POLL)
        last = last_heartbeat(sweep.storage)
        word = last.word() if last is not None else "lost"
    if word == "running":
        raise UserError(f"{name}: its driver on {beat.host} (process {beat.pid}) does not stop; end it there")
    _stop_job(sweep, jobs, console)
    say(console, f"{name} is {word}; " + ("" if word == "done" else f"go on with: {command('resume', sweep)}"))


def _stop_job(sweep: Sweep, jobs: Jobs | None, console: Console) -> None:
    job = jobs.find(sweep.storage.uri) if jobs is not None else None
    if jobs is not None and job is not None and not job.over:
        jobs.stop(job.id)
        say(console, f"job {job.id} was ended")


def logs(name: str, trial: str | None, storage: str | None, address: str | None, follow: bool) -> None:
    """Print a log, and with `follow` what is added to it until the sweep ends.

    Raises:
        UserError: there is none.
    """
    sweep, jobs = sweep_of(name, storage), jobs_of(address)
    shown = 0
    while True:
        beat = last_heartbeat(sweep.storage)
        running = beat is not None and beat.word() == "running"
        text = _log(sweep, trial, jobs, beat.generation if beat is not None else 1)
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        if not follow or not running:
            return
        time.sleep(_POLL)


def _log(sweep: Sweep, trial: str | None, jobs: Jobs | None, generation: int) -> str:
    if trial is None and jobs is not None:
        job = jobs.find(sweep.storage.uri)
        if job is None:
            raise UserError(f"{sweep.id}: {jobs.target.words} has no job of it")
        return jobs.logs(job.id)
    name = driver_log(generation) if trial is None else f"logs/{trial}.log"
    try:
        return sweep.storage.read(name).decode(errors="replace")
    except FileNotFoundError:
        known = [entry.name.removeprefix("logs/").removesuffix(".log") for entry in sweep.storage.list("logs")]
        there = ", ".join(known) if known else "none yet"
        raise UserError(f"{sweep.id}: no log of {trial or 'its driver'}; there is: {there}") from None
