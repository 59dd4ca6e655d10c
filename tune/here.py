"""A sweep on this machine: its driver is a process of its own, so that nothing that Ray prints disturbs the table."""

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

from semprior.progress import say
from semprior.terminal import complain
from tune.catalogue import Sweep, command
from tune.looking import Looker
from tune.progress import SweepProgress
from tune.watch import watch

_PATIENCE = 120.0  # seconds that a driver may take to stop


def run_here(sweep: Sweep, generation: int, detach: bool, console: Console) -> SweepProgress | None:
    """Run a driver of a sweep in a local Ray and watch it; detached, it goes on by itself.

    Ctrl-C, or the end of this process in any way, makes the driver stop: every trial has the checkpoint of its last
    whole epoch.

    Returns:
        The last view, with the driver's last words; none where it is detached.
    """
    log = _log_file(sweep, generation)
    arguments = ["--local", "--log", str(log)] + ([] if detach else ["--attached"])
    with log.open("ab") as output:
        driver = subprocess.Popen(
            [sys.executable, "-m", "tune.drive", sweep.storage.uri, str(generation), *arguments],
            stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us: Ray's processes must live until their trials are stored
        )
    if detach:
        say(console, f"{sweep.id} runs in process {driver.pid}; watch it with: {command('status', sweep, '--follow')}")
        return None
    try:
        with _letting_go(driver.stdin):
            view = watch(Looker(sweep, generation), console, alive=lambda: driver.poll() is None)
    except KeyboardInterrupt:
        _stop(driver, sweep, console)
        raise typer.Exit(130) from None
    if driver.returncode not in (0, 2):
        complain("semprior-tune", f"{sweep.id}: {_how_it_broke(driver.returncode, view.note, log)}")
        say(console, f"go on with: {command('resume', sweep)}")
        raise typer.Exit(1)
    if driver.returncode == 2 and not view.note:  # it ended before its first heartbeat
        return replace(view, note=_last_line(log))
    return view


def _stop(driver: subprocess.Popen[bytes], sweep: Sweep, console: Console) -> None:
    say(console, "stopping: every trial keeps the checkpoint of its last whole epoch (Ctrl-C again: at once)")
    try:
        driver.wait(_PATIENCE)  # its standard input has ended: that tells it
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        driver.kill()
        driver.wait()
    say(console, f"{sweep.id} was stopped; go on with: {command('resume', sweep)}")


@contextlib.contextmanager
def _letting_go(pipe: IO[bytes] | None) -> Iterator[None]:
    """Close a pipe at the end; the driver at its other side takes that for a request to stop."""
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


def driver_log(generation: int) -> str:
    """Where a sweep keeps what the driver of a generation wrote."""
    return f"logs/driver-{generation:04d}.log"


def _how_it_broke(code: int, note: str, log: Path) -> str:
    if code < 0:
        return f"its driver was ended by {signal.Signals(-code).name}; log: {log}"
    return f"its driver broke: {note or f'{_last_line(log)}; log: {log}'}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("semprior-tune: ") if lines else "its driver ended"
