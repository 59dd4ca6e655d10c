"""Devices and precision, as far as they can be tested without an accelerator."""

import copy
import os
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from semprior.errors import UserError
from semprior.runtime.device import (
    choose_device,
    explain_out_of_memory,
    fallback_remark,
    precision_remark,
    processor_has_bf16,
    used_precision,
    uses_bf16,
)
from semprior.runtime.torch_internals import onednn_has_bf16
from semprior.training.bilevel import apply_gradients
from semprior.training.optimizer_state import restore_optimizer, stored_optimizer
from tests.other_processor import AVX2

pytestmark = pytest.mark.avx2

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def with_gpu(monkeypatch, fault=None, bf16=True):
    def zeros(*size, device):
        if fault:
            raise RuntimeError(fault)
        return torch.ones(size)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)
    monkeypatch.setattr(torch, "zeros", zeros)


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(UserError, match="cuda is not available"):
        choose_device("cuda")


def test_with_a_gpu(monkeypatch):
    with_gpu(monkeypatch)
    assert choose_device("auto") == choose_device("cuda") == CUDA
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_that_this_torch_has_no_kernels_for(monkeypatch, name):
    with_gpu(monkeypatch, fault="CUDA error: no kernel image is available for execution on the device\nmore\nlines")
    with pytest.raises(UserError, match=r"\(CUDA error: no kernel image .* on the device\); use cpu") as error:
        choose_device(name)
    assert "\n" not in str(error.value)
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize(("device", "name"), [(CPU, "processor"), (CUDA, "GPU")])
def test_a_device_without_bfloat16_runs_in_fp32_and_says_so(monkeypatch, device, name, has):
    with_gpu(monkeypatch, bf16=has if device == CUDA else not has)
    monkeypatch.setattr("semprior.runtime.device.processor_has_bf16", lambda: has if device == CPU else not has)
    assert used_precision("fp32", device) == "fp32"
    assert precision_remark("fp32", device) == ", in fp32"
    assert fallback_remark("fp32", device) is None
    assert uses_bf16("bf16", device) is has
    if has:
        assert precision_remark("bf16", device) == ", in bf16"
        assert fallback_remark("bf16", device) is None
    else:
        assert precision_remark("bf16", device) == f", in fp32, since this {name} has no bfloat16"
        assert fallback_remark("bf16", device) == f"computes in fp32, since this {name} has no bfloat16"


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="of oneDNN on x86")
def test_onednn_is_asked_so_that_its_variable_counts():
    program = "from semprior.runtime import device; print(device.processor_has_bf16(), device.instruction_set())"
    found = []
    for limit in ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, AVX2):
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, **limit}, capture_output=True, text=True, check=True
        )
        found.append(done.stdout.strip())
    assert found[0].startswith("False ") and found[0].endswith("AVX2")
    assert found[1] == "False AVX2"


def test_a_torch_without_onednn_has_no_bfloat16(monkeypatch):
    onednn_has_bf16.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not processor_has_bf16()
    monkeypatch.undo()
    onednn_has_bf16.cache_clear()


def test_full_memory_is_one_line():
    with (
        pytest.raises(UserError, match=r"memory is full: lower data\.batch$"),
        explain_out_of_memory("lower data.batch"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\n...")
    for error in (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"), MemoryError()):
        with pytest.raises(UserError, match=r"^the memory of this machine is full"), explain_out_of_memory(""):
            raise error
    with pytest.raises(RuntimeError, match="other"), explain_out_of_memory("lower data.batch"):
        raise RuntimeError("other")


def test_a_restored_optimizer_lies_where_its_parameter_does():
    """A fused one refuses a step count on the CPU beside a parameter on an accelerator; meta stands for that here."""
    parameter = nn.Parameter(torch.randn(2, 3))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    parameter.grad = torch.ones(2, 3)
    optimizer.step()
    stored = {name: value.clone() for name, value in stored_optimizer("inner", optimizer).items()}
    elsewhere = nn.Parameter(torch.empty(2, 3, device="meta"))
    restored = torch.optim.AdamW([elsewhere])
    restore_optimizer("inner", restored, stored)
    assert {value.device.type for value in restored.state[elsewhere].values()} == {"meta"}
    again = torch.optim.AdamW([parameter], fused=True)
    restore_optimizer("inner", again, stored)
    stored["inner.0.step"] += 5
    assert again.state[parameter]["step"] == 1


def test_a_gradient_in_another_layout_steps_the_right_weights():
    torch.manual_seed(0)
    plain = nn.Parameter(torch.randn(4, 3, 3, 3))
    fused = nn.Parameter(copy.deepcopy(plain.detach()).contiguous(memory_format=torch.channels_last))
    gradient = torch.randn(4, 3, 3, 3)
    for parameter, quick in ((plain, False), (fused, True)):
        apply_gradients(torch.optim.AdamW([parameter], lr=0.1, fused=quick), [parameter], [gradient], None)
    torch.testing.assert_close(fused.detach(), plain.detach())
