"""The two numbers that bound a step: its operations over the measured matrix rate, its bytes over the bandwidth.

Operations are those of all convolutions in 16 bit: forward once through the encoder and twice through the decoder
(teacher and student), backward once through both. Bytes are what convolutions must read and write in 16 bit if what
lies between them is free: forward input and result, backward the gradient twice, input and its gradient. Both are of
an inner step; an outer step is two of them. No way of computing convolutions directly is faster than the larger one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from semprior.models.detector import create_detector

_ROUNDS = 8


@dataclass(frozen=True)
class Floor:
    """Of an inner step.

    Attributes:
        operations: floating-point, a product and its sum counted as two.
        bytes: read and written.
        matrix_rate: operations a second of a large matrix product in bfloat16.
        bandwidth: bytes a second, read and written, of a copy that fits no cache.
    """

    operations: float
    bytes: float
    matrix_rate: float
    bandwidth: float

    @property
    def operations_s(self) -> float:
        """Seconds by the matrix rate."""
        return self.operations / self.matrix_rate

    @property
    def bytes_s(self) -> float:
        """Seconds by the bandwidth."""
        return self.bytes / self.bandwidth


def floor(name: str, batch: int, size: int, device: str) -> Floor:
    """What bounds an inner step of the detector `name` on this machine, on as many threads as torch has."""
    operations, moved = step_work(name, batch, size)
    side = 2048 if device == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    source = torch.ones(1 << (25 if device == "cpu" else 28), device=device)
    target = torch.empty_like(source)
    return Floor(
        operations=operations,
        bytes=moved,
        matrix_rate=2 * side**3 / _best(lambda: a @ b, device),
        bandwidth=2 * source.nbytes / _best(lambda: target.copy_(source), device),
    )


def step_work(name: str, batch: int, size: int) -> tuple[float, float]:
    """Operations and bytes of an inner step, counted without computing anything."""
    detector = create_detector(name).to("meta")
    x = torch.empty(batch, 3, size, size, device="meta")
    moved: list[tuple[int, int]] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        moved.append((inputs[0].numel(), result.numel()))

    handles = [part.register_forward_hook(note) for part in detector.modules() if isinstance(part, nn.Conv2d)]
    with FlopCounterMode(display=False) as trained:
        features = detector.encode(x)
        detector.decode(features)[0].sum().backward()
    whole = list(moved)
    moved.clear()
    with FlopCounterMode(display=False) as held, torch.no_grad():
        detector.decode([feature.detach() for feature in features])
    for handle in handles:
        handle.remove()
    numbers = sum(3 * i + 3 * o for i, o in whole) + sum(i + o for i, o in moved)
    return float(trained.get_total_flops() + held.get_total_flops()), 2.0 * numbers


def _best(work: Callable[[], object], device: str) -> float:
    work()
    found = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found)
