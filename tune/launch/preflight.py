"""Whether a cluster can run a sweep, asked of the cluster itself before the sweep begins: ``python -m
tune.launch.preflight``.

A small job, which `submit` waits for: it looks for data and weights from there, compares the packages that compute,
counts whether one trial fits, and sees that the client and all nodes share the sweep's storage. What it has to tell
meanwhile, and the fault in words if there is one, it prints as lines that `Report` makes and reads.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semprior.errors import UserError
from semprior.io.push_fetch import is_address, read_manifest
from tune.launch.autoscaler import launcher_config, wait_for_workers
from tune.launch.resources import cluster_nodes, concurrency
from tune.launch.shared_storage import marked, unseen
from tune.launch.weights_check import check_weights
from tune.spec.sweep_file import Resources, SweepSpec
from tune.store.provenance import versions

_MARK = "probe: "
_COMPARED = ("semprior", "torch", "timm", "ray", "optuna")
_ANSWER = 120.0  # seconds for all nodes to read a file; a new process has to start there first


@dataclass(frozen=True)
class Report:
    """What a probe has said so far.

    Attributes:
        told: lines for the user.
        done: whether it has judged.
        fault: why the sweep cannot run, if so.
    """

    told: tuple[str, ...]
    done: bool
    fault: str | None


def report(log: str) -> Report:
    """Read the log of a probe's job, finished or not; its last line may be cut off."""
    lines = [line.removeprefix(_MARK) for line in log.splitlines(keepends=True) if line.startswith(_MARK)]
    said = [json.loads(line) for line in lines if line.endswith("\n")]
    faults = [line["fault"] for line in said if "fault" in line]
    return Report(tuple(line["told"] for line in said if "told" in line), bool(faults), faults[-1] if faults else None)


def probe(spec: SweepSpec, client: Mapping[str, str], mark: str) -> None:
    """Look at the cluster of the job that this process is.

    Args:
        spec: of the sweep.
        client: versions of packages at whoever submits it.
        mark: name of a file that whoever submits it has put into the storage.

    Raises:
        UserError: the sweep cannot run here.
    """
    import ray

    differing = differences(client, versions())
    if differing:
        raise UserError(
            f"the cluster has other packages: {differing}; install the same here, or `ray up` again and `resume` what"
            " it stops"
        )
    if not is_address(spec.data) and not Path(spec.data).is_dir():
        raise UserError(
            f"data: {spec.data}: is not on the cluster; put it where its nodes fetch it, with"
            f" `semprior data push {shlex.quote(spec.data)} URI`, and write data: URI"
        )
    if is_address(spec.data):
        spec.require_masks(bool(read_manifest(spec.data, "data").about.get("masks")))
    check_weights(spec)
    reason = unseen(spec.storage, mark)
    if reason:
        raise UserError(
            f"storage {spec.storage}: what this machine writes, the cluster's head does not see ({reason});"
            " this machine and all nodes must share it"
        )
    ray.init(address="auto", log_to_driver=False)
    try:
        config = launcher_config()
        if config is not None and config["provider"]["type"] == "local":
            wait_for_workers(config, lambda: set(_alive().values()), _tell)
        nodes = cluster_nodes()
        concurrency(spec, nodes)
        if wasted := idle_gpus(spec.resources, nodes, "the cluster"):
            _tell(wasted)
        _check_storage(spec.storage)
    finally:
        ray.shutdown()


def differences(client: Mapping[str, str], cluster: Mapping[str, str]) -> str:
    """Packages whose versions differ, in words; builds of one version, like ``+cpu``, are the same."""
    found = []
    for name in _COMPARED:
        here, there = client.get(name, "none").partition("+")[0], cluster.get(name, "none").partition("+")[0]
        if here != there:
            found.append(f"{name} {there} (here {here})")
    return ", ".join(found)


def idle_gpus(resources: Resources, nodes: Sequence[Mapping[str, float]], place: str) -> str:
    """A warning where trials take no GPU and all nodes of a place that could run them have one; else empty."""
    workers = [node for node in nodes if "node:__internal_head__" not in node] or nodes
    if resources.gpus or not all(node.get("GPU", 0.0) for node in workers):
        return ""
    return f"resources: gpus is 0, and the GPUs of {place} will idle; `resources: {{cpus: 4, gpus: 1}}` uses them"


def _check_storage(uri: str) -> None:
    """Write on this node, read on every other."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    read = ray.remote(num_cpus=0, max_retries=0)(unseen)
    with marked(uri) as name:
        asked = {
            (node, address): read.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                uri, name
            )
            for node, address in _alive().items()
            if node != here
        }
        until = time.monotonic() + _ANSWER
        for (node, address), answer in asked.items():
            try:
                reason = ray.get(answer, timeout=max(until - time.monotonic(), 0.1))
            except ray.exceptions.RayError as error:
                if node not in _alive():  # it has no part in the sweep yet
                    continue
                reason = _words(error)
            if reason:
                raise UserError(
                    f"storage {uri}: what the head writes, {address} does not see ({reason}); all nodes must share it"
                )


def _alive() -> dict[str, str]:
    """Address of each node that is there, by its id."""
    import ray

    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {_ANSWER:.0f} s; is the storage mounted there, and does it answer?"
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"


def _tell(text: str) -> None:
    print(f"{_MARK}{json.dumps({'told': text})}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    parser = argparse.ArgumentParser(prog="tune.launch.preflight", description="Whether a cluster can run a sweep.")
    parser.add_argument("spec", help="the sweep, as JSON")
    parser.add_argument("versions", help="of the client's packages, as JSON")
    parser.add_argument("mark", help="name of a file that the client has put into the storage")
    given = parser.parse_args(arguments)
    fault = None
    try:
        probe(SweepSpec.from_json(given.spec), json.loads(given.versions), given.mark)
    except UserError as error:
        fault = str(error)
    print(f"{_MARK}{json.dumps({'fault': fault})}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
