"""Why an attempt of a trial broke off, in a line, and whether another one may help."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from semprior.errors import StorageError, UserError
from tune.store.checkpoints import SupersededError

Kind = Literal["worker", "memory", "user", "storage", "preempted", "superseded"]
_TELLING: tuple[Kind, ...] = ("superseded", "user", "storage", "memory", "preempted")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_MEMORY = (
    *("out of memory", "can't allocate memory"),  # PyTorch's words on accelerators, and on the CPU
    *("alloc_failed", "allocation_failed"),  # of cuBLAS and cuDNN, which allocate by themselves; the latter: cuDNN 9
)


@dataclass(frozen=True)
class Fault:
    """One broken attempt.

    Attributes:
        kind: ``worker``: it died, or raised an error; ``memory``: it ran out of it; ``user``: a fault in what the user
            gave, which no repetition mends; ``storage``: it could not be read or written, however long the attempt
            waited; ``preempted``: its machine was taken away after notice; ``superseded``: a higher attempt has begun.
        reason: in one line.
    """

    kind: Kind
    reason: str


def may_try_again(faults: Sequence[Fault], tried: int, retries: int) -> bool:
    """Whether to begin another attempt.

    Out of memory gets one retry, a user's fault none, and a machine that was taken away counts as nothing.

    Args:
        faults: of the attempts so far, as far as this process saw them.
        tried: attempts so far, all of them broken.
        retries: that the sweep allows.
    """
    if any(fault.kind == "user" for fault in faults) or sum(fault.kind == "memory" for fault in faults) > 1:
        return False
    return tried - sum(fault.kind == "preempted" for fault in faults) <= retries


def fault_of(error: Exception) -> Fault:
    """What an error of Ray Train's `fit` says."""
    from ray.train import WorkerGroupError
    from ray.train.v2.api.exceptions import ControllerError, PreemptionError

    if isinstance(error, PreemptionError):
        return Fault("preempted", "its machine was taken away")
    if isinstance(error, ControllerError):
        return _fault(error.controller_failure)
    if not isinstance(error, WorkerGroupError):
        return _fault(error)
    faults = [_fault(_cause(failure)) for _, failure in sorted(error.worker_failures.items())]
    # where one worker fails others lose their connection to it: the reason is that of the most telling one
    telling = [fault for kind in _TELLING for fault in faults if fault.kind == kind]
    lost = [fault for fault in faults if fault.reason.startswith("a worker")]
    return (telling or lost or faults)[0]


def _cause(failure: Exception) -> BaseException:
    """What Ray Train has wrapped: an error of the worker's own, or that it does not answer."""
    for name in ("_base_exc", "health_check_failure"):
        failure = getattr(failure, name, failure)
    return failure


def _fault(error: BaseException) -> Fault:
    from ray.exceptions import OutOfMemoryError, RayActorError

    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return Fault("storage" if isinstance(error, StorageError) else "user", text)
    if isinstance(error, OSError) and error.errno in _FULL:
        return Fault("storage", text)
    if isinstance(error, SupersededError):
        return Fault("superseded", text)
    if isinstance(error, RayActorError):
        if error.preempted:
            return Fault("preempted", "its machine was taken away")
        if "low on memory" not in text:
            return Fault("worker", f"a worker died: {_essence(text)}"[:400])
    if isinstance(error, OutOfMemoryError | RayActorError | MemoryError) or any(
        words in text.lower() for words in _MEMORY
    ):
        return Fault("memory", f"out of memory: {text}"[:400])
    return Fault("worker", f"{type(error).__name__}: {text}"[:400])


def _essence(text: str) -> str:
    """Of Ray's long words on a dead actor those that say why."""
    _, found, cause = text.partition("The actor is dead because ")
    return cause if found else text
