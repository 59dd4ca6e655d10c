"""What a trial is to do, and what it can go on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tune.session.ray_kv import Gate


@dataclass(frozen=True)
class Known:
    """A checkpoint that a trial can go on from.

    Attributes:
        address: in the sweep.
        sha256: of its manifest.
        values: the objectives at the best evaluation up to it.
    """

    address: str
    sha256: str
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What an attempt of a trial is to do; equal for all its workers.

    Attributes:
        uri: of the sweep.
        data: folder or address of the data set; each node fetches what lies elsewhere once.
        trial: its id.
        configuration: its number.
        leaves: every leaf of its configuration, its seed included.
        params: those that were searched.
        objectives: names of the metrics that are optimised.
        attempt: number of this one.
        resume: checkpoints to go on from, the newest first.
        note: why there is another attempt, if it is not the first.
        workers: that train together.
        cpus: of the trial, shared by its workers.
        gpus: likewise.
        started: seconds since 1970, when this attempt began to take its slot.
    """

    uri: str
    data: str
    trial: str
    configuration: int
    leaves: Mapping[str, Any]
    params: Mapping[str, Any]
    objectives: tuple[str, ...]
    attempt: int
    resume: tuple[Known, ...] = ()
    note: str = ""
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    started: float = 0.0

    @property
    def gate(self) -> Gate:
        """Where this attempt asks for leave."""
        return Gate(f"{self.uri}/{self.trial}/{self.attempt}")


Take = Callable[[Mapping[str, Any]], None]
"""Takes what a worker reports of an epoch."""


class Workers(Protocol):
    """Who trains an attempt."""

    def fit(self) -> object:
        """Train to the end; raises what ended it before, `asyncio.CancelledError` after `abort`."""

    def abort(self) -> None:
        """End it at once, from another thread; without effect once it is over."""


Hire = Callable[[Order, str, Take, Callable[[str], None]], Workers]
"""Finds workers for an order: by a folder for them, who takes reports, and who takes the placement group's id."""
