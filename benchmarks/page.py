"""The page of a made-up sweep: processor seconds, memory and bytes.

    python -m benchmarks.page [--trials N] [--epochs N] [--out FILE] [--json]

A sweep over five dimensions is made up, with early stopping, faults and the terms of evaluations image by image. Then
`semprior-tune report` writes its page in a new process that may use one core, and is timed from the start of its
interpreter to its end. The exit code is 1 where a bar is missed: 200 trials of 75 epochs in 10 s, 1 GB and 6 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna

from benchmarks.machine import load
from benchmarks.store_records import SCORE, images_of, kept_evaluations, records_of
from semprior.io.storage import open_storage
from tune.comparison.stored_sums import put_sums
from tune.search.space import Space
from tune.spec.sweep_file import load_sweep
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep, create_sweep

SECONDS, MEMORY_MB, PAGE_MB = 10.0, 1024.0, 6.0  # bars, of 200 trials of 75 epochs
BARRED = (200, 75)
_AT_A_TIME = 50  # trials in a file of records
_PROGRAM = """
import sys
from benchmarks.machine import peak_memory
from tune.cli.app import main
code = main(sys.argv[1:])
print(peak_memory())
sys.exit(code)
"""
_TEXT = """\
name: made-up
data: {data}
base: {{preset: quick, epochs: {epochs}}}
search:
  clusters.count: {{int: [1, 128], log: true}}
  scam.stages: {{subset: all}}
  scam.scale: {{float: [0.05, 1.0], when: {{scam.stages: nonempty}}}}
  optim.rate: {{float: [3.0e-4, 3.0e-3], log: true}}
  labels.seed: {{values: [contrast, edges]}}
objective: {{holdout/point_score: max}}
budget: {{trials: {trials}, hours: 24}}
storage: {storage}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 1 where a bar is missed."""
    options = _parse(arguments)
    busy = load()
    with tempfile.TemporaryDirectory(prefix="semprior-page-") as scratch:
        sweep = write_sweep(Path(scratch), options.trials, options.epochs)
        page = options.out or Path(scratch) / "page.html"
        command = ["report", sweep.id, "--storage", str(Path(scratch) / "runs"), "--out", str(page)]
        core = min(os.sched_getaffinity(0))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, *command],
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        figures = {
            "trials": options.trials,
            "epochs": options.epochs,
            "cpu_s": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
            "memory_mb": int(done.stdout.splitlines()[-1]) / 2**20,
            "page_mb": page.stat().st_size / 2**20,
            "load": busy,
        }
    passed = (figures["cpu_s"] <= SECONDS and figures["memory_mb"] <= MEMORY_MB and figures["page_mb"] <= PAGE_MB) or (
        options.trials,
        options.epochs,
    ) != BARRED
    print(json.dumps(figures | {"passed": passed}) if options.json else _in_words(figures, passed))
    return 0 if passed else 1


def write_sweep(folder: Path, trials: int, epochs: int) -> Sweep:
    """A sweep ``made-up`` in ``folder/runs`` whose trials never ran."""
    file = folder / "made-up.yaml"
    text = _TEXT.format(data=folder / "data", epochs=epochs, trials=trials, storage=folder / "runs")
    file.write_text(text, encoding="utf-8")
    spec = load_sweep(file, {})
    sweep = create_sweep(open_storage(spec.storage), spec.name, spec)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, study = Space(spec), optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    store, batch = ResultsStore(sweep.storage), []
    for number in range(trials):
        params = space.sample(study.ask()) if number else space.base_parameters()
        batch += _trial(sweep, number, epochs, params, space.leaves(params))
        if number % _AT_A_TIME == _AT_A_TIME - 1 or number == trials - 1:
            store.append(batch)
            batch = []
    return sweep


def _trial(
    sweep: Sweep, number: int, epochs: int, params: dict[str, object], leaves: dict[str, object]
) -> list[Record]:
    """The records of a trial: two in three are stopped early, and one in fifty fails once."""
    rng = np.random.default_rng(number)
    trained = epochs if number % 3 == 0 else max(2, epochs // int(rng.choice([2, 4])))
    level = 0.25 * float(params["optim.rate"] or 1e-3) / 3e-3 + 0.1 * rng.random()
    reports = []
    for report in list(records_of(number, epochs, f"writer-{number:05d}"))[:trained]:
        metrics = dict(report.metrics)
        if SCORE in metrics:
            metrics[SCORE] = 0.4 * metrics[SCORE] + level
        reports.append(replace(report, trial=f"{number:04d}", params=params, config=leaves, metrics=metrics))
    best = -np.inf
    for place, report in enumerate(reports):
        if SCORE in report.metrics:
            improved = report.metrics[SCORE] >= best
            best = max(best, report.metrics[SCORE])
            reports[place] = replace(report, best=improved, values=(best,), checkpoint=None, sha256=None)
        else:
            values = (best,) if np.isfinite(best) else ()
            reports[place] = replace(report, best=False, values=values, checkpoint=None, sha256=None)
    for place in kept_evaluations(reports):
        report = reports[place]
        images = images_of(number, report.metrics[SCORE])
        digest = put_sums(sweep.storage, report.trial, report.attempt, report.epoch, images)
        reports[place] = replace(report, images=digest)
    last = reports[-1]
    state, reason = ("completed", "") if trained == epochs else ("stopped", f"stopped by asha at epoch {trained}")
    shared = {"metrics": {}, "values": (), "best": False, "images": None, "wall_s": 0.0, "device_s": 0.0}
    end = replace(last, kind="end", epoch=trained, state=state, reason=reason, **shared)
    start = replace(reports[0], kind="start", **shared)
    fault = {"kind": "worker", "mark": "worker", "epochs": 0}
    broken = [replace(start, kind="fault", fault=fault, reason="a worker died")] if number % 50 == 7 else []
    return [start, *broken, *reports, end]


def _in_words(figures: dict[str, float | int | None], passed: bool) -> str:
    told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if value is not None)
    return f"{told}: {'passed' if passed else 'missed a bar'}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=BARRED[0])
    parser.add_argument("--epochs", type=int, default=BARRED[1])
    parser.add_argument("--out", type=Path, help="where the page is kept")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
