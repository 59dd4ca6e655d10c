"""The fault of an attempt, in one line, and whether there is another attempt."""

import errno

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError

from semprior.errors import SettingError, StorageError, UserError
from tune.session.attempt_registry import AttemptOverError
from tune.session.failures import CannotResumeError, WorkerFailedError, fault_from
from tune.store.checkpoints import SupersededError
from tune.store.faults import Fault, FaultKind, may_try_again


def group(*errors):
    return WorkerGroupError("workers failed", dict(enumerate(errors)))


def own(error):
    return UserExceptionWithTraceback(error, "a traceback")


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (group(WorkerHealthCheckFailedError("no answer", RayActorError())), "worker", "a worker died: "),
        (group(own(ValueError("odd")), RayActorError()), "worker", "a worker died: "),
        (group(own(RuntimeError("connection closed by peer"))), "worker", "RuntimeError: connection closed"),
        (group(own(RuntimeError("connection closed by peer")), own(ValueError("odd"))), "error", "ValueError: odd"),
        (group(own(WorkerFailedError(Fault(FaultKind.ERROR, "told by the worker")))), "error", "told by the worker"),
        (group(own(UserError("a.png: is damaged"))), "shared", "a.png: is damaged"),
        (group(own(RuntimeError("gloo: reset")), own(UserError("no such folder"))), "shared", "no such folder"),
        (group(own(SettingError("vfm.weights: no such file", "vfm.weights"))), "own", "vfm.weights: no such file"),
        (group(own(SettingError("data.batch: too large", "data.batch"))), "shared", "data.batch: too large"),
        (group(own(CannotResumeError("the data set differs"))), "own", "the data set differs"),
        (group(own(RuntimeError("gloo: reset")), own(StorageError("the disk is full"))), "storage", "the disk is full"),
        (group(own(OSError(errno.ENOSPC, "No space left on device", "bank"))), "storage", "[Errno 28] No space left"),
        (group(own(SupersededError("attempt 1 was followed"))), "superseded", "attempt 1 was followed"),
        (group(own(AttemptOverError("attempt 0000/1 is over"))), "preempted", "attempt 0000/1 is over"),
        (group(own(RuntimeError("CUDA out of memory. Tried to allocate"))), "memory", "out of memory: "),
        *(
            (group(own(RuntimeError(text))), "memory", "out of memory: ")
            for text in (
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
                "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
                "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            )
        ),
        (
            group(own(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))),
            "memory",
            "out of memory: ",
        ),
        (group(own(MemoryError("Unable to allocate 1 TiB"))), "memory", "out of memory: "),
        (group(OutOfMemoryError("the node ran low on memory")), "memory", "out of memory: "),
        (group(RayActorError(error_msg="it died", preempted=True)), "preempted", "its machine was taken away"),
    ],
)
def test_the_most_specific_fault_of_the_workers_is_the_reason(error, kind, told):
    fault = fault_from(error, searched={"vfm.weights", "optim.rate"})
    assert fault.kind is FaultKind(kind)
    assert fault.reason.startswith(told)
    assert "\n" not in fault.reason


def faults(*kinds):
    return [Fault(FaultKind(kind), kind) for kind in kinds]


@pytest.mark.parametrize(
    ("kinds", "tried", "again"),
    [
        ((), 0, True),
        (("worker", "worker"), 2, True),
        (("worker", "worker", "worker"), 3, False),
        ((), 3, False),  # its process died every time, and this one saw nothing of it
        (("memory",), 1, True),
        (("memory", "memory"), 2, False),
        (("shared",), 1, False),
        (("own",), 1, False),
        (("storage", "storage"), 2, True),
        (("storage", "storage", "storage"), 3, False),
        (("preempted",) * 9, 9, True),
    ],
)
def test_whether_there_is_another_attempt(kinds, tried, again):
    assert may_try_again(faults(*kinds), tried, retries=2) is again


@pytest.mark.parametrize(
    ("marks", "epochs", "again"),
    [
        (("a", "a"), (0, 0), False),
        (("a", "b"), (0, 0), True),
        (("a", "a"), (0, 3), True),  # it came far, and may come farther
        (("a", "a"), (3, 0), False),
        (("a", "b", "a"), (0, 0, 0), False),
    ],
)
def test_an_exception_that_recurs_before_the_first_epoch_ends_the_trial(marks, epochs, again):
    told = [Fault(FaultKind.ERROR, "", mark, count) for mark, count in zip(marks, epochs, strict=True)]
    assert may_try_again(told, len(told), retries=9) is again
