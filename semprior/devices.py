"""What a run computes on, and in which precision.

The setting `precision` is a wish: ``bf16`` is bfloat16 where the device computes in it natively, and float32 elsewhere.
`used_precision` decides, for everything that runs networks.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from semprior.errors import UserError


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` means here.

    Raises:
        UserError: another name, no accelerator where one is asked for, or one for which this torch has no kernels.
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
    """The precision in which networks run on `device` where a config's `precision` is `wish`.

    Without native bfloat16 torch refuses it (a processor before AVX-512, in fused convolutions) or emulates it, many
    times more slowly than float32 (such a processor elsewhere, a GPU before Ampere).
    """
    if wish != "bf16":
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if processor_has_bf16() else "fp32"


def uses_bf16(wish: str, device: torch.device) -> bool:
    """Whether `used_precision` is bfloat16."""
    return used_precision(wish, device) == "bf16"


@functools.cache
def processor_has_bf16() -> bool:
    """Whether oneDNN, which computes torch's convolutions on a processor, does so in bfloat16 here.

    oneDNN itself is asked, since the variable ONEDNN_MAX_CPU_ISA may have it use less than the processor has, of which
    `torch.cpu.get_capabilities` knows nothing. The question has no public name (torch 2.11 to 2.14), and none at all in
    a torch without oneDNN, as on Apple's machines, where bfloat16 is emulated.
    """
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


def instruction_set() -> str:
    """What torch uses of this processor, like ``AVX512``; with what oneDNN is held to, where a variable says so."""
    found = torch.backends.cpu.get_cpu_capability()
    found = platform.machine() if found == "DEFAULT" else found  # nothing beyond what every one of its kind has
    limit = next((os.environ[name].upper() for name in _LIMITS if os.environ.get(name)), "")
    return found if limit in (*_UNLIMITED, found) else f"{found}, oneDNN {limit}"


def precision_remark(wish: str, device: torch.device) -> str:
    """What follows the device's name: the precision, and the reason where it is not what was wished for."""
    used = used_precision(wish, device)
    return f", in {used}" if used == wish else f", in {used}, since {_lacking(device)}"


def fallback_remark(wish: str, device: torch.device) -> str | None:
    """A line that says why networks do not run in the precision wished for; none where they do."""
    used = used_precision(wish, device)
    return None if used == wish else f"computes in {used}, since {_lacking(device)}"


def change_remark(before: str | None, now: Precision) -> str:
    """What follows where a run goes on in another precision than it was last trained in; else nothing.

    Args:
        before: of its last epoch; none where it is not known.
        now: of what follows.
    """
    return "" if before in (None, "", now) else f"; those ran in {before}, what follows runs in {now}"


def _lacking(device: torch.device) -> str:
    return f"this {'GPU' if device.type == 'cuda' else 'processor'} has no bfloat16"


@contextmanager
def memory_told(way_out: str) -> Iterator[None]:
    """Within the context a GPU whose memory is full is told in one line that ends with a way out.

    Raises:
        UserError: its memory was full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"the GPU's memory is full: {way_out}") from error
