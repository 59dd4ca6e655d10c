"""The allocator that processes start with, and what it spares them."""

import os
import platform
import subprocess
import sys

import pytest

from semprior.allocator import allocator_environment

FAULTS = """
import resource, sys
import torch
{before}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(16 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def page_faults(environment: dict[str, str], before: str = "") -> int:
    """Of twenty blocks of 16 MB, one after the other, in a process with these variables."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(before=before)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_a_freed_block_is_not_faulted_in_again():
    assert page_faults(allocator_environment()) < 200
    assert page_faults({}, "from semprior.allocator import keep_freed_memory; assert keep_freed_memory()") < 200


def test_without_jemalloc_the_thresholds_of_glibc_do(monkeypatch):
    monkeypatch.setattr("semprior.allocator.find_jemalloc", lambda: None)
    environment = allocator_environment()
    assert "LD_PRELOAD" not in environment
    if platform.libc_ver()[0] == "glibc":
        assert page_faults(environment) < 200
