"""Dropout of whole channels whose random numbers are part of the network's state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semprior.runtime.distributed import rank, workers

_FACTORS = 0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)  # as int64


class ChannelDropout(nn.Module):
    """Sets channels of a sample to 0 with probability `p` in training and divides the others by ``1 - p``.

    The choice is a hash (SplitMix64) of a counter and the channel's index in the global batch. The counter is a buffer,
    so that it is in every checkpoint: a run that resumes draws what it would have drawn, and each of W workers what one
    worker draws for its share. The counter starts at random and grows with every pass in training.

    Args:
        p: share of channels, in 0..1.
    """

    counter: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("counter", torch.randint(1 << 48, ()))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape; in evaluation x itself."""
        if not self.training or self.p == 0:
            return x
        images, channels = x.shape[:2]
        first = rank() * images * channels
        indices = torch.arange(first, first + images * channels, device=x.device)
        uniform = _hash(self.counter * (workers() * images * channels) + indices)
        self.counter += 1
        kept = (uniform >= self.p).to(x.dtype).view(images, channels, 1, 1)
        return x * (kept / (1 - self.p))


def _hash(numbers: Tensor) -> Tensor:
    """Uniform float64 numbers in [0, 1), one for each int64 number (N,)."""
    step, first, second = _FACTORS
    z = numbers * step
    z = (z ^ _shifted(z, 30)) * first
    z = (z ^ _shifted(z, 27)) * second
    return _shifted(z ^ _shifted(z, 31), 11).double() / (1 << 53)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift int64 numbers to the right and fill up with zeros."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
