"""Why an attempt broke off, told in a line, and whether another may help."""

import errno

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError

from semprior.errors import StorageError, UserError
from tune.session.failures import Fault, fault_of, may_try_again
from tune.store.checkpoints import SupersededError


def group(*errors):
    return WorkerGroupError("workers failed", dict(enumerate(errors)))


def own(error):
    return UserExceptionWithTraceback(error, "a traceback")


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (group(WorkerHealthCheckFailedError("no answer", RayActorError())), "worker", "a worker died: "),
        (group(own(ValueError("odd")), RayActorError()), "worker", "a worker died: "),
        (group(own(RuntimeError("connection closed by peer")), own(ValueError("odd"))), "worker", "RuntimeError: "),
        (group(own(UserError("data.batch: too large"))), "user", "data.batch: too large"),
        (group(own(RuntimeError("gloo: reset")), own(UserError("no such folder"))), "user", "no such folder"),
        (group(own(RuntimeError("gloo: reset")), own(StorageError("the disk is full"))), "storage", "the disk is full"),
        (group(own(OSError(errno.ENOSPC, "No space left on device", "bank"))), "storage", "[Errno 28] No space left"),
        (group(own(SupersededError("attempt 1 was followed"))), "superseded", "attempt 1 was followed"),
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
def test_the_most_telling_worker_gives_the_reason(error, kind, told):
    fault = fault_of(error)
    assert fault.kind == kind
    assert fault.reason.startswith(told)
    assert "\n" not in fault.reason


def faults(*kinds):
    return [Fault(kind, kind) for kind in kinds]


@pytest.mark.parametrize(
    ("kinds", "tried", "again"),
    [
        ((), 0, True),
        (("worker", "worker"), 2, True),
        (("worker", "worker", "worker"), 3, False),
        ((), 3, False),  # its process died every time, and this one saw nothing of it
        (("memory",), 1, True),
        (("memory", "memory"), 2, False),
        (("user",), 1, False),
        (("storage", "storage"), 2, True),
        (("storage", "storage", "storage"), 3, False),
        (("preempted",) * 9, 9, True),
    ],
)
def test_another_attempt_is_made_where_it_may_help(kinds, tried, again):
    assert may_try_again(faults(*kinds), tried, retries=2) is again
