"""What the sampler and early stopping save: epochs until a sweep is as good as a whole random one.

    python -m benchmarks.search [--seeds 20] [--json]

The sweep is tune/sweeps/sirst-v1.yaml, run by the service's own `Search` and schedulers, two trials at a time, on
trials drawn from a surrogate that is fitted to recorded curves of real trials (benchmarks/surrogate.py says what of it
is real and what assumed). Each seed has a landscape of its own. The aim on it is the best that random search without
early stopping finds with the file's whole budget of configurations, the median of `WHOLE` such searches. Then random
and TPE, with ASHA and without, begin anew and are charged the epochs, over all their trials, until their best value
reaches the aim. A search that has not reached it after `LIMIT` times the budget is charged that much. Values are what a
sweep sees: the student's best evaluation so far.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray.tune.schedulers import TrialScheduler
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from benchmarks.machine import describe_machine
from benchmarks.surrogate import Facts, Surrogate, read_recorded
from semprior.config.epochs import is_due, share_of
from semprior.config.schema import Config
from tune.search.early_stopping import first_decision, make_scheduler
from tune.search.ray_tune_internals import EPOCH, VALUE
from tune.search.search import Search
from tune.spec.sweep_file import SweepSpec, load_sweep

SWEEP = Path(__file__).parents[1] / "tune" / "sweeps" / "sirst-v1.yaml"
VARIANTS = {
    "random": ("random", "none"),
    "random + ASHA": ("random", "asha"),
    "TPE": ("tpe", "none"),
    "TPE + ASHA": ("tpe", "asha"),
}
SLOTS = 2
LIMIT = 3
WHOLE = 5
BAR = 0.25


@dataclass
class Running:
    """A trial in a slot; a scheduler knows it by its id.

    Attributes:
        trial_id: of the trial.
        number: of its configuration.
        scores: that it will have, by epoch.
        epoch: to be trained next.
        best: so far.
    """

    trial_id: str
    number: int
    scores: dict[int, float]
    epoch: int = 0
    best: float | None = None


def evaluations(config: Config) -> list[int]:
    """The epochs that a trial is evaluated at."""
    first, every = share_of(config.select.after, config.epochs), config.select.every
    return [e for e in range(config.epochs) if is_due(e, first, every) or e + 1 == config.epochs]


@dataclass
class Simulation:
    """A sweep on the surrogate: slots that train an epoch each, again and again.

    Attributes:
        spec: of the sweep.
        surrogate: of the trials.
        seed: of the runs' noise.
        spent: epochs so far, over all trials.
    """

    spec: SweepSpec
    surrogate: Surrogate
    seed: int
    spent: int = 0

    def run(self) -> Iterator[float]:
        """The best value so far, after each epoch of any trial."""
        search, scheduler = Search(self.spec), make_scheduler(self.spec)
        config = self.spec.base_config()
        due, running, best = evaluations(config), [], float("-inf")
        while True:
            while len(running) < SLOTS and (asked := search.ask()) is not None:
                scores = self.surrogate.trial(asked.parameters, config.epochs, due, self.seed)
                running.append(Running(f"{asked.number:04d}", asked.number, scores))
                scheduler.on_trial_add(None, running[-1])  # type: ignore[arg-type]
            if not running:
                return
            for trial in list(running):
                if self._epoch(trial, search, scheduler, config.epochs):
                    running.remove(trial)
                best = max(best, trial.best if trial.best is not None else best)
                yield best

    def _epoch(self, trial: Running, search: Search, scheduler: TrialScheduler, epochs: int) -> bool:
        """Train an epoch; whether the trial has ended with it."""
        epoch, score = trial.epoch, trial.scores.get(trial.epoch)
        self.spent += 1
        trial.epoch += 1
        if score is not None:
            trial.best = score if trial.best is None else max(trial.best, score)
        search.report(trial.number, epoch, trial.best)
        result = {EPOCH: epoch} | ({VALUE: trial.best} if trial.best is not None else {})
        decision = scheduler.on_trial_result(None, trial, result)  # type: ignore[arg-type]
        if trial.epoch < epochs and decision != TrialScheduler.STOP:
            return False
        state = "completed" if trial.epoch == epochs else "stopped"
        if state == "completed":
            scheduler.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
        search.tell(trial.number, state, (trial.best,) if trial.best is not None else None)
        return True


def simulation(spec: SweepSpec, variant: str, seed: int, surrogate: Surrogate, trials: int) -> Simulation:
    """A sweep of one kind."""
    sampler, scheduler = VARIANTS[variant]
    changed = {
        "sampler": spec.sampler.model_copy(update={"name": sampler, "seed": seed}),
        "scheduler": spec.scheduler.model_copy(update={"name": scheduler}),
        "budget": spec.budget.model_copy(update={"trials": trials}),
    }
    return Simulation(spec.model_copy(update=changed), surrogate, seed)


def measure(seeds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures.

    Args:
        seeds: searches of each kind.
        say: told how far it is.
    """
    spec, facts = load_sweep(SWEEP, {}), Facts.of(read_recorded())
    trials, config = spec.budget.trials, spec.base_config()
    budget = trials * config.epochs
    spent: dict[str, list[int]] = {variant: [] for variant in VARIANTS}
    seconds = dict.fromkeys(VARIANTS, 0.0)
    correlations = []
    for seed in range(seeds):
        surrogate = Surrogate(facts, ranges_of(spec), seed)
        noises = range(1000 * (seed + 1), 1000 * (seed + 1) + WHOLE)
        aim = statistics.median(max(simulation(spec, "random", noise, surrogate, trials).run()) for noise in noises)
        correlations.append(rung_correlation(spec, surrogate))
        for variant in VARIANTS:
            began = time.perf_counter()
            sweep = simulation(spec, variant, seed, surrogate, 100 * trials)
            for best in sweep.run():
                if best >= aim or sweep.spent >= LIMIT * budget:
                    break
            spent[variant].append(sweep.spent)
            seconds[variant] += time.perf_counter() - began
        say(f"seed {seed}: aim {aim:.4f}; " + ", ".join(f"{name} {counts[-1]}" for name, counts in spent.items()))
    found = {
        variant: {
            "epochs": statistics.median(counts),
            "quartiles": statistics.quantiles(counts, n=4)[::2] if seeds > 1 else [counts[0]] * 2,
            "of_random": statistics.median(counts) / statistics.median(spent["random"]),
            "not_reached": sum(count >= LIMIT * budget for count in counts),
            "seconds": seconds[variant],
        }
        for variant, counts in spent.items()
    }
    return {
        "variants": found,
        "budget_epochs": budget,
        "seeds": seeds,
        "bar": BAR,
        "met": found["TPE + ASHA"]["of_random"] <= BAR,
        "rung_against_final": statistics.median(correlations),
        "facts": asdict(facts),
        "recorded": len(read_recorded()),
    }


def ranges_of(spec: SweepSpec) -> dict[str, tuple[float, float, bool]]:
    """Ends of the numeric dimensions, and whether they are logarithmic."""
    return {key: (*one.bounds, one.log) for key, one in spec.search.items() if one.bounds is not None}


def rung_correlation(spec: SweepSpec, surrogate: Surrogate, count: int = 100) -> float:
    """Spearman correlation of the best at the first rung with the best at the end, over random configurations."""
    config = spec.base_config()
    due, rung = evaluations(config), first_decision(spec.scheduler, config)
    search = Search(simulation(spec, "random", 0, surrogate, count).spec)
    pairs = []
    while (asked := search.ask()) is not None:
        scores = surrogate.trial(asked.parameters, config.epochs, due, 0)
        pairs.append((max(v for e, v in scores.items() if e <= rung), max(scores.values())))
    return float(spearmanr(*zip(*pairs, strict=True)).statistic)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="searches of each kind (default 20)")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    figures = measure(options.seeds, lambda text: print(text, file=sys.stderr))
    if options.json:
        print(json.dumps({**figures, "machine": describe_machine()}))
        return 0
    table = Table("search", "epochs (quartiles)", "of random", "not reached", title_justify="left")
    table.title = (
        f"epochs to reach the best of {figures['budget_epochs']} random epochs; medians of {figures['seeds']} seeds"
    )
    for variant, entry in figures["variants"].items():
        low, high = entry["quartiles"]
        table.add_row(
            variant,
            f"{entry['epochs']:.0f} ({low:.0f} to {high:.0f})",
            f"{entry['of_random']:.2f}",
            str(entry["not_reached"]),
        )
    console = Console()
    console.print(table)
    console.print(f"rung against final value, Spearman: {figures['rung_against_final']:.2f}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
