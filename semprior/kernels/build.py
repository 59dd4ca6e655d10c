"""Compiles the C++ of this folder, once a machine, and loads it.

Compilation needs a C++ compiler (``c++``, or the one that ``CXX`` names) and takes some ten seconds. The library is
cached under a hash of the source, the compiler and the processor, so that later processes only load it. A compiler that
refuses the options for this processor, or for OpenMP, is tried again with fewer options. Without a compiler, or after
another fault, a warning is logged once, and torch's own layers compute the same more slowly.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semprior.io.atomic_files import locked
from semprior.io.cache_folder import cache_folder

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("layers.cpp", "attention.cpp", "maps.cpp", "winograd.cpp"))
_HEADERS = (Path(__file__).with_name("numbers.h"),)
_FLAGS = ("-std=c++20", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_TUNED = {
    **dict.fromkeys(("x86_64", "amd64"), ("-march=native",)),
    **dict.fromkeys(("aarch64", "arm64"), ("-mcpu=native",)),
}
"""Options that compile for this very processor, by machine type."""
_WIDTH = {"AVX512": ("-mprefer-vector-width=512",), "AVX2": ("-mno-avx512f",)}
"""Options that limit vectors to the width that torch itself uses, by torch's CPU capability."""
_OPENMP = (("-fopenmp",), ("-Xclang", "-fopenmp"), ())
"""Options that enable OpenMP: for most compilers, for Apple's, and for a compiler without it."""
_COMPILERS = ("c++", "g++", "clang++")
_LIMIT_S = 300
_log = logging.getLogger(__name__)
_switched_off = False


def library() -> ctypes.CDLL | None:
    """The compiled layers; None where they cannot be compiled or loaded, and within `torch_layers`."""
    return None if _switched_off else _load()


def kernel(name: str) -> Callable[..., Any]:  # a C function has no signature in ctypes
    """A function of the compiled layers, for callers who have checked that there is a `library`."""
    compiled = library()
    if compiled is None:
        raise RuntimeError(f"{name}: the compiled layers are not available")
    function: Callable[..., Any] = getattr(compiled, name)
    return function


@contextmanager
def torch_layers() -> Iterator[None]:
    """Within the context, torch's own layers replace the compiled ones."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


@dataclass(frozen=True)
class _Options:
    """Compiler options that a compiler may refuse.

    Attributes:
        tuned: compile for this processor; empty for any processor of the machine type.
        openmp: enable threads; empty for a single thread.
    """

    tuned: tuple[str, ...] = ()
    openmp: tuple[str, ...] = ()


@functools.cache
def _load() -> ctypes.CDLL | None:
    try:
        return _load_with_best_options()
    except OSError as error:
        _log.warning(
            "compiled layers: %s; training on the CPU uses torch's own, which take about a third longer", error
        )
        return None


def _load_with_best_options() -> ctypes.CDLL:
    """Load the library, compiled with the best options that the compiler accepts and whose result can be loaded.

    Raises:
        OSError: no options work; the message is one line about the first options tried.
    """
    compiler = _compiler()
    fault: OSError | None = None
    for openmp in _OPENMP:
        for tuned in dict.fromkeys((_processor_options(), ())):
            try:
                path = _compiled_library(compiler, _Options(tuned, openmp))
            except _RefusedOptionsError as error:
                fault = fault or error
                continue
            try:
                loaded = _load_file(path)
            except OSError as error:
                fault = fault or OSError(" ".join(str(error).split()))
                break  # this OpenMP is missing, whatever the processor options
            if not openmp:
                _log.warning(
                    "compiled layers: they run on one thread, since the compiler's OpenMP is not torch's (%s)", fault
                )
            return loaded
    raise OSError(str(fault))


def _processor_options() -> tuple[str, ...]:
    tuned = _TUNED.get(platform.machine().lower(), ())
    return (*tuned, *_WIDTH.get(torch.backends.cpu.get_cpu_capability(), ())) if "-march=native" in tuned else tuned


class _RefusedOptionsError(OSError):
    """The compiler fails on the source with these options."""


def _load_file(library: Path) -> ctypes.CDLL:
    if sys.platform == "darwin":  # torch loads its OpenMP without making the functions visible to other libraries
        for runtime in (Path(torch.__file__).parent / "lib").glob("libomp*.dylib"):
            ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(library))


def _compiler() -> list[str]:
    """The compiler's command.

    Raises:
        OSError: there is no compiler.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [[name] for name in _COMPILERS]:
        if shutil.which(command[0]):
            return command
    raise OSError(f"CXX: {named[0]}: no such command" if named else "there is no C++ compiler (g++ or clang++)")


def _compiled_library(compiler: list[str], options: _Options) -> Path:
    """The shared library in the cache, compiled first if it is missing, by one of the processes that miss it.

    Raises:
        OSError: the compiler does not run, or the cache cannot be written; the message is one line.
        _RefusedOptionsError: the compiler fails on the source with these options.
    """
    source = b"".join(path.read_bytes() for path in (*_HEADERS, *_SOURCES))
    flags = (*_FLAGS, *options.tuned, *options.openmp)
    key = "\n".join((_version(tuple(compiler)), _processor(), *flags)).encode() + source
    folder = cache_folder() / "kernels"
    path = folder / f"layers-{hashlib.sha256(key).hexdigest()[:32]}{'.dylib' if sys.platform == 'darwin' else '.so'}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):  # the first trials of a sweep start together
            if not path.exists():
                _compile(compiler, flags, path)
    return path


def _compile(compiler: list[str], flags: Sequence[str], path: Path) -> None:
    """Compile the source to a shared library, which appears whole.

    Raises:
        OSError: the compiler does not run, or the folder cannot be written; the message is one line.
        _RefusedOptionsError: the compiler fails on the source with these flags.
    """
    with tempfile.TemporaryDirectory(prefix=".building-", dir=path.parent) as scratch:
        compiled = [Path(scratch) / f"{part.stem}.o" for part in _SOURCES]
        linked = Path(scratch) / path.name
        # Linked without -fopenmp, to use the OpenMP that torch has loaded: a second one would bring a second set of
        # threads, which would compete with the first for the cores.
        missing = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
        try:
            for part, result in zip(_SOURCES, compiled, strict=True):
                _run([*compiler, *flags, "-c", str(part), "-o", str(result)])
            _run([*compiler, "-shared", *missing, *map(str, compiled), "-o", str(linked)])
        except _CommandError as error:
            raise _RefusedOptionsError(str(error)) from error
        os.replace(linked, path)


@functools.cache
def _version(compiler: tuple[str, ...]) -> str:
    return _run([*compiler, "--version"])


class _CommandError(OSError):
    """A command ended with an exit code other than 0."""


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_LIMIT_S, check=True, encoding="utf-8", errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} took more than {_LIMIT_S} s") from error
    except subprocess.CalledProcessError as error:
        first = next((line for line in (error.stderr or "").splitlines() if "error" in line), "")
        raise _CommandError(f"{command[0]} failed with code {error.returncode} {first.strip()}".rstrip()) from error
    return done.stdout


@functools.cache
def _processor() -> str:
    """Text that identifies the processor as far as compiled code depends on it."""
    described = Path("/proc/cpuinfo")
    text = described.read_text(encoding="utf-8", errors="replace") if described.exists() else ""
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    if flags is None and sys.platform == "darwin":
        return f"{platform.machine()} {_run(['sysctl', '-n', 'machdep.cpu.brand_string'])}"
    return f"{platform.machine()} {flags.group(1) if flags else platform.processor()}"
