"""What sampler, early stopping and race find, and how soon: simulated sweeps on a surrogate of real runs.

    python -m benchmarks.search [--seeds 20] [--first 0] [--out FILE] [--json]

The sweep is tune/sweeps/sirst-v1.yaml, run by the service's own `Search` and schedulers, two runs at a time, on runs
drawn from a surrogate that is fitted to recorded ones, image by image (benchmarks/surrogate.py says what of it is real
and what assumed). Each seed has a landscape and held-out images of its own. What a sweep recommends is what `top` puts
first, by `compare_first` on a real store; with promotion, what `promote --top 3 --seeds 3` puts first. Kinds without
folds hold out the same 26 images in all runs.

* **Regret**: all kinds spend the epochs that random search takes for the file's whole budget, promotion included. Runs
  that last at the end count as they are. The regret is how far the true level of the recommended
  configuration lies below the best level of the landscape.
* **Epochs to random's best**: the aim is the best true level among the configurations that a random search tries with
  the whole budget, the median of `WHOLE` such searches. Kinds without promotion are charged the epochs until they
  recommend, at the end of some run, a configuration as good as that; at most `LIMIT` times the budget.

With ``--out``, each seed that is done is a line of a file, and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.simulated_sweep import Simulation
from benchmarks.surrogate import Facts, Surrogate, read_facts
from tune.comparison.ranked import compare_first, read_images
from tune.search.promotion import promotion, rank_promotion
from tune.search.search import Search
from tune.spec.sweep_file import Runs, SweepSpec, load_sweep

SWEEP = Path(__file__).parents[1] / "tune" / "sweeps" / "sirst-v1.yaml"
LIMIT = 3
WHOLE = 5
FOLD_COUNT = 5
PROMOTED, PROMOTED_SEEDS = 3, 3
BARS = {"regret": 0.5, "epochs": 0.25}
"""Most regret of a race, relative to TPE with ASHA and promotion; most epochs, relative to random search."""


@dataclass(frozen=True)
class Kind:
    """A kind of sweep.

    Attributes:
        sampler: what differs from the file's sampler.
        scheduler: name of the scheduler; ``race`` has folds.
        promotes: whether the last epochs go to a promotion.
    """

    sampler: Mapping[str, Any]
    scheduler: str = "none"
    promotes: bool = False


KINDS = {
    "random": Kind({"name": "random"}),
    "TPE": Kind({"name": "tpe"}),
    "TPE + ASHA": Kind({"name": "tpe"}, "asha"),
    "TPE + ASHA + promote": Kind({"name": "tpe"}, "asha", promotes=True),
    "race": Kind({"name": "tpe"}, "race"),
    "race, shrink": Kind({"name": "tpe", "shrink": True}, "race"),
    "race, random .1": Kind({"name": "tpe", "random": 0.1}, "race"),
}


def simulation(spec: SweepSpec, kind: Kind, seed: int, surrogate: Surrogate, trials: int, folder: Path) -> Simulation:
    """A sweep of one kind."""
    changed = {
        "sampler": spec.sampler.model_copy(update={**kind.sampler, "seed": seed}),
        "scheduler": spec.scheduler.model_copy(update={"name": kind.scheduler}),
        "budget": spec.budget.model_copy(update={"trials": trials}),
        "runs": Runs(folds=FOLD_COUNT if kind.scheduler == "race" else None),
    }
    return Simulation(spec.model_copy(update=changed), surrogate, seed, folder)


def promoted(sweep: Simulation, folder: Path) -> Mapping[str, Any]:
    """The parameters of the configuration that a promotion of the best ones puts first."""
    spec = sweep.spec
    ranking = compare_first(
        sweep.store(), dict(spec.objective), limit=PROMOTED, minimum=spec.runs_of_the_best, limits=spec.limits
    )
    chosen = [one.entry for one in ranking.shown]
    second = Simulation(promotion(spec, chosen, PROMOTED_SEEDS, {}), sweep.surrogate, sweep.noise, folder)
    while second.train():
        pass
    sweep.spent += second.spent
    store = second.store()
    trials = store.trials()
    images = read_images(store.storage, {trial.trial: trial.images for trial in trials})
    return rank_promotion(trials, True, second.objective, images, spec.limits)[0].params


def measure(seed: int, spec: SweepSpec, facts: Facts, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The figures of one seed.

    Args:
        seed: of the landscape, of the sampler and of the noise.
        spec: the sweep.
        facts: what the surrogate is made of.
        kinds: the kinds of sweeps.
    """
    surrogate = Surrogate(facts, ranges_of(spec), seed)
    budget, whole = spec.budget.trials * spec.base_config().epochs, 100 * spec.budget.trials
    best = surrogate.best_level()
    found: dict[str, dict[str, float]] = {}
    aim = statistics.median(best_of_random(spec, surrogate, noise) for noise in range(WHOLE))
    with tempfile.TemporaryDirectory() as name:
        folders = (Path(name) / f"{number}" for number in range(2 * len(kinds)))

        def level(sweep: Simulation) -> float:
            chosen = sweep.recommended()
            return -math.inf if chosen is None else surrogate.quality(chosen)

        for label, kind in kinds.items():
            began, reached = time.process_time(), None
            sweep = simulation(spec, kind, seed, surrogate, whole, next(folders))
            of_promotion = PROMOTED * PROMOTED_SEEDS * sweep.epochs if kind.promotes else 0
            while sweep.spent < budget - of_promotion:
                sweep.train(budget - of_promotion)
                if reached is None and not kind.promotes and sweep.tried >= aim and level(sweep) >= aim:
                    reached = sweep.spent
            found[label] = {"runs": len(sweep.runs), "configurations": len(sweep.search.history.configurations)}
            end = surrogate.quality(promoted(sweep, next(folders))) if kind.promotes else level(sweep)
            found[label] |= {"regret": best - end, "best_tried": best - sweep.tried, "epochs": sweep.spent}
            if not kind.promotes:
                while sweep.spent < LIMIT * budget and reached is None:
                    sweep.train(LIMIT * budget)
                    reached = sweep.spent if sweep.tried >= aim and level(sweep) >= aim else None
                found[label]["reached"] = reached or LIMIT * budget
            found[label]["seconds"] = time.process_time() - began
    return {"seed": seed, "best": best, "aim": aim, "budget": budget, "kinds": found}


def best_of_random(spec: SweepSpec, surrogate: Surrogate, number: int) -> float:
    """The best level among the configurations of a random search with the budget of the file."""
    sampler = spec.sampler.model_copy(update={"name": "random", "seed": 1000 + number})
    search, levels = Search(spec.model_copy(update={"sampler": sampler})), []
    while (asked := search.ask()) is not None:
        levels.append(surrogate.quality(asked.parameters))
    return max(levels)


def ranges_of(spec: SweepSpec) -> dict[str, tuple[float, float, bool]]:
    """Ends of the numeric dimensions, and whether they are logarithmic."""
    return {key: (*one.bounds, one.log) for key, one in spec.search.items() if one.bounds is not None}


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures over all seeds."""
    labels = list(rows[0]["kinds"])
    column = {
        (label, name): np.array([row["kinds"][label].get(name, math.nan) for row in rows], float)
        for label in labels
        for name in ("regret", "best_tried", "reached", "configurations", "runs", "seconds")
    }
    limit, base = LIMIT * rows[0]["budget"], "TPE + ASHA + promote"
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(rows), (2000, len(rows)))
    found = {}
    for label in labels:
        regret, reached = column[label, "regret"], column[label, "reached"]
        entry: dict[str, Any] = {
            "regret_median": float(np.median(regret)),
            "regret_mean": float(regret.mean()),
            "regret_interval": np.percentile(regret[draws].mean(1), [2.5, 97.5]).tolist(),
            "best_tried": float(column[label, "best_tried"].mean()),
            "configurations": float(np.median(column[label, "configurations"])),
            "runs": float(np.median(column[label, "runs"])),
            "seconds": float(column[label, "seconds"].sum()),
        }
        if base in labels:
            other = column[base, "regret"]
            ratios = regret[draws].mean(1) / other[draws].mean(1)
            entry["of_promoted"] = float(regret.mean() / other.mean())
            entry["of_promoted_interval"] = np.percentile(ratios, [2.5, 97.5]).tolist()
            entry["of_promoted_median"] = float(np.median(regret) / np.median(other))
        if np.isfinite(reached).all():
            entry["epochs"] = float(np.median(reached))
            entry["quartiles"] = np.percentile(reached, [25, 75]).tolist()
            entry["not_reached"] = int((reached >= limit).sum())
            if "random" in labels:
                randoms = column["random", "reached"]
                entry["of_random"] = float(np.median(reached) / np.median(randoms))
                drawn = np.median(reached[draws], axis=1) / np.median(randoms[draws], axis=1)
                entry["of_random_interval"] = np.percentile(drawn, [2.5, 97.5]).tolist()
        found[label] = entry
    return {"kinds": found, "seeds": len(rows), "budget": rows[0]["budget"], "bars": BARS}


def run_seeds(
    seeds: Sequence[int], kinds: Mapping[str, Kind], out: Path | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The figures of some seeds; those that `out` has already are read from it."""
    spec, facts = load_sweep(SWEEP, {}), read_facts()
    known = {}
    if out is not None and out.exists():
        known = {row["seed"]: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    rows = []
    for seed in seeds:
        if seed not in known:
            known[seed] = measure(seed, spec, facts, kinds)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(known[seed]) + "\n")
        rows.append(known[seed])
        regrets = ", ".join(f"{name} {entry['regret']:.4f}" for name, entry in known[seed]["kinds"].items())
        say(f"seed {seed}: best {known[seed]['best']:.4f}, aim {known[seed]['aim']:.4f}; regret {regrets}")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="number of sweeps of each kind (default 20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS], default=[*KINDS], help="kinds of sweeps (default all)")
    parser.add_argument("--out", type=Path, help="file of the seeds that are done, to which others are added")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    kinds = {name: KINDS[name] for name in options.kinds}
    rows = run_seeds(seeds, kinds, options.out, lambda text: print(text, file=sys.stderr))
    figures = summary(rows)
    if options.json:
        print(json.dumps({**figures, "machine": describe_machine()}))
        return 0
    print_figures(figures, Console())
    return 0


def print_figures(figures: Mapping[str, Any], console: Console) -> None:
    """Print the table."""
    columns = (
        "sweep",
        "regret, median",
        "mean (95 %)",
        "best tried",
        "of promoted (95 %)",
        "epochs (quartiles)",
        "of random (95 %)",
    )
    table = Table(*columns, "not reached", "configurations", "runs", title_justify="left")
    table.title = f"{figures['budget']} epochs each, {figures['seeds']} seeds"
    for label, entry in figures["kinds"].items():

        def spread(name: str, digits: int, entry: Mapping[str, Any] = entry) -> str:
            low, high = entry[f"{name}_interval"]
            return f"({low:.{digits}f} to {high:.{digits}f})"

        cells = [label, f"{entry['regret_median']:.4f}", f"{entry['regret_mean']:.4f} {spread('regret', 4)}"]
        cells.append(f"{entry['best_tried']:.4f}")
        cells.append(f"{entry['of_promoted']:.2f} {spread('of_promoted', 2)}" if "of_promoted" in entry else "")
        if "epochs" in entry:
            low, high = entry["quartiles"]
            cells.append(f"{entry['epochs']:.0f} ({low:.0f} to {high:.0f})")
            cells.append(f"{entry['of_random']:.2f} {spread('of_random', 2)}" if "of_random" in entry else "")
            cells.append(str(entry["not_reached"]))
        else:
            cells += ["", "", ""]
        table.add_row(*cells, f"{entry['configurations']:.0f}", f"{entry['runs']:.0f}")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
