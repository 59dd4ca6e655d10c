"""Keeping freed memory in the process, for speed on the CPU.

A training step allocates and frees hundreds of activations of tens of megabytes. By default glibc maps each anew, and
the kernel zeroes every page again: half of a step. `keep_freed_memory` mends that in the running process, and then a
step faults no page at all; starting the process with `allocator_environment` is the same from the first import on, and
with jemalloc holds some 5 % less.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import platform
from pathlib import Path

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # names of glibc's malloc.h
_LARGEST = 2**31 - 1
_PAD = 64 << 20


def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks instead of giving them back to the kernel.

    Costs nothing but the peak of memory held between steps. With another allocator in glibc's place it does nothing.

    Returns:
        Whether it took effect; False where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(ctypes.util.find_library("c"))
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _PAD))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def allocator_environment() -> dict[str, str]:
    """Variables that start a process with an allocator that keeps what is freed: jemalloc, where it is at hand.

    Give them to a child process or, as ``env_vars`` of its runtime environment, to a Ray worker.
    """
    jemalloc = find_jemalloc()
    if jemalloc is not None:
        return {
            "LD_PRELOAD": str(jemalloc),
            "MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0",
        }
    if platform.libc_ver()[0] != "glibc":
        return {}
    return {
        "MALLOC_MMAP_THRESHOLD_": str(_LARGEST),
        "MALLOC_TRIM_THRESHOLD_": str(_LARGEST),
        "MALLOC_TOP_PAD_": str(_PAD),
    }


def find_jemalloc() -> Path | None:
    """jemalloc as a shared library: the system's, or the one that the package ray brings; none on other systems."""
    if platform.system() != "Linux":
        return None
    folders = [Path("/usr/lib"), Path("/usr/lib64"), *Path("/usr/lib").glob("*-linux-gnu")]
    places = [folder / "libjemalloc.so.2" for folder in folders]
    package = importlib.util.find_spec("ray")  # found, not imported
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "core" / "libjemalloc.so")
    return next((place for place in places if place.is_file()), None)
