"""Threads and memory of a process that trains on the CPU.

A training step allocates and frees hundreds of activations of tens of megabytes. By default glibc maps each of them
anew, and the kernel zeroes their pages every time, which takes half of a step. After `keep_freed_memory` the process
reuses freed blocks, and a step causes no page faults.

The heap then fragments: training and the evaluation of images free blocks of different sizes, each finds little room
among the blocks of the other, and the heap grows over many epochs. `give_back_freed_memory` between the two returns
free pages to the kernel. Faulting them in again takes at most a second of processor time per gigabyte.

Both concern the heap of the main thread. Other threads, such as the one in which Ray trains, have heaps of 64 MB, and
larger blocks are mapped anew: a fifth of the time and memory of a step of MLCLNet. They share the main heap only if an
environment variable says so when the process starts (`THREADS_SHARE`).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # as in glibc's malloc.h
_LARGEST = 2**31 - 1
_PAD = 64 << 20

THREADS_SHARE = {"MALLOC_ARENA_MAX": "1"}
"""Environment of a process that trains in another thread than its main one."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of giving them back to the kernel.

    The process then holds its peak memory between steps. If another allocator replaces glibc's, nothing changes.

    Returns:
        Whether it took effect; False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = _libc()
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _PAD))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def give_back_freed_memory() -> bool:
    """Return the pages of free blocks to the kernel.

    Returns:
        Whether there were any; False where the C library is not glibc.
    """
    return platform.libc_ver()[0] == "glibc" and _libc().malloc_trim(0) == 1


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("c"))


def use_threads(count: int) -> None:
    """Set the number of CPU threads of torch and OpenCV, which by default uses every core of the machine.

    Args:
        count: number of threads, including the calling one; less than 1 counts as 1.
    """
    import cv2  # not at the top, since commands that only read a storage import this module
    import torch

    threads = max(1, count)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
