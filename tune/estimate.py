"""What a sweep would take, before it begins: seconds an epoch, and from them hours; bytes of memory and checkpoints.

Nothing is guessed: the seconds are those of trials like these that the storage holds, or of one epoch trained now.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from semprior.config import Config, Resolved, flatten
from semprior.storage import Storage
from tune.catalogue import open_sweep
from tune.records import Record
from tune.results import ResultsStore
from tune.schedulers import rung_of
from tune.summaries import TrialSummary
from tune.sweep import SweepSpec

_LIKE = (
    *("detector", "data.crop", "data.batch", "vfm.name", "vfm.features", "scam.stages", "outer.every", "outer.steps"),
    *("select.every", "precision", "channels_last"),
)
"""Settings that decide what an epoch costs, beside data and resources."""
_EPOCHS = 3  # of a recorded trial, at least: its first ones are slow


@dataclass(frozen=True)
class Cost:
    """What one trial costs.

    Attributes:
        seconds: an epoch takes.
        rests_on: where that is known from.
        memory: bytes that a worker holds at its peak; none where that was not seen.
        checkpoint: bytes of one, likewise.
    """

    seconds: float
    rests_on: str
    memory: int | None = None
    checkpoint: int | None = None


def recorded_cost(storage: Storage, names: Sequence[str], spec: SweepSpec, here: bool) -> Cost | None:
    """The cost of trials that the storage holds and that are like those of a sweep; none where there are none.

    They are of the same data, with the same resources and those of the same settings that decide what an epoch costs.
    Of this machine's those count that ran in the precision, and with the instruction set, that the sweep's would.

    Args:
        storage: that holds sweeps.
        names: of them, to look through.
        spec: of the sweep.
        here: whether only trials of this machine count.
    """
    wanted = flatten(spec.base_config())
    alike: list[TrialSummary] = []
    sweeps: list[str] = []
    for name in names:
        sweep = open_sweep(storage.child(name).uri)
        if (sweep.spec.data, sweep.spec.resources) != (spec.data, spec.resources):
            continue
        found = [
            trial
            for trial in ResultsStore(sweep.storage).trials()
            if trial.epochs >= _EPOCHS
            and all(trial.config.get(key) == wanted[key] for key in _LIKE)
            and (not here or _here(trial.last, str(wanted["precision"]), "cuda" if spec.resources.gpus else "cpu"))
        ]
        alike += found
        sweeps += [name] if found else []
    if not alike:
        return None
    where = f"{len(alike)} recorded trial{'s' if len(alike) > 1 else ''} of {', '.join(sweeps)}"
    return Cost(median(trial.wall_s / trial.epochs for trial in alike), f"the median of {where}")


def _here(record: Record, wish: str, device: str) -> bool:
    """Whether a trial was made on this machine, as it would be made now; older records do not tell how it was."""
    import torch

    from semprior.devices import instruction_set, used_precision

    if record.host != platform.node() or not record.precision:
        return record.host == platform.node()
    now = used_precision(wish, torch.device(device)), instruction_set()
    return (record.precision, record.instructions) == now


def timed_cost(settings: Resolved, data: Path, device_name: str, threads: int, say: Callable[[str], None]) -> Cost:
    """Train the first epoch of the base, with an outer pass and an evaluation in it, and time it.

    What is made of the images for it, features and first pseudo-masks, is kept for the sweep.

    Args:
        settings: of the base.
        data: root of the data set.
        device_name: ``auto``, ``cpu`` or ``cuda``: what the trials train on.
        threads: of the trial, on the CPU.
        say: takes one line for each thing the user should know.

    Raises:
        UserError: what the trials would meet: a fault of the data, weights that cannot be had.
    """
    import cv2
    import torch

    from semprior.cache import cache_folder
    from semprior.data.layout import find_layout
    from semprior.devices import choose_device, precision_remark
    from semprior.prepare import load_features, read_training_set
    from semprior.threads import use_threads
    from semprior.trainer import Trainer

    device = choose_device(device_name)
    config = settings.config
    config = replace(config, select=replace(config.select, after=0.0, every=1))  # evaluate in it
    cache = cache_folder()
    training_set = read_training_set(find_layout(data), Resolved(config, settings.chosen), say, cache)
    trainer = Trainer(config, training_set, load_features(config, training_set, cache, device, say), device)
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        if device.type == "cpu":
            use_threads(threads)
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
    """A warning where other work slowed the measurement down."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    return f"; the machine was busy with other work (load {load:.0f})" if load > 1.5 * processors else ""


def epochs_expected(spec: SweepSpec, config: Config) -> float:
    """Epochs that a trial trains on average, if each rung of asha lets through its share."""
    full = config.epochs
    if spec.scheduler.name != "asha":
        return float(full)
    rung = float(rung_of(spec.scheduler, config))
    reached, trained, share = 0, 0.0, 1.0
    while rung < full - 1:  # epochs are counted from 0: at rung 11 a trial has trained 12
        trained += share * (int(rung) + 1 - reached)
        reached, share, rung = int(rung) + 1, share / spec.scheduler.factor, rung * spec.scheduler.factor
    return trained + share * (full - reached)
