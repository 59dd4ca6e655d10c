"""A sweep on this machine. Its driver is a separate process, so that Ray's output does not disturb the live table."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import typer
from rich.console import Console

from semprior.reading.files import only_regular
from semprior.reporting.terminal import print_error, say
from tune.launch.target import Target
from tune.monitor.live_view import watch
from tune.monitor.sweep_progress import ProgressReader, SweepProgress
from tune.store.sweeps import Sweep, driver_log

_STOP_TIMEOUT = 120.0  # seconds that a driver may take to stop


def run_here(sweep: Sweep, generation: int, target: Target, detach: bool, console: Console) -> SweepProgress | None:
    """Run a driver of a sweep in a local Ray and watch it.

    Ctrl-C, or the end of this process in any other way, makes the driver stop: every trial keeps the checkpoint of its
    last complete epoch. A detached driver runs on without this process.

    Returns:
        The last view of the sweep, with the driver's last note; None if detached.
    """
    log = _log_file(sweep, generation)
    arguments = ["--local", "--log", str(log)] + ([] if detach else ["--attached"])
    with open(log, "ab", opener=only_regular) as output:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tune.session.driver_process", sweep.storage.uri, str(generation), *arguments],
            stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C must not reach Ray's processes before their trials are stored
        )
    if detach:
        say(
            console,
            f"{sweep.id} runs in process {driver.pid}; watch it with: {target.command('status', sweep, '--follow')}",
        )
        return None
    try:
        with _closing(driver.stdin):
            view = watch(ProgressReader(sweep, generation), console, alive=lambda: driver.poll() is None)
    except KeyboardInterrupt:
        _stop(driver, sweep, target, console)
        raise typer.Exit(130) from None
    if driver.returncode not in (0, 2):
        print_error("semprior-tune", f"{sweep.id}: {_crash_reason(driver.returncode, view.note, log)}")
        say(console, f"continue with: {target.command('resume', sweep)}")
        raise typer.Exit(1)
    if driver.returncode == 2 and not view.note:  # it ended before its first heartbeat
        return replace(view, note=_last_line(log))
    return view


def _stop(driver: subprocess.Popen[bytes], sweep: Sweep, target: Target, console: Console) -> None:
    say(console, "stopping: every trial keeps the checkpoint of its last complete epoch (Ctrl-C again stops at once)")
    try:
        driver.wait(_STOP_TIMEOUT)  # the end of its standard input asks it to stop
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        driver.kill()
        driver.wait()
    say(console, f"{sweep.id} was stopped; continue with: {target.command('resume', sweep)}")


@contextlib.contextmanager
def _closing(pipe: IO[bytes] | None) -> Iterator[None]:
    """Close a pipe at the end of the context, which the driver at its other end takes as a request to stop."""
    try:
        yield
    finally:
        if pipe is not None:
            pipe.close()


def _log_file(sweep: Sweep, generation: int) -> Path:
    name = driver_log(generation)
    folder = sweep.storage.local or Path(tempfile.mkdtemp(prefix="semprior-"))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _crash_reason(code: int, note: str, log: Path) -> str:
    if code < 0:
        return f"its driver was ended by {signal.Signals(-code).name}; log: {log}"
    return f"its driver broke: {note or f'{_last_line(log)}; log: {log}'}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("semprior-tune: ") if lines else "its driver ended"
