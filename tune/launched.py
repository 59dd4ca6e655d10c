"""What a cluster of the launcher may still become: nodes that an autoscaler adds when they are needed.

Ray tells a job of the nodes that are there. At AWS that is the head alone at first, and the workers come only when
trials wait for them. The launcher leaves its file on the head, where sweeps' drivers run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
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
