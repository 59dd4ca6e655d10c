"""What an exception that ended an attempt says: a fault of whom, and in which line."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Collection

from semprior.errors import SettingError, StorageError, UserError
from tune.faults import Fault, Kind
from tune.retention import SupersededError
from tune.telling import LONGEST, mark, told, without_what_changes

_TELLING = (Kind.SUPERSEDED, Kind.SHARED, Kind.OWN, Kind.STORAGE, Kind.MEMORY, Kind.PREEMPTED)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_MEMORY = (
    *("out of memory", "can't allocate memory"),  # PyTorch's words on accelerators, and on the CPU
    *("alloc_failed", "allocation_failed"),  # of cuBLAS and cuDNN, which allocate by themselves; the latter: cuDNN 9
)
_CONNECTION = ("gloo", "connection closed by peer", "connection reset by peer", "broken pipe")
_DIED = "a worker died: "


class BrokenError(Exception):
    """What a worker raises in the place of any exception, which need not survive the way to another process."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault

    def __str__(self) -> str:
        return self.fault.reason


class CannotGoOnError(UserError):
    """A trial's checkpoints are of other data or weights than it would go on with; new trials are not concerned."""


def fault_of(error: BaseException, searched: Collection[str] = ()) -> Fault:
    """What an exception says: a worker's own, or one of Ray Train's `fit`.

    Args:
        error: that ended an attempt.
        searched: the leaves that the sweep chose for this trial, which are its own.
    """
    from ray.train import WorkerGroupError
    from ray.train.v2.api.exceptions import ControllerError, PreemptionError

    if isinstance(error, PreemptionError):
        return Fault(Kind.PREEMPTED, "its machine was taken away")
    if isinstance(error, ControllerError):
        return _fault(error.controller_failure, searched)
    if not isinstance(error, WorkerGroupError):
        return _fault(error, searched)
    faults = [_fault(_cause(failure), searched) for _, failure in sorted(error.worker_failures.items())]
    # where one worker fails others lose their connection to it: the reason is that of the most telling one
    telling = [fault for kind in _TELLING for fault in faults if fault.kind is kind]
    died = [fault for fault in faults if fault.reason.startswith(_DIED)]
    raised = [fault for fault in faults if fault.kind is Kind.ERROR]
    return (telling or died or raised or faults)[0]


def _cause(failure: Exception) -> BaseException:
    """What Ray Train has wrapped: an error of the worker's own, or that it does not answer."""
    for name in ("_base_exc", "health_check_failure"):
        failure = getattr(failure, name, failure)
    return failure


def _fault(error: BaseException, searched: Collection[str]) -> Fault:
    from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
    from ray.train.v2._internal.exceptions import RayTrainError

    if isinstance(error, BrokenError):
        return error.fault
    if isinstance(error, RayTaskError) and error.cause is not None:
        return _fault(error.cause, searched)
    text = " ".join(str(error).split())
    log = "".join(traceback.format_exception(error))
    if isinstance(error, UserError):
        return Fault(_of_user(error, searched), text, without_what_changes(text))
    if isinstance(error, OSError) and error.errno in _FULL:
        return Fault(Kind.STORAGE, text)
    if isinstance(error, SupersededError):
        return Fault(Kind.SUPERSEDED, text)
    if isinstance(error, RayActorError):
        if error.preempted:
            return Fault(Kind.PREEMPTED, "its machine was taken away")
        if "low on memory" not in text:
            return Fault(Kind.WORKER, f"{_DIED}{_essence(text)}"[:LONGEST], log=log)
    if isinstance(error, OutOfMemoryError | RayActorError | MemoryError) or any(
        words in text.lower() for words in _MEMORY
    ):
        return Fault(Kind.MEMORY, f"out of memory: {text}"[:LONGEST], log=log)
    lost = isinstance(error, ConnectionError | TimeoutError | RayError | RayTrainError) or any(
        kind.__name__ == "DistError"
        for kind in type(error).__mro__  # PyTorch's, which need not be imported here
    )
    if lost or any(words in text.lower() for words in _CONNECTION):
        return Fault(Kind.WORKER, told(error), log=log)
    return Fault(Kind.ERROR, told(error), mark(error), log=log)


def _of_user(error: UserError, searched: Collection[str]) -> Kind:
    if isinstance(error, StorageError):
        return Kind.STORAGE
    if isinstance(error, CannotGoOnError):
        return Kind.OWN
    own = isinstance(error, SettingError) and any(key in searched for key in error.keys)
    return Kind.OWN if own else Kind.SHARED


def _essence(text: str) -> str:
    """Of Ray's long words on a dead actor those that say why."""
    _, found, cause = text.partition("The actor is dead because ")
    return cause if found else text
