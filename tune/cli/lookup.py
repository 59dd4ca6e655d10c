"""Where a command's sweep lies."""

from __future__ import annotations

import os

from semprior.io.storage import Storage, open_storage
from tune.launch.ray_jobs import Jobs, Target, connect
from tune.spec.sweep_file import STORAGE_VARIABLE
from tune.store.sweeps import DEFAULT_STORAGE, Sweep, find_sweep


def storage_of(flag: str | None) -> Storage:
    """The storage that ``--storage`` names, else the variable, else the usual folder."""
    return open_storage(flag or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE)


def sweep_of(name: str, flag: str | None) -> Sweep:
    """A sweep of that storage.

    Raises:
        UserError: there is none of this id.
    """
    return find_sweep(storage_of(flag), name)


def jobs_of(address: str | None) -> Jobs | None:
    """The job server that ``--address`` names, reached; none: this machine.

    Raises:
        UserError: it cannot be reached.
    """
    return connect(Target(address)) if address else None
