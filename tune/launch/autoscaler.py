"""What a cluster of Ray's launcher will have: nodes that an autoscaler adds, and machines that are still being set up.

Ray lists only the nodes that have joined. At AWS that is the head alone at first, and workers come only when trials
wait for them. The launcher leaves its file on the head, where the drivers of sweeps run.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tune.launch.ray_internals import BOOTSTRAP_CONFIG, being_set_up, in_a_job

_QUIET_TIMEOUT = 30.0  # seconds for a worker that the launcher does not work on
_SET_UP_TIMEOUT = 600.0  # seconds for a worker that is being set up
_POLL = 1.0  # seconds
_LOG = "/tmp/ray/session_latest/logs/monitor.out"


def launcher_config() -> dict[str, Any] | None:
    """The launcher file of the cluster that this process is a job of; None on other clusters and outside of jobs."""
    if not in_a_job():
        return None
    path = Path(os.path.expanduser(BOOTSTRAP_CONFIG))  # `Path.expanduser` raises where there is no home
    if not path.is_file():
        return None
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))  # JSON, despite its name
    return config


def coming_nodes(alive: Sequence[Mapping[str, float]], config: Mapping[str, Any]) -> list[dict[str, float]]:
    """CPU and GPU of each node that an autoscaler may add; a "local" provider adds none (`wait_for_workers`).

    Args:
        alive: resources of the nodes that have joined, the head first.
        config: content of the launcher file.
    """
    if config["provider"]["type"] == "local":
        return []
    room = int(config.get("max_workers", 0)) - (len(alive) - 1)
    coming: list[dict[str, float]] = []
    for name, node_type in config.get("available_node_types", {}).items():
        if name == config.get("head_node_type"):
            continue
        resources = {key: float(amount) for key, amount in node_type.get("resources", {}).items()}
        joined = sum(_same_resources(resources, node) for node in alive[1:])
        count = min(int(node_type.get("max_workers", 0)) - joined, room - len(coming))
        coming += [resources] * max(count, 0)
    return coming


def _same_resources(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    return all(first.get(key, 0.0) == second.get(key, 0.0) for key in ("CPU", "GPU"))


def wait_for_workers(
    config: Mapping[str, Any], alive: Callable[[], Collection[str]], say: Callable[[str], None]
) -> None:
    """Wait until the workers of a launcher file have joined, or the launcher no longer works on the missing ones.

    Args:
        config: content of a launcher file with a "local" provider.
        alive: returns the addresses of the nodes that have joined; called repeatedly.
        say: takes a line for the user: how many workers are waited for, and which did not join.
    """
    started = active = time.monotonic()
    announced = False
    while missing := _missing(config, alive()):
        now = time.monotonic()
        if being_set_up(config["cluster_name"], missing):
            active = now
        if now - active > _QUIET_TIMEOUT or now - started > _SET_UP_TIMEOUT:
            say(f"not counted, because not there: {', '.join(missing)} (on the head, {_LOG} may say why)")
            return
        if not announced:
            count = len(config["provider"]["worker_ips"])
            say(f"waiting for {len(missing)} of {count} workers, {_SET_UP_TIMEOUT / 60:.0f} minutes at most")
            announced = True
        time.sleep(_POLL)


def _missing(config: Mapping[str, Any], joined: Collection[str]) -> list[str]:
    workers = config["provider"].get("worker_ips") or ()
    if len(joined) > len(workers):  # with the head that is all of them, whatever their addresses
        return []
    return [worker for worker in workers if _address(worker) not in joined]


def _address(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError:  # this machine cannot resolve the name
        return host
