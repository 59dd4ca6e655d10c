"""How many trials fit at a time, and what does not fit at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semprior.errors import UserError
from tune.launch.autoscaler import coming_nodes, launcher_config
from tune.spec.sweep_file import Resources, SweepSpec

_WORDS = {"CPU": "CPUs", "GPU": "GPUs"}


def concurrency(spec: SweepSpec, nodes: Sequence[Mapping[str, float]]) -> int:
    """Trials that run at a time: what the sweep file says, else as many as fit.

    Args:
        spec: of the sweep.
        nodes: CPU and GPU of each node, those that an autoscaler may add included.

    Raises:
        UserError: not one trial fits, or fewer than the file asks for; says what is there.
    """
    fitting = sum(slots(spec.resources, node) for node in nodes) // spec.resources.workers  # they may lie on several
    if fitting < 1:
        raise UserError(f"resources: a trial takes {_wanted(spec.resources)}, but {_there(nodes)}")
    if spec.concurrent == "auto":
        return min(fitting, spec.budget.trials * spec.seeds)
    if spec.concurrent > fitting:
        raise UserError(
            f"concurrent: {spec.concurrent} trials of {_wanted(spec.resources)} do not fit, {fitting} do:"
            f" {_there(nodes)}"
        )
    return spec.concurrent


def slots(resources: Resources, node: Mapping[str, float]) -> int:
    """Workers of a trial that fit on a node."""
    each = needs(resources.workers, resources.cpus, resources.gpus)
    return min(int(node.get(kind, 0.0) / amount + 1e-6) for kind, amount in each.items())


def needs(workers: int, cpus: float, gpus: float) -> dict[str, float]:
    """What each worker of a trial takes that takes so much."""
    each = {"CPU": cpus / workers}
    if gpus:
        each["GPU"] = gpus / workers
    return each


def _wanted(resources: Resources) -> str:
    parts = [f"{resources.cpus:g} {_WORDS['CPU']}"]
    parts += [f"{resources.gpus:g} {_WORDS['GPU']}"] if resources.gpus else []
    return " and ".join(parts) + (f" for {resources.workers} workers" if resources.workers > 1 else "")


def _there(nodes: Sequence[Mapping[str, float]]) -> str:
    told = sorted({f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes})
    if len(nodes) == 1:
        return f"there is one node, with {told[0]}"
    return f"there are {len(nodes)} nodes, with " + ", or ".join(told) if nodes else "there is no node"


def cluster_nodes() -> list[dict[str, float]]:
    """CPU and GPU of each node of the cluster that this process is connected to, and of those that may come.

    Where an autoscaler may add nodes, trials that wait are what makes it add them.
    """
    import ray

    nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    config = launcher_config()
    if config is not None:
        nodes.sort(key=lambda node: "node:__internal_head__" not in node)
        nodes += coming_nodes(nodes, config)
    return nodes
