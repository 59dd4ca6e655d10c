"""A sweep's driver in a process of its own, to be killed: ``python -m tests.tune.drive_sweep CLUSTER URI [racing]``."""

import sys

from tests.tune.racing import Racing
from tests.tune.real_sweep import joined_cluster
from tune.session.session import run_sweep
from tune.session.trainable import TrialTrainable
from tune.store.sweeps import open_sweep

if __name__ == "__main__":
    with joined_cluster(sys.argv[1]):
        sweep = open_sweep(sys.argv[2])
        run_sweep(sweep.spec, sys.argv[2], 1, trainable=Racing if "racing" in sys.argv[3:] else TrialTrainable)
