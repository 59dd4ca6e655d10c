"""`submit`, `resume`, `extend` and `retry`: start or continue a sweep, here or as a job of a cluster, and watch it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from rich.console import Console

from semprior.data.remote_data import data_identity
from semprior.errors import UserError
from semprior.io.push_fetch import is_address, read_manifest
from semprior.io.storage import open_storage
from semprior.reporting.terminal import print_error, say
from tune.cli.outcome import require_value
from tune.launch.local_driver import run_here
from tune.launch.local_ray import usable_gpus
from tune.launch.preflight import idle_gpus
from tune.launch.ray_jobs import Job, Jobs
from tune.launch.target import Target
from tune.launch.weights_check import check_weights, refuse_files
from tune.monitor.heartbeat import Heartbeat, last_generation, observe
from tune.monitor.live_view import watch
from tune.monitor.sweep_progress import UNFINISHED, ProgressReader, SweepProgress
from tune.session.trial_records import retry_trials
from tune.spec.sweep_file import SweepSpec, load_sweep
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep, SweepExistsError, create_sweep, extend_sweep, require_unchanged

_JOB_POLL = 10.0  # seconds between two questions to a job server


def submit(file: Path, sweep_id: str | None, target: Target, detach: bool, console: Console) -> None:
    """Start a sweep.

    Args:
        file: sweep file.
        sweep_id: id of the sweep; None: the name in the file.
        target: where the sweep is stored and runs.
        detach: whether to return at once.
        console: console for messages.

    Raises:
        UserError: a fault in the sweep file, data, storage or cluster, or the id is taken; nothing is started.
    """
    spec = read_spec(file, target, console)
    jobs = target.connect()
    if jobs is not None:
        check_reach(spec, target)
        jobs.check(spec)
    else:
        _warn_of_idle_gpus(spec, console)
    try:
        sweep = create_sweep(open_storage(spec.storage), sweep_id or spec.name, spec, data_identity(spec.data))
    except SweepExistsError as error:
        raise UserError(f"{error}, or continue that one: `{target.command('resume', error.sweep)}`") from error
    begin(sweep, target, jobs, detach, console)


def begin(sweep: Sweep, target: Target, jobs: Jobs | None, detach: bool, console: Console) -> SweepProgress | None:
    """Start the first driver of a sweep and watch it, unless detached; returns the last progress."""
    spec = sweep.spec
    most = "at most " if spec.races else ""
    say(console, f"{sweep.id}: {most}{spec.budget.trials * spec.run_count} trials, stored in {sweep.storage.uri}")
    return run(sweep, 1, target, jobs, detach, console)


def resume(name: str, target: Target, detach: bool, console: Console) -> None:
    """Continue a sweep.

    Raises:
        UserError: it runs already, or it is done and no trial has a value.
    """
    sweep = target.sweep(name)
    heartbeat = _require_idle(sweep, target, console)
    if heartbeat is not None and heartbeat.state == "done":
        view, retried = ProgressReader(sweep)(), ResultsStore(sweep.storage).faults().retried
        left = any(row.state in UNFINISHED and row.trial in retried for row in view.rows)  # `retry` was cut off
        if not left and not _extended_since(sweep, heartbeat):
            require_value(sweep, view, target)
            say(console, f"{name} is done, nothing is left to run; its ranking: {target.command('top', sweep)}")
            return
    jobs = _prepare(sweep, target, console)
    run(sweep, heartbeat.generation + 1 if heartbeat is not None else 1, target, jobs, detach, console)


def _extended_since(sweep: Sweep, heartbeat: Heartbeat) -> bool:
    """Whether the budget of a sweep was raised while a driver was its newest one, which may not have seen it."""
    return any(extension.generation >= heartbeat.generation for extension in sweep.extensions)


def extend(name: str, trials: int | None, hours: float | None, target: Target, detach: bool, console: Console) -> None:
    """Raise the budget of a sweep, and continue it unless it runs.

    Args:
        name: id of the sweep.
        trials: number of configurations to add; None for none.
        hours: hours to add; None for none.
        target: where the sweep is stored and runs.
        detach: whether to return at once.
        console: console for messages.

    Raises:
        UserError: the budget cannot be raised by these numbers, or the sweep cannot be continued; its budget is as it
            was.
    """
    if trials is None and hours is None:
        raise UserError("extend: must be given --trials +N, --hours +H or both")
    if trials is not None and trials < 1:
        raise UserError(f"--trials {trials:+d}: must be a whole number above 0")
    if hours is not None and not hours > 0:
        raise UserError(f"--hours {hours:+g}: must be a number above 0")
    sweep = target.sweep(name)
    heartbeat, state = observe(sweep.storage)
    jobs = _prepare(sweep, target, console) if state != "running" else None
    begun = len({trial.configuration for trial in ResultsStore(sweep.storage).trials()})
    sweep = extend_sweep(sweep, trials or 0, hours or 0.0, begun, last_generation(sweep.storage))
    budget = sweep.spec.budget
    limit = f" and {budget.hours:g} hours" if budget.hours is not None else ""
    say(console, f"{name}: its budget is {budget.trials} configurations{limit} now")
    if state != "running":
        run(sweep, heartbeat.generation + 1 if heartbeat is not None else 1, target, jobs, detach, console)
    elif observe(sweep.storage)[1] == "running":
        say(console, f"its driver takes that up; watch it with: {target.command('status', sweep, '--follow')}")
    else:  # it has ended meanwhile
        resume(name, target, detach, console)


def retry(name: str, trials: Sequence[str], target: Target, detach: bool, console: Console) -> None:
    """Run failed trials of a sweep again, from their last checkpoints, and everything else that is left of it.

    Args:
        name: id of the sweep.
        trials: ids of failed trials; empty: all of them.
        target: where the sweep is stored and runs.
        detach: whether to return at once.
        console: console for messages.

    Raises:
        UserError: the sweep runs; or one of these trials does not exist, or has not failed.
    """
    sweep = target.sweep(name)
    heartbeat = _require_idle(sweep, target, console)
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
    jobs = _prepare(sweep, target, console)
    retry_trials(store, chosen, "tried again, as `retry` asked for")
    say(console, f"{name}: runs again: {', '.join(chosen)}")
    run(sweep, heartbeat.generation + 1 if heartbeat is not None else 1, target, jobs, detach, console)


def _require_idle(sweep: Sweep, target: Target, console: Console) -> Heartbeat | None:
    """The last heartbeat of a sweep that must not be running; None before its first driver."""

    def on_wait(seen: Heartbeat) -> None:
        say(console, f"{sweep.id}: its driver on {seen.host or 'an unknown host'} seems to be lost; watching it first")

    heartbeat, state = observe(sweep.storage, on_wait=on_wait)
    if heartbeat is not None and state == "running":
        raise UserError(f"{sweep.id}: is running on {heartbeat.host}; stop it with `{target.command('stop', sweep)}`")
    return heartbeat


def _prepare(sweep: Sweep, target: Target, console: Console) -> Jobs | None:
    """Check that a sweep can be continued; returns the jobs of the cluster that it will run on."""
    check_data(sweep.spec)
    require_unchanged(sweep, data_identity(sweep.spec.data))
    jobs = target.connect()
    if jobs is None:
        _warn_of_idle_gpus(sweep.spec, console)
        return None
    job = jobs.find(sweep.storage.uri)
    if job is not None and not job.over:  # it has not begun yet, or cannot reach the storage
        raise UserError(f"{sweep.id}: job {job.id} of it is {job.state}; end it with `{target.command('stop', sweep)}`")
    jobs.check(sweep.spec)
    return jobs


def run(
    sweep: Sweep, generation: int, target: Target, jobs: Jobs | None, detach: bool, console: Console
) -> SweepProgress | None:
    """Start a driver and watch it, unless detached; returns the last progress.

    Raises:
        UserError: the driver ended by a fault of the user.
    """
    if jobs is None:
        view = run_here(sweep, generation, target, detach, console)
    else:
        view = run_there(sweep, generation, target, jobs, detach, console)
    if view is not None:
        report_end(sweep, view, target, console)
    return view


def run_there(
    sweep: Sweep, generation: int, target: Target, jobs: Jobs, detach: bool, console: Console
) -> SweepProgress | None:
    """Start a driver as a job and watch it from this machine; Ctrl-C ends only the watching."""
    job = jobs.submit(sweep.id, sweep.storage.uri, generation)
    say(console, f"{sweep.id}: submitted to {jobs.server.name} as {job.id}")
    if detach:
        say(console, f"watch it with: {target.command('status', sweep, '--follow')}")
        return None
    try:
        view = watch(ProgressReader(sweep, generation), console, alive=_job_is_alive(jobs, job))
    except KeyboardInterrupt:
        say(console, f"{sweep.id} continues; watch it with: {target.command('status', sweep, '--follow')}")
        say(console, f"stop it with: {target.command('stop', sweep)}")
        raise typer.Exit(130) from None
    ended = jobs.state(job.id)
    if ended.state == "failed" and view.state not in ("stopped", "done"):
        address = () if target.cluster else ("--address", jobs.server.address)
        log = target.command("logs", sweep, *address)
        raise UserError(f"{sweep.id}: its job failed: {ended.message}; see `{log}`")
    if ended.code == 1:
        print_error("semprior-tune", f"{sweep.id}: its driver broke: {view.note}")
        say(console, f"continue with: {target.command('resume', sweep)}")
        raise typer.Exit(1)
    return view


def report_end(sweep: Sweep, view: SweepProgress, target: Target, console: Console) -> None:
    """Print how a driver has ended, and the next command.

    Raises:
        UserError: it ended by a fault of the user, or the sweep is done and no trial has a value.
    """
    if view.state == "done":
        require_value(sweep, view, target)
        for line in view.failures():
            say(console, line)
        if view.failures():
            say(console, f"run the failed trials again with: {target.command('retry', sweep)}")
        say(console, f"{sweep.id} is done; its ranking: {target.command('top', sweep)}")
        return
    if view.note:
        raise UserError(
            f"{sweep.id}: {view.note}; once that is mended, continue with: {target.command('resume', sweep)}"
        )
    say(console, f"{sweep.id} was stopped; continue with: {target.command('resume', sweep)}")


def read_spec(file: Path, target: Target, console: Console) -> SweepSpec:
    """Read a sweep file, with the storage of the target, and check it against its data; find what it starts with."""
    spec = load_sweep(file, target.sweep_variables)
    if target.storage_option:
        spec = spec.model_copy(update={"storage": open_storage(target.storage_option).uri})
    check_data(spec)
    from tune.search.winners import with_winners  # Optuna takes a second

    spec, said = with_winners(spec, open_storage(spec.storage))
    for line in said:
        say(console, line)
    return spec


def check_data(spec: SweepSpec) -> None:
    """Refuse data that cannot be trained on, lack masks or, in a folder, images for the folds; and missing weights."""
    from semprior.data.layout import all_masked, find_layout
    from semprior.data.splits import assign_folds

    check_weights(spec)
    if is_address(spec.data):
        spec.require_masks(bool(read_manifest(spec.data, "data").about.get("masks")))
        return
    layout = find_layout(spec.data)
    spec.require_masks(all_masked(layout, "train"))
    if spec.runs.folds:
        names = [name for split in ("train", "val") for name in layout.splits.get(split, ())]
        assign_folds(names, [()] * len(names), spec.runs.folds, 0, layout.groups, "runs.folds")


def check_reach(spec: SweepSpec, target: Target) -> None:
    """Refuse data and weights of this machine for a cluster of the launcher, which needs addresses.

    The address of a shared folder is file:///...
    """
    if target.cluster is None:
        return
    refuse_files(spec)
    if not is_address(spec.data):
        raise UserError(
            f"data: {spec.data}: is on this machine only; put it where the cluster fetches it, with"
            f" `semprior data push {shlex.quote(spec.data)} URI`, and write data: URI"
        )


def _warn_of_idle_gpus(spec: SweepSpec, console: Console) -> None:
    """Print for this machine what the pre-flight job prints for a cluster."""
    if warning := idle_gpus(spec.resources, [{"GPU": usable_gpus()}], "this machine"):
        say(console, warning)


def _job_is_alive(jobs: Jobs, job: Job) -> Callable[[], bool]:
    """A function that returns whether a job has not ended; it asks the job server only now and then."""
    last, asked = job, time.monotonic()

    def is_alive() -> bool:
        nonlocal last, asked
        if not last.over and time.monotonic() - asked > _JOB_POLL:
            last, asked = jobs.state(job.id), time.monotonic()
        return not last.over

    return is_alive
