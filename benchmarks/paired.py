"""The standard error of a difference between good configurations of a sweep: on the same images, and as if on others.

    python -m benchmarks.paired SWEEP [--top 4] [--metric point_score ...] [--json]

`SWEEP` is the address of a sweep's folder. The first configurations of its ranking are taken in pairs. *Paired* is the
standard error that `top` prints (`tune.comparison.paired`); *unpaired* is the root of the sum of the squares of the
standard errors of both values, each over the same images and runs. Where configurations have several runs, such as
folds, the errors are those of all runs together, and of each run alone.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from semprior.errors import UserError
from tune.comparison.paired import Comparison
from tune.comparison.ranked import compare_first, read_images
from tune.store.records import run_index
from tune.store.results_store import ResultsStore
from tune.store.sweeps import open_sweep


def measure(uri: str, top: int, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The errors of the difference of each pair of the first configurations, metric by metric.

    Args:
        uri: address of the sweep.
        top: number of configurations.
        metrics: names without ``holdout/``.

    Raises:
        UserError: there is no such sweep, or fewer than two configurations with values image by image.
    """
    sweep = open_sweep(uri)
    spec, store = sweep.spec, ResultsStore(sweep.storage)
    ranking = compare_first(store, spec.objective, limit=top, minimum=spec.runs_of_the_best, limits=spec.limits)
    entries = [one.entry for one in ranking.shown]
    wanted = {trial: address for entry in entries for trial, address in zip(entry.trials, entry.images, strict=True)}
    images = read_images(sweep.storage, wanted)
    runs = [{run_index(trial): images[trial] for trial in entry.trials if trial in images} for entry in entries]
    common = set.intersection(*map(set, runs)) if runs else set()
    found = []
    for chosen in [None, *(sorted(common) if len(common) > 1 else ())]:
        selected = [{run: sums for run, sums in one.items() if chosen in (None, run)} for one in runs]
        for metric in metrics:
            found += _errors(Comparison(selected, metric), [entry.trial.partition(".")[0] for entry in entries])
    if not found:
        raise UserError(f"{uri}: has no two configurations that were evaluated on the same images")
    return found


def _errors(comparison: Comparison, names: Sequence[str]) -> list[dict[str, Any]]:
    """The errors of the difference of each pair of configurations that were evaluated on the same images."""
    found = []
    for first, second in combinations(range(len(names)), 2):
        difference = comparison.difference(first, second)
        errors = comparison.error(first), comparison.error(second)
        if difference is None or difference.error is None or None in errors:
            continue
        common = comparison.configurations[first].keys() & comparison.configurations[second].keys()
        found.append(
            {
                "metric": comparison.metric,
                "first": names[first],
                "second": names[second],
                "runs": len(common),
                "images": len({name for run in common for name in comparison.configurations[first][run].names}),
                "difference": difference.value,
                "paired": difference.error,
                "unpaired": math.hypot(*(error for error in errors if error is not None)),
            }
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the errors of each pair, and their medians; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__.splitlines()[0])
    parser.add_argument("sweep", help="address of the sweep's folder")
    parser.add_argument("--top", type=int, default=4, help="configurations to take in pairs (default 4)")
    parser.add_argument("--metric", nargs="+", default=["point_score"], help="like point_score or iou")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    found = measure(options.sweep, options.top, options.metric)
    if options.json:
        print(json.dumps(found))
        return 0
    print(f"{'metric':14}{'pair':16}{'runs':>6}{'images':>8}{'difference':>12}{'paired':>9}{'unpaired':>10}")
    for row in found:
        pair = f"{row['first']} {row['second']}"
        print(
            f"{row['metric']:14}{pair:16}{row['runs']:6}{row['images']:8}{row['difference']:+12.4f}"
            f"{row['paired']:9.4f}{row['unpaired']:10.4f}"
        )
    for metric in options.metric:
        for runs in sorted({row["runs"] for row in found}):
            own = [row for row in found if (row["metric"], row["runs"]) == (metric, runs)]
            if own:
                paired, unpaired = (statistics.median(row[name] for row in own) for name in ("paired", "unpaired"))
                of = f"{runs} run{'s' if runs > 1 else ''}"
                print(f"{metric}, {of}: medians {paired:.4f} paired, {unpaired:.4f} unpaired")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
