"""A Ray of our own on this machine: loopback only, with its token, its resources told, stopped at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from semprior.errors import UserError
from semprior.runtime.process_setup import THREADS_SHARE

_TRIES = 4
_OBJECTS = 256 * 2**20  # bytes of Ray's object store: trials exchange nothing large through it


@contextmanager
def local_ray(cpus: int | None = None, gpus: int | None = None) -> Iterator[None]:
    """Start a Ray of one node and stop it.

    Without a dashboard, whose processes take seconds to start: nobody asks it, as trials give their placement groups
    back themselves (`tune.session.worker_group`). All servers listen on 127.0.0.1 alone, and clients need the token
    that Ray makes in
    the user's home.

    Args:
        cpus: slots for workers; none: the processors that this process may use.
        gpus: none: those that PyTorch can use.
    """
    # Read when ray is first imported. Its name says otherwise, but this is what makes Ray take 127.0.0.1 for the
    # address of its node, and thus listen there alone; `_node_ip_address="127.0.0.1"` is turned into the outer address.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")  # Ray's own 30 s are short on a busy machine
    for name, value in THREADS_SHARE.items():  # workers inherit it
        os.environ.setdefault(name, value)
    os.environ.pop("RAY_ADDRESS", None)  # a cluster of the user's is not ours to use here
    import ray

    folder = tempfile.mkdtemp(prefix="st-")  # short: the paths of its sockets may have 107 characters
    try:
        _started(
            address="local",
            num_cpus=cpus if cpus is not None else usable_cpus(),
            num_gpus=gpus if gpus is not None else usable_gpus(),
            object_store_memory=_OBJECTS,
            include_dashboard=False,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _started(**settings: Any) -> Any:  # noqa: ANN401
    """Start Ray, which gives a node 30 s and then up; a machine that is busy may take longer than that."""
    import ray

    for left in reversed(range(_TRIES)):
        try:
            return ray.init(**settings)
        except Exception as error:  # Ray raises no narrower one when its node is late
            ray.shutdown()
            if not left:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise UserError(f"Ray does not start on this machine, which may be overloaded: {first}") from error
    raise AssertionError("the last try returns or raises")


def usable_cpus() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_gpus() -> int:
    """Number of accelerators that PyTorch can use."""
    import torch

    # device_count asks NVML, which also counts those whose driver is too old for this torch
    return torch.cuda.device_count() if torch.cuda.is_available() else 0
