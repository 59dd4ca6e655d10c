"""Compiling the C++ of this folder, once a machine, and loading it.

It needs a C++ compiler (``c++``, or what ``CXX`` names) and takes some ten seconds; the result lies in the cache,
under a name made of the source, the compiler and the processor, so that every later process only loads it. Compilers
differ in what they understand, so that one that refuses the options for this processor, or for OpenMP, is asked again
with fewer. Where there is no compiler, or another fault, that is said once and torch's own layers do the same, more
slowly.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from semprior.cache import cache_folder

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("layers.cpp", "winograd.cpp"))
_FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_TUNED = {
    **dict.fromkeys(("x86_64", "amd64"), ("-march=native",)),
    **dict.fromkeys(("aarch64", "arm64"), ("-mcpu=native",)),
}
"""What asks a compiler for the code of this very processor, by the machine's kind."""
_WIDTH = {"AVX512": ("-mprefer-vector-width=512",), "AVX2": ("-mno-avx512f",)}
"""What asks for vectors of the width that torch itself computes with."""
_OPENMP = (("-fopenmp",), ("-Xclang", "-fopenmp"), ())
"""What asks for threads: of most compilers, of Apple's, and of one that has none."""
_COMPILERS = ("c++", "g++", "clang++")
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


@dataclass(frozen=True)
class _Options:
    """How the source is compiled.

    Attributes:
        tuned: for what processor; none: any of the machine's kind.
        openmp: how threads are asked for; none: there is one thread.
    """

    tuned: tuple[str, ...] = ()
    openmp: tuple[str, ...] = ()


@functools.cache
def _load() -> ctypes.CDLL | None:
    try:
        return _first_that_works()
    except OSError as error:
        _log.warning(
            "compiled layers: %s; training on the CPU uses torch's own, which take about a third longer", error
        )
        return None


def _first_that_works() -> ctypes.CDLL:
    """The library with the best options that the compiler takes and whose result loads.

    Raises:
        OSError: none; the message is one line, on the options asked for first.
    """
    compiler = _compiler()
    fault: OSError | None = None
    for openmp in _OPENMP:
        for tuned in dict.fromkeys((_tuned(), ())):
            try:
                path = _built(compiler, _Options(tuned, openmp))
            except _Refused as error:
                fault = fault or error
                continue
            try:
                loaded = _opened(path)
            except OSError as error:
                fault = fault or OSError(" ".join(str(error).split()))
                break  # it lacks this OpenMP, for whatever processor it was compiled
            if not openmp:
                _log.warning("compiled layers: on one thread, as the compiler's OpenMP is not torch's (%s)", fault)
            return loaded
    raise OSError(str(fault))


def _tuned() -> tuple[str, ...]:
    tuned = _TUNED.get(platform.machine().lower(), ())
    return (*tuned, *_WIDTH.get(torch.backends.cpu.get_cpu_capability(), ())) if "-march=native" in tuned else tuned


class _Refused(OSError):
    """The compiler does not take the source with these options."""


def _opened(library: Path) -> ctypes.CDLL:
    if sys.platform == "darwin":  # torch's OpenMP is loaded, but not where others look for its functions
        for runtime in (Path(torch.__file__).parent / "lib").glob("libomp*.dylib"):
            ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(library))


def _compiler() -> list[str]:
    """The command that compiles.

    Raises:
        OSError: there is none.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [[name] for name in _COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise OSError(f"CXX: {named[0]}: no such command" if named else "there is no C++ compiler (g++ or clang++)")


def _built(compiler: list[str], options: _Options) -> Path:
    """The shared library of the source, compiled if the cache has none.

    Raises:
        OSError: the compiler does not run, or the cache cannot be written; the message is one line.
        _Refused: it does not take the source with these options.
    """
    source = b"".join(path.read_bytes() for path in _SOURCES)
    flags = (*_FLAGS, *options.tuned, *options.openmp)
    key = "\n".join((_version(tuple(compiler)), _processor(), *flags)).encode() + source
    folder = cache_folder() / "kernels"
    path = folder / f"layers-{hashlib.sha256(key).hexdigest()[:32]}{'.dylib' if sys.platform == 'darwin' else '.so'}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as scratch:
        compiled = [Path(scratch) / f"{part.stem}.o" for part in _SOURCES]
        linked = Path(scratch) / path.name
        # Linked without -fopenmp: the threads are those of the OpenMP that torch has loaded already. A second OpenMP
        # would bring a second set of threads, and the two would fight over the cores.
        missing = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
        try:
            for part, result in zip(_SOURCES, compiled, strict=True):
                _run([*compiler, *flags, "-c", str(part), "-o", str(result)])
            _run([*compiler, "-shared", *missing, *map(str, compiled), "-o", str(linked)])
        except _Failed as error:
            raise _Refused(str(error)) from error
        os.replace(linked, path)
    return path


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    return _run([*compiler, "--version"])


class _Failed(OSError):
    """A command that ended with another code than 0."""


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_LIMIT_S, check=True, encoding="utf-8", errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} took more than {_LIMIT_S} s") from error
    except subprocess.CalledProcessError as error:
        first = next((line for line in (error.stderr or "").splitlines() if "error" in line), "")
        raise _Failed(f"{command[0]} failed with code {error.returncode} {first.strip()}".rstrip()) from error
    return done.stdout


@functools.cache
def _processor() -> str:
    """What code for this very processor depends on."""
    described = Path("/proc/cpuinfo")
    text = described.read_text(encoding="utf-8", errors="replace") if described.exists() else ""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    if flags is None and sys.platform == "darwin":
        return f"{platform.machine()} {_run(['sysctl', '-n', 'machdep.cpu.brand_string'])}"
    return f"{platform.machine()} {flags.group(1) if flags else platform.processor()}"
