"""What an attempt of a trial computes, and the types by which its process and its workers are coupled."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tune.store.checkpoints import StoredCheckpoint

if TYPE_CHECKING:  # it imports ray, which takes seconds
    from tune.session.attempt_registry import AttemptRegistry


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint from which a trial can continue.

    Attributes:
        checkpoint: in the storage of the sweep.
        values: the objectives at the best evaluation up to this checkpoint.
    """

    checkpoint: StoredCheckpoint
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class AttemptSpec:
    """The specification of one attempt of a trial; the same for all its workers.

    Attributes:
        uri: address of the sweep's storage.
        registry: the registry of attempts of the driver.
        data: folder or address of the data set. A node downloads a remote data set once.
        trial: id of the trial.
        configuration: number of the configuration.
        config: the whole configuration by flat keys, the seed of the trial included.
        params: the part of it that the search chose.
        objectives: names of the metrics that are optimized.
        attempt: number of the attempt, from 1; 0 as long as it is not known.
        resume_points: the checkpoints of the trial, the newest first.
        short_points: those of the short runs before the trial, the newest first, as long as it has no epoch of its own.
        reason: why the trial needs another attempt; empty for the first one.
        workers: number of workers that train together.
        cpus: CPUs of the trial, which its workers share.
        gpus: GPUs of the trial, which its workers share.
        started: time at which the attempt began to wait for resources, in seconds of the monotonic clock.
        clock: identity of that clock (`machine_clock`); another machine's cannot be compared.
        sweep: digest of the `sweep.json` that the driver runs (`tune.store.sweeps.Sweep`).
    """

    uri: str
    registry: AttemptRegistry
    data: str
    trial: str
    configuration: int
    config: Mapping[str, Any]
    params: Mapping[str, Any]
    objectives: tuple[str, ...]
    attempt: int = 0
    resume_points: tuple[ResumePoint, ...] = ()
    short_points: tuple[StoredCheckpoint, ...] = ()
    reason: str = ""
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    started: float = 0.0
    clock: str = ""
    sweep: str = ""

    @property
    def name(self) -> str:
        """The name of the attempt in the registry: ``TRIAL/ATTEMPT``."""
        return f"{self.trial}/{self.attempt}"


@functools.cache
def machine_clock() -> str:
    """The identity of this machine's monotonic clock, which begins anew when the machine does."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    try:
        return boot.read_text(encoding="ascii").strip()
    except OSError:  # another operating system
        return platform.node()


ReportHandler = Callable[[Mapping[str, Any]], None]
"""Receives what the first worker reports of an epoch: ``epoch``, and ``values``, the best objectives so far."""


class Workers(Protocol):
    """The workers of an attempt."""

    def fit(self) -> object:
        """Train to the end. Raises the error that ended the training, or `asyncio.CancelledError` after `abort`."""

    def abort(self) -> None:
        """End the training at once, from another thread. Has no effect after the end."""


WorkerFactory = Callable[[AttemptSpec, str, ReportHandler], Workers]
"""Makes the workers of an attempt. The second argument is a folder of this machine for the files of Ray Train."""
