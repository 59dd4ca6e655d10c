"""The machine that a figure was measured on, in one line without its name."""

import os
import platform
import re
from pathlib import Path


def describe_machine(device: str = "cpu") -> str:
    """Processor, cores, threads, precision hardware and versions; with `device` "cuda" the accelerator too."""
    import torch  # here, for a benchmark without it would measure its import

    from semprior.devices import instruction_set

    parts = [_processor(), f"torch uses {instruction_set()}", f"{_cores()} cores", f"{torch.get_num_threads()} threads"]
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        parts.insert(0, f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB), CUDA {torch.version.cuda}")
    parts += [f"Python {platform.python_version()}", f"torch {torch.__version__.split('+')[0]}"]
    return ", ".join(parts)


def load() -> float | None:
    """Processes that ran or waited over the last minute, on average; None where the system does not count them.

    Above zero before a benchmark starts, its seconds are shared with something else.
    """
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def peak_memory() -> int | None:
    """Most bytes this process has held since it started; None where /proc does not say.

    `getrusage` will not do: what a process inherits there from the one that started it may be more than its own.
    """
    status = Path("/proc/self/status")
    found = re.search(
        r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8") if status.exists() else "", re.MULTILINE
    )
    return int(found.group(1)) * 1024 if found else None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    text = described.read_text(encoding="utf-8") if described.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    name = model.group(1).strip() if model else platform.processor() or platform.machine()
    flags = set(re.findall(r"\b(avx2|avx512f|avx512_bf16|amx_bf16)\b", text))
    return name + (f" ({' '.join(sorted(flags))})" if flags else "")
