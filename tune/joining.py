"""Waits for machines of one's own that the launcher is still starting.

`ray up` returns when the head runs; the head then sets up the workers, all at once. A sweep counts once, at its
beginning, how many trials fit, and what does not fit is refused, so that a probe waits before it judges. How far the
launcher is stands in a file that it keeps on the head; a machine that is switched off is not waited for long.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

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
