"""What one head can serve: a sweep of many trials whose training is a clock, and a simulated cluster that loses a node.

    python -m benchmarks.cluster [--trials 1000] [--slots 64] [--epochs 45] [--epoch 1.0] [--nodes 8] [--json]

*The head.* Search (TPE), scheduler (ASHA), driver, compaction and store are the service's own; each of the trials that
run at a time has its process, as on a real head. Only its workers are a stand-in that waits for the time of an epoch,
makes a score up and records it (`benchmarks.stand_in`). Counted from the moment that all slots are taken to the begin
of the last trial: decisions (an epoch that was reported and judged) and records a second; processor time of the driver
and of Ray's server of the cluster's state, as shares of one core; the share of the slots' time in which an epoch was
trained and had to wait for the driver's leave. Memory is what a process has to itself, its share of common pages added.

*Correctness.* A Ray cluster of loopback nodes with one CPU each runs one trial a node. When all have had one, a node
whose trial is not half done is removed at once. Every trial must end, once, that one elsewhere; every epoch counts
once. The exit code is 1 where that is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine, load, peak_memory
from benchmarks.processes import Sampler
from semprior.io.storage import open_storage
from semprior.reporting.terminal import print_error
from tune.launch.local_ray import local_ray
from tune.spec.sweep_file import SweepSpec
from tune.store.compaction import compact_in_background
from tune.store.records import Record
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep, create_sweep

SWEEP = Path(__file__).parents[1] / "tune" / "sweeps" / "sirst-v1.yaml"
SMALL = {"object_store_memory": 80 << 20, "num_gpus": 0}
PATIENCE = 600.0  # seconds for every node to have a trial
LOSS = 8.0  # seconds of training, at least, of each trial of which one must be under way when its node is lost


def sweep_of(folder: Path, name: str, trials: int, slots: int, epochs: int, scheduler: str) -> Sweep:
    """The dimensions of tune/sweeps/sirst-v1.yaml, on no data."""
    from tune.spec.sweep_file import load_sweep

    spec = json.loads(load_sweep(SWEEP, {}).to_json())
    spec |= {
        "name": name,
        "data": str(folder / "none"),
        "base": spec["base"] | {"epochs": epochs},
        "scheduler": {"name": scheduler},
        "budget": {"trials": trials},
        "seeds": 1,
        "resources": {"workers": 1, "cpus": 1, "gpus": 0},
        "concurrent": slots,
        "storage": str(folder / "runs"),
    }
    checked = SweepSpec.from_json(json.dumps(spec))
    return create_sweep(open_storage(folder / "runs"), name, checked)


def measure_head(folder: Path, trials: int, slots: int, epochs: int) -> dict[str, Any]:
    """The first part."""
    sweep = sweep_of(folder, "head", trials, slots, epochs, "asha")
    parts: dict[str, float] = {}
    with local_ray(cpus=slots, gpus=0):
        from benchmarks.stand_in import WAITED, StandIn
        from tune.session.session import run_sweep

        with _timed_parts(parts), Sampler() as sampler, compact_in_background(sweep.storage, _complain):
            done = run_sweep(sweep.spec, sweep.storage.uri, 1, trainable=StandIn)
    told = ResultsStore(sweep.storage).records()
    records = [record for of_trial in told.values() for record in of_trial]
    begun = sorted(record.time for record in records if record.kind == "start")
    first, last = sampler.between(begun[min(slots, len(begun)) - 1], begun[-1])
    seconds = last.time - first.time
    within = [record for record in records if first.time <= record.time < last.time]
    reports = [record for record in within if record.kind == "report"]
    waited = sum(record.metrics[WAITED] for record in reports)
    return {
        "done": done,
        "trials": trials,
        "slots": slots,
        "faults": faults_of(told, trials),
        "window_s": seconds,
        "decisions": len(reports),
        "decisions_per_s": len(reports) / seconds,
        "records_per_s": len(within) / seconds,
        "trials_per_s": sum(record.kind == "start" for record in within) / seconds,
        "waiting_share": waited / (slots * seconds),
        "driver_share": (last.driver_cpu - first.driver_cpu) / seconds,
        "ray_share": (last.ray_cpu - first.ray_cpu) / seconds,
        "parts": {
            name: used / (sampler.samples[-1].driver_cpu - sampler.samples[0].driver_cpu)
            for name, used in parts.items()
        },
        "driver_mb": last.driver_mb,
        "driver_growth_mb": last.driver_mb - first.driver_mb,
        "driver_peak_mb": (peak_memory() or 0) / 2**20,
        "ray_mb": last.ray_mb,
        "trial_process_mb": last.trial_mb,
    }


def _complain(text: str) -> None:
    print_error("benchmarks.cluster", text)


@contextlib.contextmanager
def _timed_parts(parts: dict[str, float]) -> Iterator[None]:
    """Processor seconds of what the driver does, by name."""
    from tune.search.dashboard_journal import DashboardJournal
    from tune.search.ray_tune_internals import SuccessiveHalving
    from tune.search.search import Search
    from tune.session import tune_search
    from tune.store import compaction

    timed = {
        "asking the sampler": (Search, "_sampled"),
        "the study's file": (DashboardJournal, "_write_or_give_up"),
        "early stopping": (SuccessiveHalving, "on_trial_result"),
        "ends of trials": (tune_search, "end_trial"),
        "compaction": (compaction, "compact"),
    }
    with contextlib.ExitStack() as stack:
        for name, (owner, attribute) in timed.items():
            stack.enter_context(_timed(owner, attribute, parts, name))
        yield


@contextlib.contextmanager
def _timed(owner: Any, attribute: str, parts: dict[str, float], name: str) -> Iterator[None]:  # noqa: ANN401
    plain: Callable[..., Any] = getattr(owner, attribute)
    parts[name] = 0.0

    def timed(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        began = time.thread_time()
        try:
            return plain(*arguments, **named)
        finally:
            parts[name] += time.thread_time() - began

    setattr(owner, attribute, timed)
    try:
        yield
    finally:
        setattr(owner, attribute, plain)


def check_nodes(folder: Path, nodes: int, epochs: int) -> dict[str, Any]:
    """The second part: two trials for each node, and one node less on the way."""
    sweep = sweep_of(folder, "nodes", 2 * nodes, nodes, epochs, "none")
    lost: list[str] = []
    ended = threading.Event()
    with _cluster(nodes) as (others, remove):
        from benchmarks.stand_in import StandInApart
        from tune.session.session import run_sweep

        def strike() -> None:
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until and not lost and not ended.is_set():
                told = ResultsStore(sweep.storage).records()
                young = others & _hosts_of_young(told, epochs)
                if young and len(_hosts(sweep)) == nodes:
                    lost.append(min(young))
                    remove(lost[0])
                time.sleep(0.2)

        striking = threading.Thread(target=strike, daemon=True)
        striking.start()
        done = run_sweep(sweep.spec, sweep.storage.uri, 1, trainable=StandInApart)
        ended.set()
        striking.join()
    told = ResultsStore(sweep.storage).records()
    repeated = sum(max(record.attempt for record in of_trial) > 1 for of_trial in told.values())
    faults = faults_of(told, 2 * nodes, epochs)
    if not repeated:
        faults.append("no trial went on elsewhere" if lost else "every trial ended before a node was removed")
    return {
        "done": done,
        "nodes": nodes,
        "trials": 2 * nodes,
        "nodes_used": len(_hosts(sweep)),
        "trials_that_went_on_elsewhere": repeated,
        "faults": faults,
    }


def _hosts(sweep: Sweep) -> set[str]:
    told = ResultsStore(sweep.storage).curves()
    return {record.host for curve in told.values() for record in curve}


def _hosts_of_young(told: Mapping[str, Sequence[Record]], epochs: int) -> set[str]:
    """Where a trial has begun and is not half done."""
    newest = [records[-1] for records in told.values()]
    return {record.host for record in newest if record.kind == "report" and 2 * record.epoch < epochs}


@contextlib.contextmanager
def _cluster(nodes: int) -> Iterator[tuple[set[str], Callable[[str], None]]]:
    """A cluster of loopback nodes with a CPU each. Gives the ids of all but the head, and what removes one at once."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, True, head_node_args={"num_cpus": 1, "include_dashboard": False, **SMALL})
    try:
        added = {node.node_id: node for node in (cluster.add_node(num_cpus=1, **SMALL) for _ in range(nodes - 1))}
        yield set(added), lambda node: cluster.remove_node(added[node], allow_graceful=False)
    finally:
        ray.shutdown()
        cluster.shutdown()


def faults_of(told: Mapping[str, Sequence[Record]], trials: int, epochs: int | None = None) -> list[str]:
    """What is wrong with the records of a sweep.

    Args:
        told: everything that was ever appended, by trial.
        trials: that there must be.
        epochs: of each; none: some were stopped early.
    """
    faults = [] if len(told) == trials else [f"{len(told)} of {trials} trials"]
    for trial, records in told.items():
        kinds = Counter(record.kind for record in records)
        if kinds["end"] != 1:
            faults.append(f"{trial}: ended {kinds['end']} times")
        state = next((record.state for record in records if record.kind == "end"), "running")
        if state not in ("completed", "stopped"):
            faults.append(f"{trial}: {state}")
        seen = [record.epoch for record in records if record.kind == "report"]
        if sorted(seen) != list(range(len(seen))) or (epochs is not None and len(seen) != epochs):
            faults.append(f"{trial}: epochs {seen}")
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0, or 1 where a trial did not end once and only once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000, help="of the sweep on one head (default 1000)")
    parser.add_argument("--slots", type=int, default=64, help="trials at a time (default 64)")
    parser.add_argument("--epochs", type=int, default=45, help="of each (default 45)")
    parser.add_argument("--epoch", type=float, default=1.0, help="seconds of one (default 1)")
    parser.add_argument("--nodes", type=int, default=8, help="of the simulated cluster (default 8); 0: none")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    options = parser.parse_args(arguments)
    if not 1 <= options.slots < options.trials or options.nodes == 1:
        parser.error("--slots must be at least 1 and below --trials, --nodes 0 or at least 2")
    busy = load()
    os.environ |= {  # read by Ray when it starts
        "SEMPRIOR_BENCHMARK_EPOCH": str(options.epoch),
        "RAY_raylet_start_wait_time_s": "300",  # of a machine that does much else
        "RAY_memory_monitor_refresh_ms": "0",
    }
    figures: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="semprior-bench-") as name:
        figures["head"] = measure_head(Path(name), options.trials, options.slots, options.epochs)
        if options.nodes:
            figures["nodes"] = check_nodes(Path(name), options.nodes, max(12, math.ceil(LOSS / options.epoch)))
    figures |= {"machine": describe_machine(), "load_before": busy, "epoch_s": options.epoch}
    if options.json:
        print(json.dumps(figures))
    else:
        _show(figures)
    return (
        1 if any(part["faults"] or not part["done"] for part in (figures["head"], figures.get("nodes")) if part) else 0
    )


def _show(figures: Mapping[str, Any]) -> None:
    head, nodes = figures["head"], figures.get("nodes")
    table = Table("what", "figure", title=f"{figures['machine']}; load before: {figures['load_before']}")
    table.add_row("trials, slots, an epoch", f"{head['trials']}, {head['slots']}, {figures['epoch_s']:g} s")
    table.add_row("decisions and records a second", f"{head['decisions_per_s']:.1f}, {head['records_per_s']:.1f}")
    table.add_row("slots wait for the driver", f"{head['waiting_share']:.1%}")
    table.add_row("driver, share of a core", f"{head['driver_share']:.0%}")
    for part, share in head["parts"].items():
        table.add_row(f"  of it {part}", f"{share:.0%}")
    table.add_row("Ray's servers, share of a core", f"{head['ray_share']:.0%}")
    table.add_row(
        "driver, memory at the end", f"{head['driver_mb']:.0f} MB, {head['driver_growth_mb']:+.0f} in the run"
    )
    table.add_row("Ray's servers, memory", f"{head['ray_mb']:.0f} MB")
    table.add_row("a stand-in's process", f"{head['trial_process_mb']:.0f} MB")
    table.add_row("faults", "; ".join(head["faults"]) or "none")
    if nodes:
        table.add_row("nodes used, of a simulated cluster", f"{nodes['nodes_used']} of {nodes['nodes']}")
        table.add_row("trials that went on elsewhere", str(nodes["trials_that_went_on_elsewhere"]))
        table.add_row("faults", "; ".join(nodes["faults"]) or "none")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
