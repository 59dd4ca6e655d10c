"""What a sweep will cost: seconds an epoch, and from them hours; bytes of memory and of checkpoints.

The seconds are measured: in similar trials that the storage holds, or in one epoch trained now.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

from semprior.config.epochs import crossfit_work
from semprior.config.schema import Config, Resolved, flatten
from semprior.io.storage import Storage
from tune.search.early_stopping import first_decision
from tune.spec.sweep_file import SweepSpec
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep, read_each
from tune.store.trial_summary import TrialSummary

COST_KEYS = (
    *("detector", "data.crop", "data.batch", "vfm.name", "vfm.features", "scam.stages", "outer.every", "outer.steps"),
    *("outer.shared", "select.every", "precision", "channels_last"),
)
"""Settings that decide what an epoch costs, along with data and resources."""
_MIN_EPOCHS = 3  # of a recorded trial, whose first epochs are slow


@dataclass(frozen=True)
class Cost:
    """What one trial costs.

    Attributes:
        seconds: duration of an epoch in seconds.
        source: how the duration is known.
        memory: peak memory of a worker in bytes; None if it was not measured.
        checkpoint: size of a checkpoint in bytes; None if it was not measured.
    """

    seconds: float
    source: str
    memory: int | None = None
    checkpoint: int | None = None


def recorded_cost(storage: Storage, spec: SweepSpec, here: bool, say: Callable[[str], None]) -> Cost | None:
    """The median cost of similar trials in a storage; None if there are none.

    Similar trials have the same data and resources, and equal settings where these decide what an epoch costs. Trials
    of this machine must have run in the precision and with the instruction set that the sweep's trials will use.

    Args:
        storage: storage of sweeps.
        spec: checked sweep file.
        here: whether only trials of this machine count.
        say: takes a line for each sweep that cannot be read.
    """
    wanted = flatten(spec.base_config())

    def similar_trials(sweep: Sweep) -> list[TrialSummary]:
        if (sweep.spec.data, sweep.spec.resources) != (spec.data, spec.resources):
            return []
        return [
            trial
            for trial in ResultsStore(sweep.storage).trials()
            if trial.epochs >= _MIN_EPOCHS
            and all(trial.config.get(key) == wanted[key] for key in COST_KEYS)
            and (not here or _ran_here(trial.last, str(wanted["precision"]), "cuda" if spec.resources.gpus else "cpu"))
        ]

    found, unreadable = read_each(storage, similar_trials)
    for name, reason in unreadable.items():
        say(f"{name} cannot be read and is left out of the estimate: {reason}")
    similar = [trial for _, trials in found for trial in trials]
    sweeps = [sweep.id for sweep, trials in found if trials]
    if not similar:
        return None
    where = f"{len(similar)} recorded trial{'s' if len(similar) > 1 else ''} of {', '.join(sweeps)}"
    seconds = median(trial.wall_s / (trial.epochs + crossfit_work(trial.config)) for trial in similar)
    return Cost(seconds, f"the median of {where}")


def _ran_here(record: Record, wish: str, device: str) -> bool:
    """Whether a trial ran on this machine as it would run now. Old records lack precision and instruction set."""
    import torch

    from semprior.runtime.device import instruction_set, used_precision

    if record.host != platform.node() or not record.precision:
        return record.host == platform.node()
    now = used_precision(wish, torch.device(device)), instruction_set()
    return (record.precision, record.instructions) == now


def timed_cost(config: Config, data: Path, device_name: str, threads: int, say: Callable[[str], None]) -> Cost:
    """Train the first epoch of the base, prepared as a trial is, with an outer pass and an evaluation, and time it.

    The features and first pseudo-masks that it computes stay in the cache for the sweep.

    Args:
        config: of the base.
        data: root of the data set.
        device_name: ``auto``, ``cpu`` or ``cuda``: what the trials train on.
        threads: number of CPU threads of a worker of the trial.
        say: takes one line for each thing the user should know.

    Raises:
        UserError: what the trials would meet: a fault of the data, weights that cannot be had.
    """
    import cv2
    import torch

    from semprior.io.cache_folder import cache_folder
    from semprior.runtime.device import choose_device, precision_remark
    from semprior.training.prepare import prepare_trainer

    device = choose_device(device_name)
    config = replace(config, select=replace(config.select, after=0.0, every=1))  # evaluate in it
    if config.labels.refine == "crossfit":  # an epoch of the run, without the short runs before it
        config = replace(config, labels=replace(config.labels, refine="none"))
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        trainer = prepare_trainer(
            Resolved(config, frozenset()), data, device, threads=threads, cache=cache_folder(), say=say
        )
        report = next(trainer.run())
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    snapshot = trainer.snapshot()
    tensors = [tensor for part in snapshot.tensors.values() for tensor in part.values()]
    size = sum(tensor.nbytes for tensor in tensors) + sum(array.nbytes for array in snapshot.arrays.values())
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated()
    where = f"{threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else torch.cuda.get_device_name()
    rests_on = f"one epoch of the base, trained now and alone on {where}"
    rests_on += precision_remark(config.precision, device) + "; outer pass and evaluation included"
    return Cost(report.seconds, rests_on + _busy(), memory, size)


def _busy() -> str:
    """A warning if other work slows the measurement down."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    return f"; the machine was busy with other work (load {load:.0f})" if load > 1.5 * processors else ""


def short_runs_expected(spec: SweepSpec, config: Config) -> float:
    """Mean cost of the short runs before a trial, in epochs of the trial; all values of `labels.refine` count alike."""
    dimension = spec.search.get("labels.refine")
    values = dimension.values if dimension is not None and dimension.values else (config.labels.refine,)
    return mean(crossfit_work({**flatten(config), "labels.refine": value}) for value in values)


def epochs_expected(spec: SweepSpec, config: Config) -> float:
    """Mean number of epochs of a trial, if each rung of asha or moasha promotes its share of the trials."""
    full = config.epochs
    if spec.scheduler.name not in ("asha", "moasha"):
        return float(full)
    rung = float(first_decision(spec.scheduler, spec.slowest_config()))
    reached, trained, share = 0, 0.0, 1.0
    while rung < full - 1:  # epochs are counted from 0: at rung 11 a trial has trained 12
        trained += share * (int(rung) + 1 - reached)
        reached, share, rung = int(rung) + 1, share / spec.scheduler.factor, rung * spec.scheduler.factor
    return trained + share * (full - reached)
