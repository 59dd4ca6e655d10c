"""What a process is spared that keeps the memory it frees; that training keeps it."""

import os
import platform
import subprocess
import sys

import pytest
from tiny import SETTINGS, write_dataset

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")

TRAIN = """
from semprior.cli import main
assert main(sys.argv[1:]) == 0
"""
KEEP = """
from semprior.allocator import keep_freed_memory
assert keep_freed_memory()
"""


def refaulted_after(script, *words):
    """Share of a freed block's pages that are faulted in again, in a process of its own, after a script in it."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{script}\nfrom page_faults import refaulted; print(refaulted())", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


def test_a_freed_block_is_not_faulted_in_again():
    without, kept = refaulted_after(""), refaulted_after(KEEP)
    assert without > 0.9
    assert kept < without / 10


def test_training_on_the_cpu_keeps_freed_memory(tmp_path):
    words = [word for setting in (*SETTINGS, "epochs=1") for word in ("--set", setting)]
    data = write_dataset(tmp_path / "data")
    arguments = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--device", "cpu", *words]
    assert refaulted_after(TRAIN, *arguments) < 0.1


HOLES = """
import os, re, torch
from semprior.allocator import give_back_freed_memory, keep_freed_memory
def held():
    return int(re.search(r"RssAnon:\\s*(\\d+)", open("/proc/self/status").read()).group(1)) * 1024
keep_freed_memory()
blocks = [torch.ones(16 << 20, dtype=torch.uint8) for _ in range(16)]
del blocks[:-1]  # the last one keeps the heap from shrinking
before = held()
assert give_back_freed_memory()
print(before - held())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="/proc does not say what is held")
def test_holes_are_given_back_to_the_kernel():
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15 * (16 << 20) * 0.9
