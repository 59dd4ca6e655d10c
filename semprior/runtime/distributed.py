"""The collective operations of data-parallel training; each is the identity without `torch.distributed`.

Every worker holds an equal share of the global batch. Losses take their batch means over the global batch with
`global_mean`, which is differentiable, and gradients are then averaged over workers with `average_`.
`DistributedDataParallel` does the same, but only in `backward`, while an outer step takes two gradients with
`torch.autograd.grad` and needs the average of each.

Everything that decides the course of a run (weights, clusters, pseudo-masks, evaluated masks) is equal on all workers
to the last bit, so that they take equal decisions without communication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

Module = TypeVar("Module", bound=nn.Module)
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def workers() -> int:
    """Number of workers that train together; 1 outside `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this worker, from 0."""
    return dist.get_rank() if workers() > 1 else 0


class _GlobalMean(torch.autograd.Function):
    """Mean over workers; its backward pass is the mean over workers of the gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, local: Tensor) -> Tensor:
        del ctx
        total = local.detach().clone()
        dist.all_reduce(total)
        return total / workers()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        del ctx
        total = gradient.clone()
        dist.all_reduce(total)
        return total / workers()


def global_mean(local: Tensor) -> Tensor:
    """Mean over workers of a tensor that each of them holds; differentiable."""
    if workers() == 1:
        return local
    mean: Tensor = _GlobalMean.apply(local)
    return mean


def average_(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over workers, in one exchange."""
    if workers() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= workers()
    _spread(flat, tensors)


@torch.no_grad()
def broadcast_(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by the first worker's, in one exchange per dtype."""
    if workers() == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        dist.broadcast(flat, 0)
        _spread(flat, same)


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def all_agree(vote: bool) -> bool:
    """Whether every worker votes yes; all of them must ask."""
    if workers() == 1:
        return vote
    votes = torch.tensor(int(vote), device=_exchange_device())
    dist.all_reduce(votes, dist.ReduceOp.MIN)
    return bool(votes.item())


def _exchange_device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def with_sync_batchnorm(module: Module, device: torch.device) -> Module:
    """`module` with batch normalisation over the global batch, on CUDA.

    PyTorch has no SyncBatchNorm on the CPU: there each worker normalises by its own share of the batch, and
    `average_statistics_` averages the running statistics.
    """
    if workers() == 1 or device.type != "cuda":
        return module
    converted: Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


@torch.no_grad()
def average_statistics_(module: nn.Module) -> None:
    """Average the running statistics of every BatchNorm in `module` over workers.

    They are linear in the batch statistics, so that averaging them once equals averaging them after every step.
    """
    norms = [part for part in module.modules() if isinstance(part, BatchNorm)]
    average_([buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()])


def shard(items: Sequence[int]) -> list[int]:
    """This worker's share of `items`: the workers take equal consecutive parts.

    Raises:
        ValueError: the number of items is not a multiple of the number of workers.
    """
    if len(items) % workers():
        raise ValueError(f"{len(items)} items do not divide among {workers()} workers")
    share = len(items) // workers()
    return list(items[rank() * share : (rank() + 1) * share])


def own_positions(count: int) -> list[int]:
    """The positions among `count` items that this worker takes, in turn with the others."""
    return list(range(rank(), count, workers()))


def gather(own: Mapping[int, np.ndarray], count: int) -> dict[int, np.ndarray]:
    """Collect the arrays of all workers by position; at most one worker holds an array for a position.

    Args:
        own: (N,) uint8 arrays of this worker, by position.
        count: number of positions.
    """
    if workers() == 1:
        return dict(own)
    sizes = np.zeros(count, np.int64)  # plus one, which tells an empty array from a missing one
    for position, array in own.items():
        sizes[position] = array.size + 1
    sizes = _summed(sizes)
    ends = np.cumsum([0, *np.maximum(sizes - 1, 0)])
    flat = np.zeros(ends[-1], np.uint8)
    for position, array in own.items():
        flat[ends[position] : ends[position + 1]] = array
    flat = _summed(flat)
    return {position: flat[ends[position] : ends[position + 1]] for position in np.flatnonzero(sizes).tolist()}


def _summed(array: np.ndarray) -> np.ndarray:
    """The sum over workers."""
    exchanged = torch.from_numpy(array).to(_exchange_device())
    dist.all_reduce(exchanged)
    return exchanged.cpu().numpy()
