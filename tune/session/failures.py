"""Classification of the exceptions that end an attempt: kind of the fault, message and line of code."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Collection

from semprior.errors import SettingError, StorageError, UserError
from tune.monitor.exception_text import MESSAGE_LIMIT, describe, signature, without_variable_parts
from tune.session.attempt_registry import AttemptOverError
from tune.store.checkpoints import SupersededError
from tune.store.faults import Fault, FaultKind

_SPECIFIC = (
    FaultKind.SUPERSEDED,
    FaultKind.SHARED,
    FaultKind.OWN,
    FaultKind.STORAGE,
    FaultKind.MEMORY,
    FaultKind.PREEMPTED,
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_MEMORY = (
    *("out of memory", "can't allocate memory"),  # messages of PyTorch on accelerators and on the CPU
    *("alloc_failed", "allocation_failed"),  # of cuBLAS and cuDNN, which allocate memory themselves
)
_CONNECTION = ("gloo", "connection closed by peer", "connection reset by peer", "broken pipe")
_DIED = "a worker died: "


class WorkerFailedError(Exception):
    """Replaces any exception of a worker, because not every exception can be sent to another process."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault

    def __str__(self) -> str:
        return self.fault.reason


class CannotResumeError(UserError):
    """The checkpoints of a trial belong to other data or weights. New trials are not affected."""


def fault_from(error: BaseException, searched: Collection[str] = ()) -> Fault:
    """Classify the exception that ended an attempt.

    Args:
        error: an exception of a worker, or of the `fit` of a worker group.
        searched: keys of the configuration that the search chose for this trial. A fault in one of them concerns this
            trial only.
    """
    from ray.train import WorkerGroupError
    from ray.train.v2.api.exceptions import ControllerError, PreemptionError

    from tune.session.ray_internals import underlying_error

    if isinstance(error, PreemptionError):
        return Fault(FaultKind.PREEMPTED, "its machine was taken away")
    if isinstance(error, ControllerError):
        return _fault(error.controller_failure, searched)
    if not isinstance(error, WorkerGroupError):
        return _fault(error, searched)
    faults = [_fault(underlying_error(failure), searched) for _, failure in sorted(error.worker_failures.items())]
    # Where one worker fails, others lose their connection to it. The most specific fault is the cause.
    specific = [fault for kind in _SPECIFIC for fault in faults if fault.kind is kind]
    died = [fault for fault in faults if fault.reason.startswith(_DIED)]
    raised = [fault for fault in faults if fault.kind is FaultKind.ERROR]
    return (specific or died or raised or faults)[0]


def _fault(error: BaseException, searched: Collection[str]) -> Fault:
    from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

    from tune.session.ray_internals import RayTrainError

    if isinstance(error, WorkerFailedError):
        return error.fault
    if isinstance(error, RayTaskError) and error.cause is not None:
        return _fault(error.cause, searched)
    text = " ".join(str(error).split())
    log = "".join(traceback.format_exception(error))
    if isinstance(error, UserError):
        return Fault(_user_fault_kind(error, searched), text, without_variable_parts(text))
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return Fault(FaultKind.STORAGE, text)
    if isinstance(error, SupersededError):
        return Fault(FaultKind.SUPERSEDED, text)
    if isinstance(error, AttemptOverError):  # the registry lost it: no fault of the trial
        return Fault(FaultKind.PREEMPTED, text)
    if isinstance(error, RayActorError):
        if error.preempted:
            return Fault(FaultKind.PREEMPTED, "its machine was taken away")
        if "low on memory" not in text:
            return Fault(FaultKind.WORKER, f"{_DIED}{_cause_of_death(text)}"[:MESSAGE_LIMIT], log=log)
    if isinstance(error, OutOfMemoryError | RayActorError | MemoryError) or any(
        words in text.lower() for words in _MEMORY
    ):
        return Fault(FaultKind.MEMORY, f"out of memory: {text}"[:MESSAGE_LIMIT], log=log)
    lost = isinstance(error, ConnectionError | TimeoutError | RayError | RayTrainError) or any(
        kind.__name__ == "DistError"
        for kind in type(error).__mro__  # an exception of PyTorch, which may not be imported
    )
    if lost or any(words in text.lower() for words in _CONNECTION):
        return Fault(FaultKind.WORKER, describe(error), log=log)
    return Fault(FaultKind.ERROR, describe(error), signature(error), log=log)


def _user_fault_kind(error: UserError, searched: Collection[str]) -> FaultKind:
    if isinstance(error, StorageError):
        return FaultKind.STORAGE
    if isinstance(error, CannotResumeError):
        return FaultKind.OWN
    own = isinstance(error, SettingError) and any(key in searched for key in error.keys)
    return FaultKind.OWN if own else FaultKind.SHARED


def _cause_of_death(text: str) -> str:
    """The cause in Ray's long message about a dead actor."""
    _, found, cause = text.partition("The actor is dead because ")
    return cause if found else text
