"""`submit --dry-run`: what a sweep would take; nothing is begun."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from semprior.io.storage import open_storage
from semprior.reporting.terminal import clock, say
from tune.cli.cost_estimate import Cost, epochs_expected, recorded_cost, timed_cost
from tune.cli.lookup import jobs_of
from tune.cli.submit import Request, read_spec
from tune.launch.local_ray import usable_cpus, usable_gpus
from tune.launch.resources import concurrency
from tune.monitor.tables import print_table, short_names, text
from tune.search.search import Search
from tune.spec.sweep_file import SweepSpec
from tune.store.sweeps import SWEEP_FILE

_SHOWN = 5  # configurations
_KEPT = 3  # checkpoints of a running trial: last, previous, best


def dry_run(request: Request, console: Console) -> None:
    """Tell slots, hours, memory, disk and the first configurations.

    Raises:
        UserError: a fault in sweep file, data or cluster; or no trial fits.
    """
    spec = read_spec(request)
    jobs_of(request.address)
    storage = open_storage(spec.storage)
    name = request.id or spec.name
    taken = storage.child(name).exists(SWEEP_FILE)
    say(console, f"{name}: to be stored in {storage.uri}" + ("; THE ID IS TAKEN" if taken else ""))
    slots = concurrency(spec, [{"CPU": usable_cpus(), "GPU": usable_gpus()}])
    cost = recorded_cost(storage, spec, request.address is None, lambda line: say(console, line))
    if "://" not in spec.data:
        threads = max(1, int(spec.resources.cpus / spec.resources.workers))
        device = "auto" if spec.resources.gpus else "cpu"  # a trial without a GPU leaves an idle one alone
        timed = timed_cost(spec.base_config(), Path(spec.data), device, threads, lambda line: say(console, line))
        cost = timed if cost is None else replace(timed, seconds=cost.seconds, rests_on=cost.rests_on)
    _tell(spec, slots, cost, request.address, console)
    _configurations(spec, console)


def _tell(spec: SweepSpec, slots: int, cost: Cost | None, address: str | None, console: Console) -> None:
    config, trials = spec.base_config(), spec.budget.trials * spec.seeds
    one = spec.resources
    place = "on this machine; the cluster decides for itself" if address else "on this machine"
    rows = [("trials", f"{trials}, of {config.epochs} epochs at most, {slots} at a time {place}")]
    rows.append(("a trial takes", f"{one.workers} worker(s), {one.cpus:g} CPUs, {one.gpus:g} GPUs"))
    if cost is None:
        rows.append(("hours", "not known: no trial like these is recorded, and the data are not on this machine"))
    else:
        each = cost.seconds * config.epochs
        total = each * trials / slots
        rows.append(("a trial lasts", f"about {clock(each)}, {cost.seconds:.1f} s an epoch; to start it takes more"))
        rows.append(("that rests on", cost.rests_on))
        share = epochs_expected(spec, config) / config.epochs
        early = f"about {_hours(total * share)} if asha stops its share; " if share < 1 else ""
        rows.append(("hours", f"{early}{_hours(total)} if no trial is stopped"))
    if spec.budget.hours is not None:
        rows.append(("budget", f"no trial begins after {spec.budget.hours:g} h"))
    if cost is not None and cost.memory is not None and cost.checkpoint is not None:
        memory = f"{_bytes(cost.memory)} a worker, {_bytes(cost.memory * one.workers * slots)} in all"
        disk = (_KEPT * slots + max(0, trials - slots)) * cost.checkpoint
        rows.append(("memory", f"{memory}, by one epoch of the base trained now"))
        rows.append(("disk", f"{_bytes(cost.checkpoint)} a checkpoint, {_bytes(disk)} in all: the best of each trial"))
    print_table(console, {"": "left", " ": "left"}, rows, title="dry run")


def _configurations(spec: SweepSpec, console: Console) -> None:
    search = Search(spec)
    asked = [found for _ in range(_SHOWN) if (found := search.ask()) is not None]
    keys = list(dict.fromkeys(key for found in asked for key in found.parameters))
    names = short_names(keys)
    rows = [[f"{found.number:04d}", *(text(found.parameters.get(key)) for key in keys)] for found in asked]
    print_table(console, {"trial": "left"} | {names[key]: "right" for key in keys}, rows, title="first configurations")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _bytes(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
