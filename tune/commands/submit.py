"""`submit` and `resume`: a sweep begins, or goes on, on this machine or as a job of a cluster, and is watched."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from semprior.errors import UserError
from semprior.progress import say
from semprior.remote import is_address, look
from semprior.storage import open_storage
from semprior.terminal import complain
from tune.catalogue import Sweep, command, create_sweep
from tune.commands.outcome import require_value
from tune.commands.places import jobs_of, sweep_of
from tune.ends import begin_again
from tune.heartbeat import Heartbeat, last_heartbeat
from tune.here import run_here
from tune.jobs import CLUSTER_VARIABLE, Job, Jobs
from tune.local import usable_gpus
from tune.looking import Looker
from tune.probe import idle_gpus
from tune.progress import OPEN, SweepProgress
from tune.results import ResultsStore
from tune.sweep import SweepSpec, load_sweep
from tune.watch import watch
from tune.weights import check_weights, refuse_files

_ASK_EVERY = 10.0  # seconds between two questions to a job server


@dataclass(frozen=True)
class Request:
    """What `submit` is given.

    Attributes:
        file: the sweep file.
        storage: in place of the file's; none: that one.
        address: of a job server; none: this machine.
        id: of the sweep; none: its name.
        detach: whether to return at once.
    """

    file: Path
    storage: str | None
    address: str | None
    id: str | None
    detach: bool


def submit(request: Request, console: Console) -> None:
    """Begin a sweep.

    Raises:
        UserError: a fault in the sweep file, data, storage or cluster, or the id is taken; nothing runs then.
    """
    spec = read_spec(request)
    jobs = jobs_of(request.address)
    if jobs is not None:
        check_reach(spec)
        jobs.probe(spec)
    else:
        _tell_idle_gpus(spec, console)
    begin(create_sweep(open_storage(spec.storage), request.id or spec.name, spec), jobs, request.detach, console)


def begin(sweep: Sweep, jobs: Jobs | None, detach: bool, console: Console) -> SweepProgress | None:
    """Start the first driver of a sweep; its last view, unless it is detached."""
    spec = sweep.spec
    say(console, f"{sweep.id}: {spec.budget.trials * spec.seeds} trials, stored in {sweep.storage.uri}")
    return run(sweep, 1, jobs, detach, console)


def resume(name: str, storage: str | None, address: str | None, detach: bool, console: Console) -> None:
    """Go on with a sweep.

    Raises:
        UserError: it runs already; or it is done, and no trial has a value.
    """
    sweep = sweep_of(name, storage)
    beat = _resting(sweep)
    if beat is not None and beat.state == "done":
        view, retried = Looker(sweep)(), ResultsStore(sweep.storage).faults().retried
        if not any(row.state in OPEN and row.trial in retried for row in view.rows):  # else `retry` was cut off
            require_value(sweep, view)
            say(console, f"{name} is done, nothing is left to run; its ranking: {command('top', sweep)}")
            return
    jobs = _ready(sweep, address, console)
    run(sweep, beat.generation + 1 if beat is not None else 1, jobs, detach, console)


def retry(
    name: str, trials: Sequence[str], storage: str | None, address: str | None, detach: bool, console: Console
) -> None:
    """Run failed trials of a sweep again, from their last checkpoints, and whatever else is left of it.

    Args:
        name: of the sweep.
        trials: ids of failed trials; empty: all of them.
        storage: of the sweep; none: the usual one.
        address: of a job server; none: this machine.
        detach: whether to return at once.
        console: to say what happens on.

    Raises:
        UserError: it runs; or one of these trials is not known, or has not failed.
    """
    sweep = sweep_of(name, storage)
    beat = _resting(sweep)
    store = ResultsStore(sweep.storage)
    states = {trial.trial: trial.state for trial in store.trials()}
    for trial in trials:
        if trial not in states:
            known = f"{min(states)} to {max(states)}" if states else "none yet"
            raise UserError(f"{name}: no trial {trial}; there are: {known}")
        if states[trial] != "failed":
            raise UserError(f"{name}: trial {trial} has not failed: {states[trial]}")
    chosen = sorted(set(trials)) or [trial for trial, state in states.items() if state == "failed"]
    if not chosen:
        say(console, f"{name}: no trial has failed")
        return
    jobs = _ready(sweep, address, console)
    begin_again(store, chosen, "tried again, as `retry` asked for")
    say(console, f"{name}: runs again: {', '.join(chosen)}")
    run(sweep, beat.generation + 1 if beat is not None else 1, jobs, detach, console)


def _resting(sweep: Sweep) -> Heartbeat | None:
    """The last heartbeat of a sweep that does not run; none before its first driver."""
    beat = last_heartbeat(sweep.storage)
    if beat is not None and beat.word() == "running":
        raise UserError(f"{sweep.id}: is running on {beat.host}; stop it with `{command('stop', sweep)}`")
    return beat


def _ready(sweep: Sweep, address: str | None, console: Console) -> Jobs | None:
    """See that a sweep can go on; the job server that it goes on by."""
    check_data(sweep.spec)
    jobs = jobs_of(address)
    if jobs is None:
        _tell_idle_gpus(sweep.spec, console)
        return None
    job = jobs.find(sweep.storage.uri)
    if job is not None and not job.over:  # it has yet to begin, or cannot reach the storage
        raise UserError(f"{sweep.id}: job {job.id} of it is {job.state}; end it with `{command('stop', sweep)}`")
    jobs.probe(sweep.spec)
    return jobs


def run(sweep: Sweep, generation: int, jobs: Jobs | None, detach: bool, console: Console) -> SweepProgress | None:
    """Start a driver and watch it, unless detached.

    Raises:
        UserError: it ended by a fault of the user.
    """
    if jobs is None:
        view = run_here(sweep, generation, detach, console)
    else:
        view = run_there(sweep, generation, jobs, detach, console)
    if view is not None:
        conclude(sweep, view, console)
    return view


def run_there(sweep: Sweep, generation: int, jobs: Jobs, detach: bool, console: Console) -> SweepProgress | None:
    """Start a driver as a job and watch it from here; Ctrl-C ends the watching alone."""
    job = jobs.submit(sweep.id, sweep.storage.uri, generation)
    say(console, f"{sweep.id}: submitted to {jobs.target.name} as {job.id}")
    if detach:
        say(console, f"watch it with: {command('status', sweep, '--follow')}")
        return None
    try:
        view = watch(Looker(sweep, generation), console, alive=_asking(jobs, job))
    except KeyboardInterrupt:
        say(console, f"{sweep.id} goes on; watch it with: {command('status', sweep, '--follow')}")
        say(console, f"stop it with: {command('stop', sweep)}")
        raise typer.Exit(130) from None
    ended = jobs.state(job.id)
    if ended.state == "failed" and view.word not in ("stopped", "done"):
        there = () if os.environ.get(CLUSTER_VARIABLE) else ("--address", jobs.target.address)
        log = command("logs", sweep, *there)
        raise UserError(f"{sweep.id}: its job failed: {ended.message}; see `{log}`")
    if ended.code == 1:
        complain("semprior-tune", f"{sweep.id}: its driver broke: {view.note}")
        say(console, f"go on with: {command('resume', sweep)}")
        raise typer.Exit(1)
    return view


def conclude(sweep: Sweep, view: SweepProgress, console: Console) -> None:
    """What is to be said when a driver has ended.

    Raises:
        UserError: it ended by a fault of the user, or the sweep is done and no trial has a value.
    """
    if view.word == "done":
        require_value(sweep, view)
        for line in view.failures():
            say(console, line)
        if view.failures():
            say(console, f"run what failed again with: {command('retry', sweep)}")
        say(console, f"{sweep.id} is done; its ranking: {command('top', sweep)}")
        return
    if view.note:
        raise UserError(f"{sweep.id}: {view.note}; once that is mended, go on with: {command('resume', sweep)}")
    say(console, f"{sweep.id} was stopped; go on with: {command('resume', sweep)}")


def read_spec(request: Request) -> SweepSpec:
    """The sweep file, with the storage of the command line, held against its data."""
    spec = load_sweep(request.file, os.environ)
    if request.storage:
        spec = spec.model_copy(update={"storage": open_storage(request.storage).uri})
    check_data(spec)
    return spec


def check_data(spec: SweepSpec) -> None:
    """Refuse data that cannot be trained on, objectives that need masks where there are none, and absent weights."""
    from semprior.data.layout import all_masked, find_layout

    check_weights(spec)
    if is_address(spec.data):
        spec.require_masks(bool(look(spec.data, "data").about.get("masks")))
        return
    spec.require_masks(all_masked(find_layout(spec.data), "train"))


def check_reach(spec: SweepSpec) -> None:
    """Refuse what only this machine has: a cluster gets addresses, not files; a shared folder's is file:///..."""
    if not os.environ.get(CLUSTER_VARIABLE):
        return
    refuse_files(spec)
    if not is_address(spec.data):
        raise UserError(
            f"data: {spec.data}: is on this machine only; put it where the cluster fetches it, with"
            f" `semprior data push {shlex.quote(spec.data)} URI`, and write data: URI"
        )


def _tell_idle_gpus(spec: SweepSpec, console: Console) -> None:
    """What the probe of a cluster tells, of this machine."""
    if wasted := idle_gpus(spec.resources, [{"GPU": usable_gpus()}], "this machine"):
        say(console, wasted)


def _asking(jobs: Jobs, job: Job) -> Callable[[], bool]:
    last, asked = job, time.monotonic()

    def alive() -> bool:
        nonlocal last, asked
        if not last.over and time.monotonic() - asked > _ASK_EVERY:
            last, asked = jobs.state(job.id), time.monotonic()
        return not last.over

    return alive
