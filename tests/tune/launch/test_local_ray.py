"""This machine as sweeps on it use it: its GPUs, as they count them without one, and the heap of its workers."""

import os
import platform
import sys
import threading

import pytest
import torch

from tests.tune.made_up import made_up_sweep
from tune.cli.app import main
from tune.launch.local_ray import local_ray, usable_gpus

IDLE = "resources: gpus is 0, and the GPUs of this machine will idle; `resources: {cpus: 4, gpus: 1}` uses them"


@pytest.fixture
def gpus(monkeypatch):
    """A function that makes torch see a number of GPUs, of a driver that it can use or not."""

    def see(count, usable=True):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: usable and count > 0)

    return see


def test_gpus_count_that_torch_can_use(gpus):
    gpus(2)
    assert usable_gpus() == 2
    gpus(2, usable=False)  # their driver is too old
    assert usable_gpus() == 0


def test_the_tests_themselves_see_no_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert usable_gpus() == 0


@pytest.mark.parametrize(("count", "taken", "told"), [(1, "0", True), (1, "0.5", False), (0, "0", False)])
def test_gpus_of_this_machine_that_would_idle_are_told(tmp_path, monkeypatch, capsys, gpus, count, taken, told):
    monkeypatch.delenv("SEMPRIOR_STORAGE", raising=False)
    monkeypatch.setattr("tune.cli.submit.run_here", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    made_up_sweep(tmp_path, ("gpus: 0", f"gpus: {taken}"))
    gpus(count)
    for words in (["submit", "sweep.yaml", "--id", "other"], ["resume", "small"]):
        assert main(words) == 0
        assert (IDLE in " ".join(capsys.readouterr().out.split())) is told


def refaulted_in_a_thread():
    """Of a block larger than the heap that glibc gives to a thread."""
    from semprior.runtime.process_setup import keep_freed_memory
    from tests.page_faults import refaulted

    found = []
    thread = threading.Thread(target=lambda: found.append((keep_freed_memory(), refaulted(100 << 20))))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_workers_keep_large_freed_blocks_in_the_thread_that_trains(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with local_ray(cpus=1, gpus=0):
        import ray

        kept, share = ray.get(ray.remote(refaulted_in_a_thread).remote(), timeout=120)
    assert kept
    assert share < 0.1
