"""An inner and an outer step of ours as one CUDA graph each: recorded once, replayed without the host.

Replayed, a step cannot look at its own loss and stop before it steps; whoever uses it looks at the loss afterwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from semprior.config.schema import Config
from semprior.data.batches import Batch
from semprior.models.teacher import Teacher
from semprior.training import bilevel

_WARM_UPS = 3  # eager steps on a stream of their own before the recording, as torch asks for


class RecordedStep:
    """One recorded step; called with fresh batches of the shapes that it was recorded with.

    Args:
        step: computes and steps, without ever waiting for the device; takes the batches, returns the loss.
        batches: of the shapes to come; copied.
    """

    def __init__(self, step: Callable[[Sequence[Batch]], Tensor], batches: Sequence[Batch]) -> None:
        self._batches = [_copy(batch) for batch in batches]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                step(self._batches)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = step(self._batches)

    def __call__(self, *batches: Batch) -> float:
        """Step on these batches; the loss before the step."""
        for mine, theirs in zip(self._batches, batches, strict=True):
            for target, source in zip(_tensors(mine), _tensors(theirs), strict=True):
                target.copy_(source, non_blocking=True)
        self._graph.replay()
        return float(self._loss)


def record_inner(
    teacher: Teacher, alpha: Tensor, batch: Batch, optimizer: torch.optim.Optimizer, config: Config
) -> RecordedStep:
    """An inner step; the optimiser is made with ``capturable=True``."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(batches: Sequence[Batch]) -> Tensor:
        loss = bilevel.inner_objective(teacher, alpha, batches[0], config)
        bilevel.apply_gradients(optimizer, parameters, bilevel.gradients(loss, parameters), config.optim.clip)
        return loss.detach()

    return RecordedStep(step, [batch])


def record_outer(
    teacher: Teacher,
    alpha: nn.Parameter,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    rate: float,
    config: Config,
) -> RecordedStep:
    """An outer step on a validation and a training batch."""
    parameters = [*teacher.detector.parameters(), alpha]

    def step(batches: Sequence[Batch]) -> Tensor:
        losses = [bilevel.outer_objective(teacher, alpha, batch, config) for batch in batches]
        outer, inner = (bilevel.gradients(loss, parameters) for loss in losses)
        direction = bilevel.hypergradient(outer, inner, rate)
        bilevel.apply_gradients(optimizer, parameters, direction, config.optim.clip)
        return losses[0].detach()

    return RecordedStep(step, batches)


def _tensors(batch: Batch) -> list[Tensor]:
    return [t for t in (batch.images, batch.masks, *batch.maps, batch.clusters, batch.bare) if t is not None]


def _copy(batch: Batch) -> Batch:
    bare = None if batch.bare is None else batch.bare.clone()
    maps = [values.clone() for values in batch.maps]
    copies = batch.images.clone(), batch.masks.clone(), batch.clusters.clone()
    return replace(batch, images=copies[0], masks=copies[1], maps=maps, clusters=copies[2], bare=bare)
