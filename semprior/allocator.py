"""Keeping freed memory in the process, for speed on the CPU.

A training step allocates and frees hundreds of activations of tens of megabytes. By default glibc maps each anew, and
the kernel zeroes every page again: half of a step. `keep_freed_memory` mends that in the running process, and then a
step faults no page at all.

What is kept has holes, though. Training leaves blocks of one size, evaluation of images needs others, and each finds
little room in what the other has left: the heap grows over many epochs. `give_back_freed_memory` between the two lets
the kernel have the pages of the holes, which are faulted in again once: a second of processor time a gigabyte at most.

That holds for what the main thread allocates. Other threads, and Ray trains in one, have heaps of 64 MB, and what does
not fit is mapped anew all the same: a fifth of the time and of the memory of a step of MLCLNet. Only a variable that is
set before a process starts makes them share the main heap.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # names of glibc's malloc.h
_LARGEST = 2**31 - 1
_PAD = 64 << 20

THREADS_SHARE = {"MALLOC_ARENA_MAX": "1"}
"""The environment of a process that trains in another thread than its first."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of giving them back to the kernel.

    Costs nothing but the peak of memory held between steps. With another allocator in glibc's place it does nothing.

    Returns:
        Whether it took effect; False where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = _libc()
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _PAD))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def give_back_freed_memory() -> bool:
    """Give the kernel the pages of all blocks that are free; whether there was anything to give.

    False, too, where the C library is another than glibc.
    """
    return platform.libc_ver()[0] == "glibc" and _libc().malloc_trim(0) == 1


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("c"))
