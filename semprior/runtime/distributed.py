"""The few collective operations that data-parallel training needs; without `torch.distributed` each is the identity.

Every worker holds an equal share of the global batch. Losses take their batch means over the global batch through
`global_mean`, which autograd sees through; gradients are then averaged over workers with `average_`. That is what
`DistributedDataParallel` does, without its wrapper: its hooks see `backward` alone, while an outer step takes two
gradients with `torch.autograd.grad` and needs the average of each.

Whatever decides the course of a run (weights, clusters, pseudo-masks, what an evaluation saw) is the same on every
worker to the last bit, so that all of them decide alike without asking each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


def workers() -> int:
    """Number of workers that train together; 1 outside `torch.distributed`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this worker, from 0."""
    return dist.get_rank() if workers() > 1 else 0


class _GlobalMean(torch.autograd.Function):
    """The mean over workers is its own adjoint: what flows back to one is the mean of what flows back to all."""

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
    return local if workers() == 1 else _GlobalMean.apply(local)


def average_(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over workers, in one exchange."""
    if workers() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= workers()
    _spread(flat, tensors)


@torch.no_grad()
def agree_(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by that of the first worker, in one exchange for each type of number."""
    if workers() == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.reshape(-1) for tensor in same])
        dist.broadcast(flat, 0)
        _spread(flat, same)


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def synchronised(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` with BatchNorm over the global batch, on CUDA.

    On the CPU, where PyTorch has no SyncBatchNorm, each worker normalises by its own share of the batch, and
    `average_statistics_` averages the running statistics.
    """
    if workers() == 1 or device.type != "cuda":
        return module
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)


@torch.no_grad()
def average_statistics_(module: nn.Module) -> None:
    """Make the running statistics of BatchNorm in `module` the mean of all workers'.

    They move linearly in the batch's statistics, so that averaging them now is averaging them after every step.
    """
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    average_([buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()])


def shard(items: Sequence[int]) -> list[int]:
    """This worker's share of `items`: an equal run of neighbours for every worker.

    Raises:
        ValueError: the number of items is not a multiple of the number of workers.
    """
    if len(items) % workers():
        raise ValueError(f"{len(items)} items do not divide among {workers()} workers")
    share = len(items) // workers()
    return list(items[rank() * share : (rank() + 1) * share])


def deal(count: int) -> list[int]:
    """The positions, of `count`, that this worker takes when any number of items is dealt out in turn."""
    return list(range(rank(), count, workers()))


def gather(own: Mapping[int, np.ndarray], count: int) -> dict[int, np.ndarray]:
    """The arrays of all workers by position, each of which one worker made, or none.

    Args:
        own: (N,) uint8 arrays of this worker, by position.
        count: number of positions.
    """
    if workers() == 1:
        return dict(own)
    sizes = np.zeros(count, np.int64)  # and one more, so that an empty array is not none
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
    """The sum over workers, all but one of which hold 0 in a place."""
    exchanged = torch.from_numpy(array).to("cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(exchanged)
    return exchanged.cpu().numpy()
