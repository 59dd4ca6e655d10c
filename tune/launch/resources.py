"""How many trials run at a time on a set of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semprior.errors import UserError
from tune.launch.autoscaler import coming_nodes, launcher_config
from tune.launch.ray_internals import HEAD_RESOURCE
from tune.spec.sweep_file import Resources, SweepSpec


def concurrency(spec: SweepSpec, nodes: Sequence[Mapping[str, float]]) -> int:
    """Trials that run at a time: the number in the sweep file, else as many as fit.

    Args:
        spec: checked sweep file.
        nodes: CPU and GPU of each node, including those that an autoscaler may add.

    Raises:
        UserError: no trial fits, or fewer than the file asks for.
    """
    fitting = sum(slots(spec.resources, node) for node in nodes) // spec.resources.workers  # a trial may span nodes
    if fitting < 1:
        raise UserError(f"resources: a trial takes {_amounts(spec.resources)}, but {_describe(nodes)}")
    if spec.concurrent == "auto":
        return min(fitting, spec.budget.trials * spec.run_count)
    if spec.concurrent > fitting:
        raise UserError(
            f"concurrent: {spec.concurrent} trials of {_amounts(spec.resources)} do not fit, {fitting} do:"
            f" {_describe(nodes)}"
        )
    return spec.concurrent


def slots(resources: Resources, node: Mapping[str, float]) -> int:
    """Number of workers of trials that fit on a node."""
    each = needs(resources.workers, resources.cpus, resources.gpus)
    return min(int(node.get(kind, 0.0) / amount + 1e-6) for kind, amount in each.items())


def needs(workers: int, cpus: float, gpus: float) -> dict[str, float]:
    """The resources of each worker of a trial, by Ray's names.

    Args:
        workers: number of workers of the trial.
        cpus: CPUs of the trial.
        gpus: GPUs of the trial.
    """
    each = {"CPU": cpus / workers}
    if gpus:
        each["GPU"] = gpus / workers
    return each


def _amounts(resources: Resources) -> str:
    parts = [f"{resources.cpus:g} CPUs"]
    parts += [f"{resources.gpus:g} GPUs"] if resources.gpus else []
    return " and ".join(parts) + (f" for {resources.workers} workers" if resources.workers > 1 else "")


def _describe(nodes: Sequence[Mapping[str, float]]) -> str:
    kinds = sorted({f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes})
    if len(nodes) == 1:
        return f"there is one node, with {kinds[0]}"
    return f"there are {len(nodes)} nodes, with " + ", or ".join(kinds) if nodes else "there is no node"


def alive_nodes() -> list[dict[str, Any]]:
    """Ray's description of each node that has joined the cluster that this process is connected to."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def cluster_nodes() -> list[dict[str, float]]:
    """CPU and GPU of each node of the connected cluster, including those that an autoscaler adds when trials wait."""
    nodes = [dict(node["Resources"]) for node in alive_nodes()]
    config = launcher_config()
    if config is not None:
        nodes.sort(key=lambda node: HEAD_RESOURCE not in node)
        nodes += coming_nodes(nodes, config)
    return nodes
