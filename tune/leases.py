"""Which placement groups the trials of a sweep hold, so that those of a trial whose process died can be given back.

Ray removes a placement group when the job that made it ends. A trial gives its own back itself; but if its process is
killed, nobody would, its slots stayed taken, and the sweep came to a stand. The names are in Ray's key-value store.
"""

from __future__ import annotations

from dataclasses import dataclass

_NAMESPACE = b"semprior-groups"


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

        _internal_kv_put(self.name.encode(), group.encode(), namespace=_NAMESPACE)

    def forget(self) -> None:
        """It was given back."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self.name.encode(), namespace=_NAMESPACE)


def holders(prefix: str) -> list[str]:
    """The attempts that hold a placement group, of those whose names begin so."""
    from ray.experimental.internal_kv import _internal_kv_list

    return [name.decode() for name in _internal_kv_list(prefix.encode(), namespace=_NAMESPACE)]


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
        group = _internal_kv_get(name.encode(), namespace=_NAMESPACE)
        if group:
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group.decode()))))
        Lease(name).forget()
    return len(names)
