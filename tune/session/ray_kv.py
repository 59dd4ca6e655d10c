"""Leave to go on: a trial records an epoch only once the sweep has decided that the trial goes on so far.

A report takes a moment to reach the sweep's driver, and its decision a moment to come back. The trial does not wait: it
trains the next epoch meanwhile. But it records that epoch only with the driver's leave, so that a trial stopped at an
epoch has no later one in the store, however the two raced; and a trial that was cut off from its sweep, and restarted
elsewhere, records nothing more.

The leave is one small entry in Ray's key-value store, which every node reaches and no dashboard serves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

_NAMESPACE = b"semprior"
EVERY = 0.02  # seconds between two looks


@dataclass(frozen=True)
class Gate:
    """The leave of one attempt of a trial.

    Attributes:
        name: unlike that of any other attempt of any trial in the cluster.
    """

    name: str

    def open(self, epoch: int) -> None:
        """Give leave to record the epochs before `epoch`, and this one."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(self.name.encode(), str(epoch).encode(), namespace=_NAMESPACE)

    def is_open(self, epoch: int) -> bool:
        """Whether there is leave to record `epoch`."""
        from ray.experimental.internal_kv import _internal_kv_get

        return int(_internal_kv_get(self.name.encode(), namespace=_NAMESPACE) or -1) >= epoch

    def wait(self, epoch: int) -> None:
        """Return once there is leave to record `epoch`."""
        while not self.is_open(epoch):
            time.sleep(EVERY)

    def remove(self) -> None:
        """Forget it."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self.name.encode(), namespace=_NAMESPACE)


_GROUPS = b"semprior-groups"


@dataclass(frozen=True)
class Lease:
    """What an attempt of a trial holds.

    Attributes:
        name: of the attempt.
    """

    name: str

    def take(self, group: str) -> None:
        """Note a placement group, by its id in hexadecimal digits."""
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(self.name.encode(), group.encode(), namespace=_GROUPS)

    def forget(self) -> None:
        """It was given back."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self.name.encode(), namespace=_GROUPS)


def holders(prefix: str) -> list[str]:
    """The attempts that hold a placement group, of those whose names begin so."""
    from ray.experimental.internal_kv import _internal_kv_list

    return [name.decode() for name in _internal_kv_list(prefix.encode(), namespace=_GROUPS)]


def reclaim(prefix: str) -> int:
    """Give back whatever attempts hold whose names begin so; their processes are gone.

    Returns:
        How many there were.
    """
    from ray import PlacementGroupID
    from ray.experimental.internal_kv import _internal_kv_get
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    names = holders(prefix)
    for name in names:
        group = _internal_kv_get(name.encode(), namespace=_GROUPS)
        if group:
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group.decode()))))
        Lease(name).forget()
    return len(names)
