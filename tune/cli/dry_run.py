"""`submit --dry-run`: what a sweep would cost; nothing is started."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from semprior.io.storage import open_storage
from semprior.reporting.terminal import clock, say
from tune.cli.cost_estimate import COST_KEYS, Cost, epochs_expected, recorded_cost, short_runs_expected, timed_cost
from tune.cli.submit import read_spec
from tune.launch.local_ray import usable_cpus, usable_gpus
from tune.launch.resources import concurrency
from tune.launch.target import Target
from tune.monitor.tables import format_value, print_table, short_names
from tune.search.search import Search
from tune.spec.sweep_file import SweepSpec
from tune.store.sweeps import SWEEP_FILE

_SHOWN = 5  # first configurations in the table
_CHECKPOINTS = 3  # of a running trial: last, previous, best


def dry_run(file: Path, sweep_id: str | None, target: Target, console: Console) -> None:
    """Print the slots, hours, memory and disk that a sweep would take, and its first configurations.

    Args:
        file: sweep file.
        sweep_id: id that the sweep would get; None: the name in the file.
        target: where the sweep would be stored and run.
        console: console to print on.

    Raises:
        UserError: a fault in sweep file, data or cluster; or no trial fits.
    """
    spec = read_spec(file, target, console)
    target.connect()
    storage = open_storage(spec.storage)
    name = sweep_id or spec.name
    taken = storage.child(name).exists(SWEEP_FILE)
    say(console, f"{name}: to be stored in {storage.uri}" + ("; THE ID IS TAKEN" if taken else ""))
    slots = concurrency(spec, [{"CPU": usable_cpus(), "GPU": usable_gpus()}])
    cost = recorded_cost(storage, spec, target.address is None, lambda line: say(console, line))
    if "://" not in spec.data:
        threads = max(1, int(spec.resources.cpus / spec.resources.workers))
        device = "auto" if spec.resources.gpus else "cpu"  # a trial without a GPU leaves an idle one alone
        timed = timed_cost(spec.base_config(), Path(spec.data), device, threads, lambda line: say(console, line))
        cost = timed if cost is None else replace(timed, seconds=cost.seconds, source=cost.source)
    _print_cost(spec, slots, cost, target.address is None, console)
    _print_configurations(spec, console)


def _print_cost(spec: SweepSpec, slots: int, cost: Cost | None, here: bool, console: Console) -> None:
    config, trials = spec.base_config(), spec.budget.trials * spec.run_count
    trial = spec.resources
    place = "on this machine" if here else "on this machine; the cluster decides for itself"
    most = "at most " if spec.races else ""
    rows = [("trials", f"{most}{trials}, of {config.epochs} epochs at most, {slots} at a time {place}")]
    rows.append(("a trial takes", f"{trial.workers} worker(s), {trial.cpus:g} CPUs, {trial.gpus:g} GPUs"))
    if cost is None:
        rows.append(("hours", "unknown: no similar trial is recorded, and the data are not on this machine"))
    else:
        before = short_runs_expected(spec, config)
        each = cost.seconds * (config.epochs + before)
        total = each * trials / slots
        rows.append(("a trial lasts", f"about {clock(each)}, {cost.seconds:.1f} s an epoch, and the time to start"))
        if before:
            searched = ", in the mean of labels.refine," if "labels.refine" in spec.search else ""
            rows.append(("of which", f"about {clock(cost.seconds * before)} are{searched} short runs of crossfit"))
        rows.append(("estimated from", cost.source))
        if varied := [key for key in COST_KEYS if key in spec.search]:
            rows.append(
                ("not counted", f"how much more or less than the base other values of {', '.join(varied)} cost")
            )
        share = (epochs_expected(spec, config) + before) / (config.epochs + before)
        early = f"about {_hours(total * share)} if {spec.scheduler.name} stops its share; " if share < 1 else ""
        rows.append(("hours", f"{early}{_hours(total)} if no trial is stopped"))
    if spec.budget.hours is not None:
        rows.append(("budget", f"no trial begins after {spec.budget.hours:g} h"))
    if spec.budget.patience is not None:
        rows.append(("patience", f"no trial begins after {spec.budget.patience} configurations without an improvement"))
    if cost is not None and cost.memory is not None and cost.checkpoint is not None:
        memory = f"{_bytes(cost.memory)} a worker, {_bytes(cost.memory * trial.workers * slots)} in all"
        disk = (_CHECKPOINTS * slots + max(0, trials - slots)) * cost.checkpoint
        rows.append(("memory", f"{memory}, measured in one epoch of the base trained now"))
        rows.append(("disk", f"{_bytes(cost.checkpoint)} a checkpoint, {_bytes(disk)} in all: the best of each trial"))
    print_table(console, {"": "left", " ": "left"}, rows, title="dry run")


def _print_configurations(spec: SweepSpec, console: Console) -> None:
    search = Search(spec)
    first = [found for _ in range(_SHOWN) if (found := search.ask()) is not None]
    keys = list(dict.fromkeys(key for found in first for key in found.parameters))
    names = short_names(keys)
    rows = [[f"{found.number:04d}", *(format_value(found.parameters.get(key)) for key in keys)] for found in first]
    print_table(console, {"trial": "left"} | {names[key]: "right" for key in keys}, rows, title="first configurations")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _bytes(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
