"""`semprior cost`: what a detector costs where it is deployed."""

from __future__ import annotations

import dataclasses
import json

from rich.console import Console

from semprior.deployment.cost import DetectorCost, detector_cost
from semprior.reporting.terminal import say
from semprior.runtime.device import instruction_set


def print_cost(target: str, size: int, threads: int, as_json: bool, console: Console) -> None:
    """Measure a detector and print what it costs.

    Args:
        target: name of a detector, or the folder of a run or checkpoint.
        size: height and width of the images, in pixels.
        threads: number of CPU threads.
        as_json: whether to print one JSON object.
        console: to print on.

    Raises:
        UserError: there is no such detector, run or checkpoint, or the extra `export` is not installed.
    """
    cost = detector_cost(target, size, threads)
    if as_json:
        print(json.dumps({**dataclasses.asdict(cost), "instructions": instruction_set()}))
        return
    _print_table(target, cost, console)


def _print_table(target: str, cost: DetectorCost, console: Console) -> None:
    where = f"{cost.threads} thread{'s' if cost.threads > 1 else ''}, {instruction_set()}"
    measured = f"{target}: {cost.detector}" if target != cost.detector else f"{cost.detector}, untrained"
    say(console, f"{measured}, {cost.parameters:,} parameters")
    say(console, f"an image of {cost.size}x{cost.size} on {where}: {cost.gflop:.2f} GFLOP")
    say(console, f"{'':20}{'median ms':>10}{'95th pct ms':>13}{'memory MB':>11}{'file MB':>9}")
    for form in cost.forms:
        memory = "" if form.memory_mb is None else f"{form.memory_mb:.0f}"
        name = f"{form.runtime} {form.numbers}"
        say(console, f"{name:20}{form.median_ms:10.1f}{form.p95_ms:13.1f}{memory:>11}{form.file_mb:9.2f}")
