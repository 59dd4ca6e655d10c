"""Locks and files that appear whole, also on file systems that lack locks, hard links or rights."""

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest
from tiny import SETTINGS, write_dataset

from semprior.cli import main
from semprior.files import locked, put_if_absent, sync_folder, write_atomically
from semprior.run_folder import RunFolder
from semprior.storage import open_storage

LACKS = {"nothing": 0, "unknown": errno.ENOSYS, "refused": errno.EOPNOTSUPP, "denied": errno.EPERM}
HOLD = """
import errno, fcntl, os, sys
from pathlib import Path
from semprior.files import locked
def lacking(*_):
    raise OSError(int(sys.argv[2]), os.strerror(int(sys.argv[2])))
if sys.argv[2] != "0":
    fcntl.flock = lacking
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def lack(patch, number):
    """Let this process's file system answer as one that has no locks, hard links and rights."""

    def lacking(*_, **__):
        raise OSError(number, os.strerror(number))

    patch.setattr(fcntl, "flock", lacking)
    for name in ("link", "chmod"):
        patch.setattr(os, name, lacking)


@pytest.fixture(params=LACKS)
def file_system(request, monkeypatch):
    """Number of the error that the file system answers with to what it lacks; 0: it lacks nothing."""
    number = LACKS[request.param]
    if number:
        lack(monkeypatch, number)
    return number


@pytest.fixture
def holder(tmp_path, file_system):
    """Another process that holds the lock."""
    arguments = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), str(file_system)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_waits_for_the_lock(tmp_path, holder, file_system):
    asked = []
    letting_go = threading.Timer(0.3, lambda: holder.communicate(b"\n"))

    def waiting(who):
        asked.append(who)
        letting_go.start()

    with locked(tmp_path / "lock", waiting):
        assert holder.poll() is not None or holder.wait(10) == 0
    assert len(asked) == 1
    assert (f"process {holder.pid}" in asked[0]) is (file_system != 0)
    with locked(tmp_path / "lock", waiting):
        assert len(asked) == 1


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locked(tmp_path / "lock", lambda who: pytest.fail(f"waits for {who}")):
        pass


def test_a_lock_that_cannot_be_had_names_its_file(tmp_path):
    with pytest.raises(OSError, match="No such file") as raised, locked(tmp_path / "no" / "lock"):
        pass
    assert str(tmp_path / "no" / "lock") in str(raised.value)


def test_of_several_at_once_one_creates_a_file(tmp_path, file_system):
    barrier, won = threading.Barrier(4), []

    def create(number):
        barrier.wait()
        try:
            open_storage(tmp_path).create("sweep.json", str(number).encode() * 100_000)
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) == 1
    assert (tmp_path / "sweep.json").read_bytes() == str(won[0]).encode() * 100_000


def test_files_appear_whole(tmp_path, file_system):
    put_if_absent(tmp_path / "a", b"one")
    with pytest.raises(FileExistsError):
        put_if_absent(tmp_path / "a", b"two")
    write_atomically(tmp_path / "a", b"three")
    sync_folder(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"three"
    assert {path.name for path in tmp_path.iterdir()} <= {"a", ".a.lock"}


def test_a_run_is_trained_and_resumed_where_there_are_no_locks(tmp_path, monkeypatch, capsys):
    lack(monkeypatch, errno.ENOSYS)
    data, run = write_dataset(tmp_path / "data"), tmp_path / "run"
    settings = [word for setting in SETTINGS[1:] for word in ("--set", setting)]
    assert main(["train", "--data", str(data), "--out", str(run), "--set", "epochs=1", *settings]) == 0
    with RunFolder(run).locked():
        assert main(["train", "--out", str(run), "--resume", "--set", "epochs=2"]) == 2
        assert f"another process is training this run (process {os.getpid()}" in capsys.readouterr().err
    assert main(["train", "--out", str(run), "--resume", "--set", "epochs=2"]) == 0
    assert [line["epoch"] for line in RunFolder(run).lines()] == [0, 1]
    assert not list(run.glob(".*"))
