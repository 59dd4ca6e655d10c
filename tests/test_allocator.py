"""What a process is spared that keeps the memory it frees."""

import platform
import subprocess
import sys

import pytest

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


def page_faults(before: str) -> int:
    """Of twenty blocks of 16 MB, one after the other, in a process of its own."""
    script = [sys.executable, "-c", FAULTS.format(before=before)]
    return int(subprocess.run(script, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_a_freed_block_is_not_faulted_in_again():
    assert page_faults("from semprior.allocator import keep_freed_memory; assert keep_freed_memory()") < 200
