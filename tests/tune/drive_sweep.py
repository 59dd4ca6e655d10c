"""A sweep's driver in a process of its own, to be killed: ``python -m tests.tune.drive_sweep CLUSTER URI``."""

import sys

import ray

from tune.session.session import run_sweep
from tune.store.sweeps import open_sweep

if __name__ == "__main__":
    ray.init(address=sys.argv[1], log_to_driver=False)
    sweep = open_sweep(sys.argv[2])
    run_sweep(sweep.spec, sys.argv[2], 1)
