"""The two numbers that bound a step: its operations over the measured matrix rate, its bytes over the bandwidth.

Operations are those of all convolutions: forward once through the encoder and twice through the decoder (teacher and
student), backward once through both. Bytes are what convolutions must read and write if what lies between them is
free: forward input and result, backward the gradient twice, input and its gradient. Both are of an inner step; an
outer step is two of them. The matrix rate is the best that this machine showed in a matrix product or in a convolution
on its own, so no way of computing convolutions directly is faster than the larger of the two. In fp32 ours does not
compute all of them directly: filters of 3x3 and 5x5 take 4 and 2.8 times fewer products (`semprior.kernels.winograd`),
and only those are counted as operations, the transforms around them as free.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from semprior.models.detector import create_detector
from semprior.runtime.device import uses_bf16

_ROUNDS = 8
_FEWER = {3: 4.0, 5: 100 / 36}  # how many times fewer products a filter of so many taps takes


@dataclass(frozen=True)
class Floor:
    """Of an inner step.

    Attributes:
        operations: floating-point, a product and its sum counted as two.
        bytes: read and written.
        matrix_rate: operations a second in that precision, see `matrix_rate`.
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

    @property
    def seconds(self) -> float:
        """The larger of both."""
        return max(self.operations_s, self.bytes_s)


def floor(name: str, batch: int, size: int, device: str, precision: str) -> Floor:
    """What bounds an inner step of the detector `name` on this machine, on as many threads as torch has."""
    direct, fewer, numbers = step_work(name, batch, size)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    operations = fewer if device == "cpu" and precision == "fp32" else direct
    return Floor(operations, numbers * dtype.itemsize, matrix_rate(device, dtype), bandwidth(device))


def matrix_rate(device: str, dtype: torch.dtype | None = None) -> float:
    """Operations a second (default: in a run's precision), the best of two matrix products and two convolutions."""
    cpu, dtype = device == "cpu", dtype or _dtype(device)
    rates = []
    for side in (1024, 2048) if cpu else (4096, 8192):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rates.append(2 * side**3 / _best(lambda a=a, b=b: a @ b, device))
    for channels, side in (64, 128), (128, 64):
        x = torch.randn(16 if cpu else 64, channels, side, side, device=device).to(dtype)
        x = x.to(memory_format=torch.channels_last)
        kernel = torch.randn(channels, channels, 3, 3, device=device).to(dtype).to(memory_format=torch.channels_last)
        operations = 2 * 9 * channels * x.numel()
        rates.append(operations / _best(lambda x=x, kernel=kernel: F.conv2d(x, kernel, padding=1), device))
    return max(rates)


def _dtype(device: str) -> torch.dtype:
    return torch.bfloat16 if uses_bf16("bf16", torch.device(device)) else torch.float32


def bandwidth(device: str) -> float:
    """Bytes a second, read and written, of a copy that fits no cache."""
    source = torch.ones(1 << (25 if device == "cpu" else 28), device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), device)


def forward_work(name: str, pixels: float) -> float:
    """Operations of the student's forward on that many pixels of images whose sides are multiples of 32."""
    detector, side = create_detector(name).eval().to("meta"), 256
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        detector(torch.empty(1, 3, side, side, device="meta"))
    return counted.get_total_flops() * pixels / side**2


def step_work(name: str, batch: int, size: int) -> tuple[float, float, float]:
    """Operations of an inner step, directly and with fewer products, and numbers moved; nothing is computed for it."""
    detector = create_detector(name).to("meta")
    x = torch.empty(batch, 3, size, size, device="meta")
    moved: list[tuple[int, int]] = []
    spared: list[float] = []  # operations of a forward pass

    def note(module: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        moved.append((inputs[0].numel(), result.numel()))
        assert isinstance(module, nn.Conv2d)
        taps = module.kernel_size[0]
        apart = module.stride[0] > 1 or module.in_channels < 16 or module.groups > 1
        products = 2 * taps**2 * module.in_channels * result.numel()
        spared.append(0.0 if apart else products * (1 - 1 / _FEWER.get(taps, 1.0)))

    handles = [part.register_forward_hook(note) for part in detector.modules() if isinstance(part, nn.Conv2d)]
    with FlopCounterMode(display=False) as trained:
        features = detector.encode(x)
        torch.stack([logits.sum() for logits in detector.decode(features)]).sum().backward()
    whole, spared_whole = list(moved), sum(spared)
    moved.clear()
    spared.clear()
    with FlopCounterMode(display=False) as held, torch.no_grad():
        detector.decode([feature.detach() for feature in features])
    for handle in handles:
        handle.remove()
    numbers = sum(3 * i + 3 * o for i, o in whole) + sum(i + o for i, o in moved)
    direct = float(trained.get_total_flops() + held.get_total_flops())
    return direct, direct - 3 * spared_whole - sum(spared), float(numbers)


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
