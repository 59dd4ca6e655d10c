"""What a sweep costs beside training: start-up of a trial, and the share of slot time that is spent training.

    python -m benchmarks.sweep [--trials N] [--epochs E] [--json]

A local Ray with two slots runs real trials on small synthetic scenes, first one alone, then several two at a time.
*Start-up* of the one alone goes from the call of the driver, with Ray running, to the first training step. The
*overhead* of one among several goes from the end of the trial before it in its slot to its own first step; their share
of trials of five minutes is computed from it: ``300 / (300 + overhead)``.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine, load
from semprior.data.synthetic.scenes import write_scenes
from semprior.io.storage import open_storage
from tune.launch.local_ray import local_ray
from tune.spec.sweep_file import SweepSpec
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep, create_sweep

SLOTS, MINUTES = 2, 5.0
BASE = {"preset": "quick", "detector": "mlclnet", "scam.stages": "none", "data.crop": 64, "data.batch": 4}


def sweep_of(folder: Path, name: str, trials: int, epochs: int) -> Sweep:
    """A sweep on the scenes in ``folder/scenes``, in its storage."""
    spec: dict[str, Any] = {
        "name": name,
        "data": str(folder / "scenes"),
        "base": {**BASE, "epochs": epochs},
        "search": {"optim.rate": {"float": [1e-3, 1e-2]}},
        "objective": {"holdout/point_score": "max"},
        "sampler": {"name": "random"},
        "scheduler": {"name": "none"},
        "budget": {"trials": trials},
        "storage": str(folder / "runs"),
    }
    checked = SweepSpec.from_json(json.dumps(spec))
    return create_sweep(open_storage(folder / "runs"), name, checked)


def overheads(records: dict[str, list[Record]], slots: int) -> list[float]:
    """Seconds between the end of a trial and the first step of the next one in its slot, for each next one."""
    starts = sorted(next(r.time for r in told if r.kind == "start") for told in records.values())
    ends = [next(r.time for r in told if r.kind == "end") for told in records.values()]
    heapq.heapify(ends)
    return [start - heapq.heappop(ends) for start in starts[slots:]]


def measure(trials: int, epochs: int) -> dict[str, float]:
    """Run both sweeps."""
    with tempfile.TemporaryDirectory(prefix="semprior-bench-") as name:
        folder = Path(name)
        os.environ["SEMPRIOR_CACHE"] = str(folder / "cache")
        write_scenes(folder / "scenes", 30, 0)
        with local_ray(cpus=SLOTS, gpus=0):
            from tune.session.session import run_sweep  # here: Ray reads its settings when it is first imported

            alone = sweep_of(folder, "alone", 1, epochs)
            began = time.time()
            run_sweep(alone.spec, alone.storage.uri, 1)
            told = ResultsStore(alone.storage).records()["0000"]
            several = sweep_of(folder, "several", trials, epochs)
            run_sweep(several.spec, several.storage.uri, 1)
        found = overheads(ResultsStore(several.storage).records(), SLOTS)
    overhead = statistics.median(found)
    return {
        "startup_s": next(r.time for r in told if r.kind == "start") - began,
        "overhead_s": overhead,
        "overhead_worst_s": max(found),
        "share_of_5_min": 60 * MINUTES / (60 * MINUTES + overhead),
        "trials": trials,
        "slots": SLOTS,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=6, help="two at a time (default 6)")
    parser.add_argument("--epochs", type=int, default=6, help="of each (default 6)")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    if options.trials <= SLOTS or options.epochs < 1:
        parser.error(f"--trials must be above {SLOTS}, --epochs at least 1")
    busy = load()
    with contextlib.redirect_stdout(sys.stderr):  # Ray shows there what its workers print
        figures: dict[str, Any] = measure(options.trials, options.epochs)
    figures |= {"machine": describe_machine(), "load_before": busy}
    if options.json:
        print(json.dumps(figures))
        return 0
    table = Table(title=f"{options.trials} trials, {SLOTS} at a time; {figures['machine']}; load before: {busy}")
    for column in ("start-up alone", "overhead, median", "worst", "share of 5 min"):
        table.add_column(column, justify="right")
    cells = (figures["startup_s"], figures["overhead_s"], figures["overhead_worst_s"])
    table.add_row(*(f"{cell:.1f} s" for cell in cells), f"{figures['share_of_5_min']:.1%}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
