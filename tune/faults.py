"""What broke attempts of trials off, and whether another attempt may help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What an attempt broke off by, and so what follows."""

    ERROR = "error"
    """An exception that nobody foresaw. The same one again, before an epoch was trained, would come in every trial."""
    WORKER = "worker"
    """Its process died, or lost its connection to another: another attempt may help."""
    MEMORY = "memory"
    """Memory was full: the trial's own fault, tried once more."""
    SHARED = "shared"
    """A fault in what the user gave that every trial would meet: the data, or a setting that all trials have."""
    OWN = "own"
    """A fault in what the user gave that this trial alone meets: the value of a setting that is searched."""
    STORAGE = "storage"
    """The storage could not be read or written, however long the attempt waited."""
    PREEMPTED = "preempted"
    """Its machine was taken away after notice."""
    SUPERSEDED = "superseded"
    """A higher attempt of the trial has begun."""


@dataclass(frozen=True)
class Fault:
    """One broken attempt.

    Attributes:
        kind: what it broke off by.
        reason: in one line.
        mark: equal for faults of one cause (`tune.telling.mark`).
        epochs: that the attempt had trained.
        log: the traceback; empty where there is none.
    """

    kind: Kind
    reason: str
    mark: str = ""
    epochs: int = 0
    log: str = ""

    def to_json(self) -> dict[str, Any]:
        """What a record keeps of it beside the reason."""
        return {"kind": self.kind.value, "mark": self.mark, "epochs": self.epochs}

    @staticmethod
    def from_json(content: Mapping[str, Any], reason: str) -> Fault:
        """A fault as a record tells it."""
        return Fault(Kind(content["kind"]), reason, str(content["mark"]), int(content["epochs"]))


def may_try_again(faults: Sequence[Fault], tried: int, retries: int) -> bool:
    """Whether to begin another attempt.

    Out of memory gets one retry, a user's fault none, nor does an exception that came again before an epoch was
    trained; and a machine that was taken away counts as nothing.

    Args:
        faults: of the attempts so far.
        tried: attempts so far, all of them broken.
        retries: that the sweep allows.
    """
    if any(fault.kind in (Kind.SHARED, Kind.OWN) for fault in faults):
        return False
    if sum(fault.kind is Kind.MEMORY for fault in faults) > 1:
        return False
    last = faults[-1] if faults else None
    if last and last.kind is Kind.ERROR and not last.epochs and any(f.mark == last.mark for f in faults[:-1]):
        return False
    return tried - sum(fault.kind is Kind.PREEMPTED for fault in faults) <= retries
