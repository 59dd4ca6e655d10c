"""Compiling the C++ of this folder, once a machine, and loading it.

It needs a C++ compiler (``c++``, or what ``CXX`` names) and takes some ten seconds; the result lies in the cache,
under a name made of the source, the compiler and the processor, so that every later process only loads it. Where there
is no compiler, or another fault, that is said once and torch's own layers do the same, more slowly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from semprior.cache import cache_folder

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("layers.cpp", "winograd.cpp"))
_FLAGS = (
    *("-std=c++20", "-O3", "-march=native", "-fopenmp", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
_WIDTH = {"AVX512": ("-mprefer-vector-width=512",), "AVX2": ("-mno-avx512f",)}  # by what torch itself computes with
_LIMIT_S = 300
_log = logging.getLogger(__name__)
_switched_off = False


def library() -> ctypes.CDLL | None:
    """The compiled layers; none where they cannot be had, or within `torch_layers`."""
    return None if _switched_off else _load()


@contextmanager
def torch_layers() -> Iterator[None]:
    """Within the context, torch's own layers are used."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


@functools.cache
def _load() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(_built()))
    except OSError as error:
        _log.warning(
            "compiled layers: %s; training on the CPU uses torch's own, which take about a third longer", error
        )
        return None


def _built() -> Path:
    """The shared library of the source, compiled if the cache has none.

    Raises:
        OSError: no compiler, or one that does not take the source; the message is one line.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise OSError("there is no C++ compiler (g++ or clang++)")
    source = b"".join(path.read_bytes() for path in _SOURCES)
    flags = (*_FLAGS, *_WIDTH.get(torch.backends.cpu.get_cpu_capability(), ()))
    version = _run([compiler, "--version"])
    key = "\n".join((version, _processor(), *flags)).encode() + source
    folder = cache_folder() / "kernels"
    path = folder / f"layers-{hashlib.sha256(key).hexdigest()[:32]}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as scratch:
        compiled, linked = [Path(scratch) / f"{path.stem}.o" for path in _SOURCES], Path(scratch) / "layers.so"
        for source_path, part in zip(_SOURCES, compiled, strict=True):
            _run([compiler, *flags, "-c", str(source_path), "-o", str(part)])
        # Linked without -fopenmp: the threads are those of the OpenMP that torch has loaded already. A second OpenMP
        # would bring a second set of threads, and the two would fight over the cores.
        _run([compiler, "-shared", *map(str, compiled), "-o", str(linked)])
        os.replace(linked, path)
    return path


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} took more than {_LIMIT_S} s") from error
    except subprocess.CalledProcessError as error:
        first = next((line for line in (error.stderr or "").splitlines() if "error" in line), "")
        raise OSError(f"{command[0]} failed with code {error.returncode} {first.strip()}".rstrip()) from error
    return done.stdout


def _processor() -> str:
    """What `-march=native` depends on."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else ""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{platform.machine()} {flags.group(1) if flags else platform.processor()}"
