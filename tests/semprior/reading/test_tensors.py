"""Weights and arrays: only what is sound, finite and as large as it says is read."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
import torch

from semprior.errors import UserError
from semprior.reading.tensors import parse_arrays, parse_tensors, read_tensors


def safetensors(dtype, shape, size):
    header = json.dumps({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def npz(compression=zipfile.ZIP_STORED, **members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(f"{name}.npy", member)
    return content.getvalue()


def npy(header, data=b""):
    text = f"{header}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8 + b"{}",
        safetensors("F4", [4], 2),  # a type that torch does not have
        safetensors("F32", [3], 8),
        safetensors("F32", [1 << 40], 8),
        safetensors("NONE", [1], 4),
    ],
)
def test_damaged_or_foreign_safetensors_are_refused(content, tmp_path):
    with pytest.raises(UserError, match=r"^w\.safetensors: is damaged"):
        parse_tensors(content, "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.safetensors: is damaged"):
        read_tensors(tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(value):
    from safetensors.torch import save

    content = save({"a": torch.ones(3), "layer.b": torch.tensor([1.0, value]), "n": torch.tensor([1])})
    with pytest.raises(UserError, match=r"^w: the weights layer\.b are not finite"):
        parse_tensors(content, "w")


def test_arrays_are_read_back_and_writable():
    content = io.BytesIO()
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.asfortranarray(np.eye(2)), "c": np.zeros(0, bool)}
    np.savez(content, **arrays)
    found = parse_arrays(content.getvalue(), "a.npz")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    found["a"][0, 0] = 7


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x05\x06" + bytes(10),
        npz(a=b"no array"),
        npz(a=npy(HUGE)),  # would allocate 8 TB
        npz(a=npy("{'descr': '|O', 'fortran_order': False, 'shape': ()}", bytes(8))),
        npz(a=npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}")),
        npz(a=npy("__import__('os')")),
        npz(zipfile.ZIP_DEFLATED, a=bytes(10**6)),
    ],
)
def test_damaged_or_foreign_arrays_are_refused(content):
    with pytest.raises(UserError, match=r"^a\.npz: is damaged"):
        parse_arrays(content, "a.npz")
