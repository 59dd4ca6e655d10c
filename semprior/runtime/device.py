"""What a run computes on, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether networks run in bfloat16: as the config says, but float32 on a GPU that has none (before Ampere).

    There torch emulates it, many times more slowly than float32.
    """
    if precision != "bf16":
        return False
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def precision_remark(precision: str, device: torch.device) -> str:
    """What follows the device's name where networks do not run as the config says; else nothing."""
    lacking = precision == "bf16" and not uses_bf16(precision, device)
    return ", in fp32, since this GPU has no bfloat16" if lacking else ""


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
