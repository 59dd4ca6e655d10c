"""What the attempts of a sweep may record and what they hold: one named actor of the driver.

**Permission.** A report takes a moment to reach the driver, and its decision a moment to come back. The trial does not
wait: it trains the next epoch meanwhile. It records that epoch only once the driver permits it, so that a trial that
was stopped at an epoch has no later one in the store, however the two raced; and the workers of an attempt that is
over, because its process died or its node was cut off, record nothing more.

**Placement groups.** The process of a trial frees the placement group of its workers itself. Where that process dies,
the driver frees the group by what the registry knows.

The actor dies with the driver. Where it dies earlier, Ray starts an empty one: attempts that ask it then are over, and
their trials continue with new ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray import PlacementGroupID
from ray.exceptions import RayActorError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_NAMESPACE = "semprior"
_WAITERS = 10_000  # workers that may wait for permission at a time


class AttemptOverError(RuntimeError):
    """The attempt is over: its trial was stopped, or is run by another attempt."""


class _Registry:
    """The state, as an asyncio actor. Attempts are named ``TRIAL/ATTEMPT``."""

    def __init__(self) -> None:
        self._permitted: dict[str, int] = {}
        self._groups: dict[str, str] = {}
        self._changed = asyncio.Condition()

    async def permit(self, attempt: str, epoch: int) -> None:
        async with self._changed:
            self._permitted[attempt] = epoch
            self._changed.notify_all()

    async def wait(self, attempt: str, epoch: int) -> bool:
        """Returns once `epoch` is permitted; False where the attempt is over."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._permitted.get(attempt, epoch) >= epoch)
            return attempt in self._permitted

    async def end(self, attempt: str) -> None:
        async with self._changed:
            self._permitted.pop(attempt, None)
            self._groups.pop(attempt, None)
            self._changed.notify_all()

    async def hold(self, attempt: str, group: str) -> None:
        if attempt in self._permitted:  # else it has ended, and its process has freed the group
            self._groups[attempt] = group

    async def holders(self) -> list[str]:
        return sorted(self._groups)

    async def take_groups(self, trial: str) -> list[str]:
        """The placement groups of a trial, which are forgotten here; its attempts are over."""
        attempts = [name for name in {*self._groups, *self._permitted} if name.rpartition("/")[0] == trial]
        groups = [self._groups[name] for name in attempts if name in self._groups]
        for name in attempts:
            await self.end(name)
        return groups


@contextmanager
def attempt_registry(name: str) -> Iterator[AttemptRegistry]:
    """Start the registry of a driver on the driver's own node, which ends with the context.

    Args:
        name: unlike that of any other driver in the cluster.
    """
    own_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": _WAITERS}
    options |= {"name": name, "namespace": _NAMESPACE, "scheduling_strategy": own_node}
    actor: Any = ray.remote(_Registry).options(**options).remote()
    ray.get(actor.holders.remote())
    try:
        yield AttemptRegistry(name)
    finally:
        ray.kill(actor)


@dataclass(frozen=True)
class AttemptRegistry:
    """The registry of a driver, from any process of its job.

    Attributes:
        name: of the actor.
    """

    name: str

    def permit(self, attempt: str, epoch: int) -> None:
        """Let an attempt record the epochs before `epoch`, and that one."""
        self._call("permit", attempt, epoch)

    def wait(self, attempt: str, epoch: int) -> None:
        """Return once the attempt may record `epoch`.

        Raises:
            AttemptOverError: the attempt is over, or the registry no longer knows of it.
        """
        try:
            permitted = self._call("wait", attempt, epoch)
        except (RayActorError, ValueError) as error:  # ValueError: there is no actor of this name any more
            raise AttemptOverError(f"attempt {attempt}: its driver is gone") from error
        if not permitted:
            raise AttemptOverError(f"attempt {attempt} is over")

    def end(self, attempt: str) -> None:
        """Forget an attempt, whose workers record nothing more; without effect where the registry is gone."""
        with suppress(RayActorError, ValueError):
            self._call("end", attempt)

    def hold(self, attempt: str, group: str) -> None:
        """Note the placement group of an attempt's workers, unless the attempt is over.

        Args:
            attempt: name of the attempt, which `permit` has been called for.
            group: id of the placement group in hexadecimal digits.
        """
        self._call("hold", attempt, group)

    def holders(self) -> list[str]:
        """The attempts that hold a placement group."""
        return list(self._call("holders"))

    def reclaim(self, trial: str) -> int:
        """Free the placement groups of a trial whose process died; their number."""
        groups = self._call("take_groups", trial)
        for group in groups:
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
        return len(groups)

    def _call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - what each method of the actor returns
        actor = ray.get_actor(self.name, namespace=_NAMESPACE)
        return ray.get(getattr(actor, method).remote(*arguments))
