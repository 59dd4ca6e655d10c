"""Trials that train nothing and break as a file says, and a driver of such: ``python -m tests.tune.breaking ...``.

The file is ``breaks.json`` in the folder of the sweep's data: by trial, or "*" for all others, an epoch, the name of an
exception, and its message. It is read at every epoch, so that it can be mended.
"""

import contextlib
import functools
import json
import os
import sys
import time
from pathlib import Path

import semprior.errors
from benchmarks.stand_in import EPOCH_VARIABLE, StandIn, _Clock

FILE = "breaks.json"
KNOWN = {"MemoryError": MemoryError, "RuntimeError": RuntimeError, "UserError": semprior.errors.UserError}


class BreakingClock(_Clock):
    """Lives through the epochs until one of them breaks."""

    def call(self, name, *arguments):
        if name == "train":
            self._break()
            self.epoch += 1
        done = super().call(name, *arguments)
        if name == "begin":
            self.epoch = done
        return done

    def _break(self):
        breaks = json.loads((Path(self.order.data) / FILE).read_text())
        epoch, error, text, *attempts = breaks.get(self.order.trial, breaks.get("*", (-1, "", "")))
        if self.epoch == epoch and (not attempts or self.order.attempt in attempts):
            raise KNOWN[error](text.format(time.time_ns()))


class Breaking(StandIn):
    """A trial of such workers."""

    @staticmethod
    def hire(order, folder, report, placed):
        return BreakingClock(order, report)


def write_breaks(data, **breaks):
    """Say which trials break: ``t0001=(0, "RuntimeError", "text", 1)``, the last for its first attempt alone."""
    named = {"*" if trial == "every" else trial.removeprefix("t"): told for trial, told in breaks.items()}
    (Path(data) / FILE).write_text(json.dumps(named))


if __name__ == "__main__":
    import tune.drive
    import tune.driver

    os.environ.setdefault(EPOCH_VARIABLE, "0.02")
    tune.driver.run_sweep = functools.partial(tune.driver.run_sweep, trial=Breaking)
    with contextlib.suppress(ModuleNotFoundError):
        __import__("driver_that_breaks")
    sys.exit(tune.drive.main(sys.argv[1:]))
