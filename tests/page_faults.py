"""What a process is spared that keeps the memory it frees, measured in it."""

import ctypes
import resource

import torch

BLOCK = 40 << 20  # bytes; up to 32 MB glibc may learn by itself to keep
_THP_DISABLE = 41  # of Linux's prctl.h


def refaulted(block: int = BLOCK) -> float:
    """Share of the pages of a block that the kernel gives anew although one like it was freed just before; 0 to 1.

    The size of the block is in bytes. Huge pages are turned off for the process: all pages are faulted one by one.
    """
    ctypes.CDLL(None).prctl(_THP_DISABLE, 1, 0, 0, 0)
    faults = min(_faults(block) for _ in range(12))  # the first few fill the heap
    return faults / (block // resource.getpagesize())


def _faults(block: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(block, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
