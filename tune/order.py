"""What a trial is to do, and what it can go on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune.gate import Gate


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
