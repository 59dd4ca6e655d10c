"""The device of a run, and the precision in which its networks compute.

The setting `precision` is a wish: ``bf16`` means bfloat16 where the device computes in it natively, and float32
elsewhere. `used_precision` decides for everything that runs networks.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from semprior.errors import UserError
from semprior.runtime.distributed import all_agree
from semprior.runtime.torch_internals import onednn_has_bf16


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means on this machine.

    Raises:
        UserError: the name is another one, there is no GPU, or this torch has no kernels for it.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device: must be auto, cpu or cuda, not '{name}'")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("--device: cuda is not available here; use auto or cpu")
    try:
        torch.zeros(1, device="cuda").add_(1).item()
    except RuntimeError as error:
        fault = str(error).strip().partition("\n")[0]
        raise UserError(f"--device: the GPU cannot be used ({fault}); use cpu, or a torch made for it") from error
    return torch.device("cuda")


Precision = Literal["bf16", "fp32"]
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # in the order in which oneDNN reads them
_UNLIMITED = ("", "ALL", "DEFAULT")


def used_precision(wish: str, device: torch.device) -> Precision:
    """The precision in which networks run on `device` if the setting `precision` is `wish`.

    Without native bfloat16, torch either refuses it (in fused convolutions on a processor without AVX-512) or emulates
    it many times more slowly than float32 (elsewhere on such a processor, and on a GPU before Ampere).
    """
    if wish != "bf16":
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if processor_has_bf16() else "fp32"


def uses_bf16(wish: str, device: torch.device) -> bool:
    """Whether `used_precision` is bfloat16."""
    return used_precision(wish, device) == "bf16"


def common_precision(wish: Precision, device: torch.device) -> Precision:
    """The setting `precision` with which all workers compute alike: ``fp32`` where one of them lacks bfloat16.

    A worker that computes in float32 anyway keeps its setting, which `precision_remark` explains.
    """
    used = uses_bf16(wish, device)
    return "fp32" if not all_agree(used) and used else wish


def processor_has_bf16() -> bool:
    """Whether torch computes convolutions in native bfloat16 on this processor."""
    return onednn_has_bf16()


def instruction_set() -> str:
    """The instruction set that torch uses, like ``AVX512``, and oneDNN's own limit where a variable sets one."""
    found = torch.backends.cpu.get_cpu_capability()
    found = platform.machine() if found == "DEFAULT" else found  # the base instruction set of the machine type
    limit = next((os.environ[name].upper() for name in _LIMITS if os.environ.get(name)), "")
    return found if limit in (*_UNLIMITED, found) else f"{found}, oneDNN {limit}"


def processor_name() -> str:
    """The model of the processor, like ``AMD EPYC 9654``; where the system does not say, the machine type."""
    described = Path("/proc/cpuinfo")
    text = described.read_text(encoding="utf-8", errors="replace") if described.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


def device_label(device: torch.device) -> str:
    """What a run calls its device: ``cpu``, or ``cuda`` with the name of the GPU."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


def precision_remark(wish: str, device: torch.device) -> str:
    """Text to follow a device's name: the precision, and the reason if it differs from the wish."""
    used = used_precision(wish, device)
    return f", in {used}" if used == wish else f", in {used}, since {_no_bf16(device)}"


def fallback_remark(wish: str, device: torch.device) -> str | None:
    """A line that says why networks run in another precision than `wish`; None if they do not."""
    used = used_precision(wish, device)
    return None if used == wish else f"computes in {used}, since {_no_bf16(device)}"


def change_remark(before: str | None, now: Precision) -> str:
    """Text to follow the number of epochs of a resumed run, if its precision changes; else empty.

    Args:
        before: precision of the epochs so far; None or empty if unknown.
        now: precision of the epochs to come.
    """
    return "" if before in (None, "", now) else f"; those ran in {before}, the next ones run in {now}"


def _no_bf16(device: torch.device) -> str:
    return f"this {'GPU' if device.type == 'cuda' else 'processor'} has no bfloat16"


@contextmanager
def explain_out_of_memory(way_out: str) -> Iterator[None]:
    """Within the context, a full memory is an error in one line.

    Args:
        way_out: what the user can do about a full memory of the GPU; ends the line.

    Raises:
        UserError: the memory of the GPU or of the machine is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU's memory is full: {way_out}") from error
    except (RuntimeError, MemoryError) as error:
        if not is_memory_full(error):
            raise
        raise UserError("the memory of this machine is full: close other programs, or use a larger machine") from error


def is_memory_full(error: BaseException) -> bool:
    """Whether an exception says that the machine has no memory left; torch has no class of its own for that."""
    words = ("DefaultCPUAllocator", "Failed to allocate memory", "bad allocation", "bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
