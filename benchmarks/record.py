"""Turns a sweep with values image by image into one small file, which the surrogate of a search is fitted to.

    python -m benchmarks.record SWEEP [--out benchmarks/recorded_folds.jsonl]

`SWEEP` is the address of a sweep's folder; one that still runs gives what has ended so far. The first line of the file
says what was recorded: the data, the settings that the runs share, the number of folds. Each other line is a completed
run: its configuration, its curve, and the terms of its best evaluation, image by image.

`recorded_folds.jsonl` is the recording of ``python -m tune submit benchmarks/recorded_folds.yaml``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semprior.errors import UserError
from semprior.evaluation.image_sums import ImageSums, terms_of
from semprior.io.atomic_files import write_atomically
from tune.comparison.ranked import read_images
from tune.spec.sweep_file import SweepSpec
from tune.store.records import run_index
from tune.store.results_store import ResultsStore
from tune.store.sweeps import open_sweep

SCORE = "point_score"
OUT = Path(__file__).parent / "recorded_folds.jsonl"


@dataclass(frozen=True)
class RecordedRun:
    """A real run.

    Attributes:
        configuration: number of the configuration.
        run: index of the run, which is its fold.
        seed: seed of the run.
        epochs: number of epochs of its schedule.
        params: the searched leaves and their values.
        scores: evaluated epochs from 0, each with its `point_score`.
        best: epoch of the best evaluation.
        images: the terms of `point_score` at the best evaluation, image by image.
    """

    configuration: int
    run: int
    seed: int
    epochs: int
    params: Mapping[str, Any]
    scores: tuple[tuple[int, float], ...]
    best: int
    images: ImageSums


def runs_of(uri: str) -> list[RecordedRun]:
    """The completed runs of a sweep.

    Raises:
        UserError: there is no such sweep, or no completed run has values image by image.
    """
    sweep = open_sweep(uri)
    store, found = ResultsStore(sweep.storage), []
    completed = [trial for trial in store.trials() if trial.state == "completed"]
    images = read_images(sweep.storage, {trial.trial: trial.images for trial in completed})
    curves = store.curves([trial.trial for trial in completed])
    terms = terms_of(SCORE)
    for trial in completed:
        sums = images.get(trial.trial)
        if sums is None or trial.best_epoch is None or not set(terms) <= set(sums.terms):
            continue
        table = sums.table[:, [sums.terms.index(term) for term in terms]]
        name = f"holdout/{SCORE}"
        scores = tuple((r.epoch, r.metrics[name]) for r in curves[trial.trial] if name in r.metrics)
        found.append(
            RecordedRun(
                configuration=trial.configuration,
                run=run_index(trial.trial),
                seed=trial.seed,
                epochs=trial.epochs,
                params=dict(trial.params),
                scores=scores,
                best=trial.best_epoch,
                images=ImageSums(sums.names, terms, table),
            )
        )
    if not found:
        raise UserError(f"{uri}: has no completed run with values image by image")
    return found


def write_recording(spec: SweepSpec, runs: Sequence[RecordedRun], path: Path) -> None:
    """Write the runs of a sweep to a file, a JSON object in each line."""
    data = spec.data.rstrip("/").rpartition("/")[2]
    lines = [json.dumps({"data": data, "base": dict(spec.base), "runs": spec.run_count}) + "\n"]
    for run in runs:
        row = {name: value for name, value in vars(run).items() if name != "images"}
        row["scores"] = [[epoch, round(score, 4)] for epoch, score in run.scores]
        row["names"], row["terms"] = run.images.names, run.images.terms
        row["table"] = [[round(number, 2) for number in line] for line in run.images.table.tolist()]
        lines.append(json.dumps(row) + "\n")
    write_atomically(path, "".join(lines).encode())


def read_recording(path: Path) -> list[RecordedRun]:
    """Read runs from a file of `write_recording`."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        row = json.loads(line)
        table = np.array(row.pop("table"), np.float32)
        images = ImageSums(tuple(row.pop("names")), tuple(row.pop("terms")), table)
        row["scores"] = tuple((epoch, score) for epoch, score in row["scores"])
        found.append(RecordedRun(**row, images=images))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Record a sweep; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", help="address of the sweep's folder")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="file to write (default recorded_folds.jsonl beside this)"
    )
    options = parser.parse_args(arguments)
    runs = runs_of(options.sweep)
    write_recording(open_sweep(options.sweep).spec, runs, options.out)
    configurations = len({run.configuration for run in runs})
    print(f"{options.out}: {len(runs)} runs of {configurations} configurations")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
