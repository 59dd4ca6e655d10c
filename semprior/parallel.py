"""The few collective operations that data-parallel training needs; without `torch.distributed` each is the identity.

Every worker holds an equal share of the global batch. Losses take their batch means over the global batch through
`global_mean`, which autograd sees through; gradients are then averaged over workers with `average_`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def workers() -> int:
    """Number of workers that train together; 1 outside `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this worker, from 0."""
    return dist.get_rank() if workers() > 1 else 0


def global_mean(local: Tensor) -> Tensor:
    """Mean over workers of a tensor that each of them holds; differentiable."""
    if workers() == 1:
        return local
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(local) / workers()


def average_(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over workers, in one exchange."""
    if workers() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= workers()
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def shard(items: Sequence[int]) -> list[int]:
    """This worker's share of `items`: an equal run of neighbours for every worker.

    Raises:
        ValueError: the number of items is not a multiple of the number of workers.
    """
    if len(items) % workers():
        raise ValueError(f"{len(items)} items do not divide among {workers()} workers")
    share = len(items) // workers()
    return list(items[rank() * share : (rank() + 1) * share])
