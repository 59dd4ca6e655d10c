"""Weights and arrays in files: safetensors and npz. Reading runs no code, and needs no more memory than they hold."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semprior.errors import UserError

if TYPE_CHECKING:  # torch is imported where weights are read: code that only names checkpoints does without
    from torch import Tensor


def parse_tensors(content: bytes, place: str) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file.

    Raises:
        UserError: the content is not in that format, has a type that torch lacks, or numbers that are not finite.
    """
    import safetensors.torch

    with _explained(place):
        tensors = safetensors.torch.load(content)
        _require_plain(tensors)
    require_finite(tensors, place)
    return tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose pages are mapped, not copied.

    Raises:
        UserError: as `parse_tensors`.
    """
    import safetensors.torch

    with _explained(str(path)):
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
        _require_plain(tensors)
    require_finite(tensors, str(path))
    return tensors


def _require_plain(tensors: Mapping[str, Tensor]) -> None:
    """Refuse types of a few bits, with which torch does not compute."""
    import torch

    plain = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8)
    for name, tensor in tensors.items():
        if tensor.dtype not in (*plain, torch.int16, torch.int32, torch.int64):
            raise ValueError(f"the weights {name} have the type {tensor.dtype}")


def require_finite(tensors: Mapping[str, Tensor], place: str) -> None:
    """Refuse weights that are infinite or not a number.

    Raises:
        UserError: a tensor has such numbers; the message names it.
    """
    name = not_finite(tensors)
    if name is not None:
        raise UserError(f"{place}: the weights {name} are not finite; training diverged, or the file is damaged")


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with numbers that are infinite or not a number; None if there is none."""
    import torch

    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


def parse_arrays(content: bytes, place: str) -> dict[str, np.ndarray]:
    """The arrays in the content of an npz file that `numpy.savez` wrote, which does not compress.

    Raises:
        UserError: the content is not in that format, is compressed, or holds Python objects.
    """
    with _explained(place), zipfile.ZipFile(BytesIO(content)) as stored:
        entries = stored.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("an array is compressed")
        if sum(entry.file_size for entry in entries) > len(content):
            raise ValueError("the arrays overlap")
        return {entry.filename.removesuffix(".npy"): _array(stored.read(entry)) for entry in entries}


def _array(content: bytes) -> np.ndarray:
    """The array in the content of an npy file. `numpy.load` would allocate what the header says before it reads."""
    stream = BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError("the version of an array is unknown")
    if dtype.hasobject or dtype.names or dtype.kind not in "biufU" or not dtype.itemsize:
        raise ValueError("an array does not hold numbers")
    if any(side < 0 for side in shape) or len(content) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise ValueError("the shape of an array is not that of its data")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy()  # writable, as from numpy.load


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """A fault of the block is the file's: libraries fail in many ways on damaged or foreign files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{place}: is damaged ({reason})") from error
