"""Whether a cluster can run a sweep, asked of the cluster itself before the sweep begins: ``python -m tune.probe``.

A small job, which `submit` waits for: it writes to the sweep's storage on one node and reads that on the others, looks
for the data from there, compares the packages that compute, and counts whether one trial fits. Its last line is a JSON
object: ``{"fault": null}``, or the fault in words.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semprior.errors import UserError
from semprior.remote import is_address, look
from semprior.storage import open_storage
from tune.origin import versions
from tune.sweep import SweepSpec

MARK = "probe: "
_COMPARED = ("semprior", "torch", "timm", "ray", "optuna")


def probe(spec: SweepSpec, client: Mapping[str, str]) -> None:
    """Look at the cluster of the job that this process is.

    Args:
        spec: of the sweep.
        client: versions of packages at whoever submits it.

    Raises:
        UserError: the sweep cannot run here.
    """
    import ray

    from tune.resources import cluster_nodes, concurrency

    differing = differences(client, versions())
    if differing:
        raise UserError(f"the cluster has other packages: {differing}; install the same, or `ray up` again")
    ray.init(address="auto", log_to_driver=False)
    try:
        concurrency(spec, cluster_nodes())
        _check_storage(spec.storage)
    finally:
        ray.shutdown()
    if not is_address(spec.data) and not Path(spec.data).is_dir():
        raise UserError(
            f"data: {spec.data}: is not on the cluster; put it where its nodes fetch it, with"
            f" `semprior data push {shlex.quote(spec.data)} URI`, and write data: URI"
        )
    if is_address(spec.data):
        spec.require_masks(bool(look(spec.data, "data").about.get("masks")))


def differences(client: Mapping[str, str], cluster: Mapping[str, str]) -> str:
    """Packages whose versions differ, in words; builds of one version, like ``+cpu``, are the same."""
    found = []
    for name in _COMPARED:
        here, there = client.get(name, "none").partition("+")[0], cluster.get(name, "none").partition("+")[0]
        if here != there:
            found.append(f"{name} {there} (here {here})")
    return ", ".join(found)


def _check_storage(uri: str) -> None:
    """Write on this node, read on every other."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name, content = f"probe-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    storage = open_storage(uri)
    here = ray.get_runtime_context().get_node_id()
    storage.put(name, content.encode())
    try:
        read = ray.remote(num_cpus=0, max_retries=0)(_read)
        others = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        asked = {
            address: read.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                uri, name
            )
            for node, address in others.items()
            if node != here
        }
        for address, answer in asked.items():
            try:
                found = ray.get(answer, timeout=60)
            except ray.exceptions.RayError:  # the node is going; it has no part in the sweep yet
                continue
            if found != content:
                raise UserError(
                    f"storage {uri}: what one node writes, {address} does not see ({found or 'nothing there'});"
                    " all nodes must share it"
                )
    finally:
        storage.delete(name)


def _read(uri: str, name: str) -> str:
    try:
        return open_storage(uri).read(name).decode()
    except FileNotFoundError:
        return ""
    except UserError as error:
        return str(error)


def verdict(log: str) -> dict[str, Any] | None:
    """What a finished job's log says; none where it broke."""
    for line in reversed(log.splitlines()):
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    return None


def main(arguments: Sequence[str]) -> int:
    """Run the job."""
    parser = argparse.ArgumentParser(prog="tune.probe", description="Whether a cluster can run a sweep.")
    parser.add_argument("spec", help="the sweep, as JSON")
    parser.add_argument("versions", help="of the client's packages, as JSON")
    given = parser.parse_args(arguments)
    fault = None
    try:
        probe(SweepSpec.from_json(given.spec), json.loads(given.versions))
    except UserError as error:
        fault = str(error)
    print(f"{MARK}{json.dumps({'fault': fault})}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
