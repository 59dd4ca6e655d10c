"""Trials that train nothing and break as a file says; a driver: ``python -m tests.tune.breaking ADDRESS TRIALS ...``.

The driver connects to the Ray at the address instead of starting its own. Its trials are a key of `TRIALS`, and its
other arguments those of `tune.session.driver_process`. The file is ``breaks.json`` in the folder of the sweep's data:
by trial, or "*" for all others, an epoch, the name of an exception, and its message; "seconds" is the length of an
epoch. It is read at every epoch, so that it can be mended.
"""

import asyncio
import contextlib
import functools
import json
import sys
import time
from pathlib import Path

import semprior.errors
from benchmarks.stand_in import Clock, StandIn
from tests.tune.real_sweep import joined_cluster
from tune.session.trainable import TrialTrainable

FILE = "breaks.json"
KNOWN = {"MemoryError": MemoryError, "RuntimeError": RuntimeError, "UserError": semprior.errors.UserError}


class BreakingClock(Clock):
    """Lives through the epochs until one of them breaks."""

    def call(self, name, *arguments):
        if name == "train":
            breaks = json.loads((Path(self.spec.data) / FILE).read_text())
            self._break(breaks)
            if self.over.wait(breaks["seconds"]):
                raise asyncio.CancelledError
            self.epoch += 1
            return None
        done = super().call(name, *arguments)
        if name == "begin":
            self.epoch = done
        return done

    def _break(self, breaks):
        epoch, error, text, *attempts = breaks.get(self.spec.trial, breaks.get("*", (-1, "", "")))
        if self.epoch == epoch and (not attempts or self.spec.attempt in attempts):
            raise KNOWN[error](text.format(time.time_ns()))


class Breaking(StandIn):
    """A trial of such workers."""

    @staticmethod
    def make_workers(spec, folder, on_report):
        return BreakingClock(spec, on_report)


def write_breaks(data, seconds=0.02, **breaks):
    """Say which trials break: ``t0001=(0, "RuntimeError", "text", 1)``, the last for its first attempt alone."""
    named = {"*" if trial == "every" else trial.removeprefix("t"): told for trial, told in breaks.items()}
    (Path(data) / FILE).write_text(json.dumps(named | {"seconds": seconds}))


TRIALS = {"breaking": Breaking, "training": TrialTrainable}


if __name__ == "__main__":
    import tune.launch.local_ray
    import tune.session.driver_process
    import tune.session.session

    tune.launch.local_ray.local_ray = functools.partial(joined_cluster, sys.argv[1])
    tune.session.session.run_sweep = functools.partial(tune.session.session.run_sweep, trainable=TRIALS[sys.argv[2]])
    with contextlib.suppress(ModuleNotFoundError):
        __import__("driver_that_breaks")
    sys.exit(tune.session.driver_process.main(sys.argv[3:]))
