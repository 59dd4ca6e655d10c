"""What a cluster of the launcher may still become: nodes that an autoscaler adds when they are needed.

Ray tells a job of the nodes that are there. At AWS that is the head alone at first, and the workers come only when
trials wait for them. The launcher leaves its file on the head, where sweeps' drivers run.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = Path("~/ray_bootstrap_config.yaml")
_IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's job server gives it to what it starts


def launcher_config() -> dict[str, Any] | None:
    """The launcher's file, for a job on its cluster; none elsewhere."""
    if _IN_A_JOB not in os.environ:
        return None
    path = Path(os.path.expanduser(FILE))  # unlike its method it bears that there is no home
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8"))  # JSON, whatever it is called


def coming_nodes(alive: Sequence[Mapping[str, float]], config: Mapping[str, Any]) -> list[dict[str, float]]:
    """CPU and GPU of each node that may come; of one's own machines none, for they have been waited for (`joining`).

    Args:
        alive: resources of the nodes that are there, the head included.
        config: of the launcher.
    """
    if config["provider"]["type"] == "local":
        return []
    room = int(config.get("max_workers", 0)) - (len(alive) - 1)
    coming: list[dict[str, float]] = []
    for name, kind in config.get("available_node_types", {}).items():
        if name == config.get("head_node_type"):
            continue
        resources = {key: float(amount) for key, amount in kind.get("resources", {}).items()}
        there = sum(_same(resources, node) for node in alive[1:])
        count = min(int(kind.get("max_workers", 0)) - there, room - len(coming))
        coming += [resources] * max(count, 0)
    return coming


def _same(kind: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(kind.get(key, 0.0) == node.get(key, 0.0) for key in ("CPU", "GPU"))


_AT_ONCE = 30.0  # seconds for a worker that nothing is heard of
_SET_UP = 600.0  # seconds for one that is being set up
_ASK_EVERY = 1.0  # seconds
_LOG = "/tmp/ray/session_latest/logs/monitor.out"


def wait_for_workers(
    config: Mapping[str, Any], alive: Callable[[], Collection[str]], tell: Callable[[str], None]
) -> None:
    """Wait until the workers of a launcher file have joined, or those that have not are not being set up any more.

    Args:
        config: the launcher's, for machines of one's own.
        alive: asked again and again, the addresses of the nodes that are there.
        tell: takes a line for the user: who is waited for, and who did not come.
    """
    began = heard = time.monotonic()
    told = False
    while absent := _absent(config, alive()):
        now = time.monotonic()
        if _in_work(config["cluster_name"], absent):
            heard = now
        if now - heard > _AT_ONCE or now - began > _SET_UP:
            tell(f"not counted, because not there: {', '.join(absent)} (on the head, {_LOG} may tell why)")
            return
        if not told:
            count = len(config["provider"]["worker_ips"])
            tell(f"waits for {len(absent)} of {count} workers, {_SET_UP / 60:.0f} minutes at most")
            told = True
        time.sleep(_ASK_EVERY)


def _absent(config: Mapping[str, Any], there: Collection[str]) -> list[str]:
    workers = config["provider"].get("worker_ips") or ()
    if len(there) > len(workers):  # with the head all, whatever addresses they go by
        return []
    return [worker for worker in workers if _address(worker) not in there]


def _address(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError:  # it is known elsewhere, or nowhere
        return host


def _in_work(cluster: str, workers: Collection[str]) -> bool:
    """Whether the launcher copies files to one of these machines, or runs commands there."""
    from ray.autoscaler._private.local.config import get_state_path
    from ray.autoscaler.tags import STATUS_SETTING_UP, STATUS_SYNCING_FILES, TAG_RAY_NODE_STATUS

    try:
        known = json.loads(Path(get_state_path(cluster)).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not begun, or just being written
        return False
    states = {known.get(worker, {}).get("tags", {}).get(TAG_RAY_NODE_STATUS) for worker in workers}
    return bool(states & {STATUS_SYNCING_FILES, STATUS_SETTING_UP})
