"""Why an attempt broke off, told in a line, and whether another may help."""

import errno

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerHealthCheckFailedError

from semprior.errors import SettingError, StorageError, UserError
from tune.diagnosis import BrokenError, CannotGoOnError, fault_of
from tune.faults import Fault, Kind, may_try_again
from tune.retention import SupersededError


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
        (group(own(BrokenError(Fault(Kind.ERROR, "told by the worker")))), "error", "told by the worker"),
        (group(own(UserError("a.png: is damaged"))), "shared", "a.png: is damaged"),
        (group(own(RuntimeError("gloo: reset")), own(UserError("no such folder"))), "shared", "no such folder"),
        (group(own(SettingError("vfm.weights: no such file", "vfm.weights"))), "own", "vfm.weights: no such file"),
        (group(own(SettingError("data.batch: too large", "data.batch"))), "shared", "data.batch: too large"),
        (group(own(CannotGoOnError("the data set differs"))), "own", "the data set differs"),
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
    fault = fault_of(error, searched={"vfm.weights", "optim.rate"})
    assert fault.kind is Kind(kind)
    assert fault.reason.startswith(told)
    assert "\n" not in fault.reason


def faults(*kinds):
    return [Fault(Kind(kind), kind) for kind in kinds]


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
def test_another_attempt_is_made_where_it_may_help(kinds, tried, again):
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
def test_an_exception_that_came_again_before_an_epoch_is_not_tried_again(marks, epochs, again):
    told = [Fault(Kind.ERROR, "", mark, count) for mark, count in zip(marks, epochs, strict=True)]
    assert may_try_again(told, len(told), retries=9) is again
