"""Whether a cluster can run a sweep, checked on the cluster before the sweep begins.

A small job, ``python -m tune.launch.preflight``, for which `submit` waits: it looks for data and weights from there,
compares the packages, counts whether one trial fits, and sees that the client and all nodes share the sweep's storage.
It prints messages and, at last, the fault or its absence as lines that `read_report` reads.
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
from typing import TypedDict

from semprior.errors import UserError
from semprior.io.push_fetch import is_address, read_manifest
from semprior.reading.json_text import parse_json
from tune.launch.autoscaler import launcher_config, wait_for_workers
from tune.launch.ray_internals import HEAD_RESOURCE
from tune.launch.resources import alive_nodes, cluster_nodes, concurrency
from tune.launch.shared_storage import probe_file, why_unreadable
from tune.launch.weights_check import check_weights
from tune.spec.sweep_file import Resources, SweepSpec
from tune.store.provenance import versions

_PREFIX = "preflight: "
_COMPARED = ("semprior", "torch", "timm", "ray", "optuna")
_READ_TIMEOUT = 120.0  # seconds for all nodes to read a file; a new process has to start there first


class _Entry(TypedDict, total=False):
    """A line of the job for `read_report`: a message, or, at last, the fault or its absence."""

    message: str
    fault: str | None


@dataclass(frozen=True)
class PreflightReport:
    """The output of a pre-flight job so far.

    Attributes:
        messages: lines for the user.
        done: whether the checks have ended.
        fault: why the cluster cannot run the sweep; None if it can.
    """

    messages: tuple[str, ...]
    done: bool
    fault: str | None


def read_report(log: str) -> PreflightReport:
    """Read the log of a pre-flight job, finished or not; the last line may be cut off."""
    lines = [line.removeprefix(_PREFIX) for line in log.splitlines(keepends=True) if line.startswith(_PREFIX)]
    entries = [parse_json(line, _Entry, "log of the pre-flight job") for line in lines if line.endswith("\n")]
    messages = tuple(entry["message"] for entry in entries if "message" in entry)
    faults = [entry["fault"] for entry in entries if "fault" in entry]
    return PreflightReport(messages, bool(faults), faults[-1] if faults else None)


def check_cluster(spec: SweepSpec, client: Mapping[str, str], name: str) -> None:
    """Check that the cluster of this job can run a sweep.

    Args:
        spec: checked sweep file.
        client: versions of the packages on the machine that submits the sweep.
        name: name of the probe file that this machine has put into the storage.

    Raises:
        UserError: the cluster cannot run the sweep.
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
    reason = why_unreadable(spec.storage, name)
    if reason:
        raise UserError(
            f"storage {spec.storage}: the cluster's head does not see what this machine writes ({reason});"
            " this machine and all nodes must share it"
        )
    ray.init(address="auto", log_to_driver=False)
    try:
        config = launcher_config()
        if config is not None and config["provider"]["type"] == "local":
            wait_for_workers(config, lambda: set(_alive_addresses().values()), _print_message)
        nodes = cluster_nodes()
        concurrency(spec, nodes)
        if warning := idle_gpus(spec.resources, nodes, "the cluster"):
            _print_message(warning)
        _check_storage(spec.storage)
    finally:
        ray.shutdown()


def differences(client: Mapping[str, str], cluster: Mapping[str, str]) -> str:
    """Packages whose versions differ; builds of one version, like ``+cpu``, count as the same."""
    found = []
    for name in _COMPARED:
        here, there = client.get(name, "none").partition("+")[0], cluster.get(name, "none").partition("+")[0]
        if here != there:
            found.append(f"{name} {there} (here {here})")
    return ", ".join(found)


def idle_gpus(resources: Resources, nodes: Sequence[Mapping[str, float]], place: str) -> str:
    """A warning if trials take no GPU although every node that could run them has one; else empty.

    Args:
        resources: resources of a trial.
        nodes: resources of each node.
        place: what the warning calls the nodes.
    """
    workers = [node for node in nodes if HEAD_RESOURCE not in node] or nodes
    if resources.gpus or not all(node.get("GPU", 0.0) for node in workers):
        return ""
    return f"resources: gpus is 0, and the GPUs of {place} will idle; `resources: {{cpus: 4, gpus: 1}}` uses them"


def _check_storage(uri: str) -> None:
    """Write on this node, read on every other."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    own = ray.get_runtime_context().get_node_id()
    read = ray.remote(num_cpus=0, max_retries=0)(why_unreadable)
    with probe_file(uri) as name:
        readers = {
            (node, address): read.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                uri, name
            )
            for node, address in _alive_addresses().items()
            if node != own
        }
        deadline = time.monotonic() + _READ_TIMEOUT
        for (node, address), reader in readers.items():
            try:
                reason = ray.get(reader, timeout=max(deadline - time.monotonic(), 0.1))
            except ray.exceptions.RayError as error:
                if node not in _alive_addresses():  # the node has left: the sweep does without it
                    continue
                reason = _describe(error)
            if reason:
                raise UserError(
                    f"storage {uri}: {address} does not see what the head writes ({reason}); all nodes must share it"
                )


def _alive_addresses() -> dict[str, str]:
    """Address of each node that has joined, by its id."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in alive_nodes()}


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {_READ_TIMEOUT:.0f} s; is the storage mounted there, and does it answer?"
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"


def _print_message(text: str) -> None:
    print(f"{_PREFIX}{json.dumps({'message': text})}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the checks and print their result; the exit code is 0 in both cases."""
    parser = argparse.ArgumentParser(prog="tune.launch.preflight", description="Whether a cluster can run a sweep.")
    parser.add_argument("spec", help="the sweep, as JSON")
    parser.add_argument("versions", help="versions of the client's packages, as JSON")
    parser.add_argument("name", help="name of the probe file that the client has put into the storage")
    options = parser.parse_args(arguments)
    fault = None
    try:
        check_cluster(
            SweepSpec.from_json(options.spec), parse_json(options.versions, dict[str, str], "versions"), options.name
        )
    except UserError as error:
        fault = str(error)
    print(f"{_PREFIX}{json.dumps({'fault': fault})}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
