"""A local Ray: the GPUs that it counts, its token and folder, and what keeps it from starting."""

import os
import platform
import re
import stat
import sys
import tempfile
import threading
from pathlib import Path

import grpc
import pytest
import torch

from semprior.errors import UserError
from tests.tune.made_up import made_up_sweep
from tune.cli.app import main
from tune.launch.local_ray import local_ray, startup_fault, usable_gpus

pytestmark = pytest.mark.ray

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


@pytest.mark.parametrize(("count", "taken", "warned"), [(1, "0", True), (1, "0.5", False), (0, "0", False)])
def test_gpus_of_this_machine_that_would_idle_are_named(tmp_path, monkeypatch, capsys, gpus, count, taken, warned):
    monkeypatch.delenv("SEMPRIOR_STORAGE", raising=False)
    monkeypatch.setattr("tune.cli.submit.run_here", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    made_up_sweep(tmp_path, ("gpus: 0", f"gpus: {taken}"))
    gpus(count)
    for words in (["submit", "sweep.yaml", "--id", "other"], ["resume", "small"]):
        assert main(words) == 0
        assert (IDLE in " ".join(capsys.readouterr().out.split())) is warned


def refaulted_in_a_thread():
    """Whether freed memory is kept, and the share of a block beyond a thread's heap that faults again."""
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

        freed_memory_is_kept, share = ray.get(ray.remote(refaulted_in_a_thread).remote(), timeout=120)
    assert freed_memory_is_kept
    assert share < 0.1


def token_mode():
    from ray._raylet import AuthenticationMode, get_authentication_mode

    return get_authentication_mode() == AuthenticationMode.TOKEN, os.environ["TMPDIR"]


def answer_without_token(address, method):
    """How Ray's GCS answers a stranger."""
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=60)
    return caught.value.code()


def test_it_starts_without_a_home_and_with_a_long_folder_for_temporary_files(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    for name, value in {"HOME": "/proc/nonexistent", "TMPDIR": str(long), "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with local_ray(cpus=1, gpus=0):
        import ray

        private = Path(ray._private.worker.global_worker.node.get_session_dir_path()).parents[1]
        assert private.parent == Path("/tmp")
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert ray.get(ray.remote(token_mode).remote(), timeout=120) == (True, str(long))
        address = ray.get_runtime_context().gcs_address
        assert answer_without_token(address, "NodeInfoGcsService/GetAllNodeInfo") is grpc.StatusCode.UNAUTHENTICATED
        assert answer_without_token(address, "InternalKVGcsService/InternalKVGet") is grpc.StatusCode.UNAUTHENTICATED
    assert not private.exists()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert list(long.iterdir()) == []


def test_a_folder_for_temporary_files_that_is_too_long_is_one_line(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 90)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match=r"TMPDIR: /x+: is too long for the paths of Ray's sockets"), local_ray():
        pass


@pytest.mark.parametrize(
    ("error", "log", "cause", "late"),
    [
        (PermissionError(13, "Permission denied", "/a"), "", "may not do .*'/a'", False),
        (OSError(28, "No space left on device"), "", "the disk is full .*TMPDIR", False),
        (OSError("AF_UNIX path length cannot exceed 107 bytes"), "", "set TMPDIR to a shorter one", False),
        (Exception("The current node timed out during startup."), "", "the machine may be overloaded", True),
        (
            Exception("The current node timed out during startup."),
            "grpc: Failed to bind: Address already in use",
            "a port on 127.0.0.1 that it needs is taken",
            False,
        ),
        (RuntimeError("raylet died"), "terminate: std::bad_alloc", "there is too little memory", False),
        (RuntimeError("raylet died"), "", "raylet died", True),
        (FileNotFoundError(2, "No such file or directory", "/b"), "", "/b: No such file", False),
    ],
)
def test_the_cause_that_keeps_ray_from_starting_is_found(tmp_path, error, log, cause, late):
    logs = tmp_path / "session_2026-01-01" / "logs"
    logs.mkdir(parents=True)
    (logs / "gcs_server.err").write_text(f"hello\n{log}\n", encoding="utf-8")
    found, again = startup_fault(error, tmp_path)
    assert re.search(cause, found)
    assert again is late


def test_a_fault_that_would_come_again_is_not_tried_again(monkeypatch):
    import ray

    tries = []

    def init(**settings):
        tries.append(settings)
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UserError, match=r"Ray does not start on this machine: .*/somewhere"), local_ray(cpus=1, gpus=0):
        pass
    assert len(tries) == 1
    assert not Path(tries[0]["_temp_dir"]).parent.exists()
