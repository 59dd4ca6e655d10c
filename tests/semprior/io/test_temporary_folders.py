"""Temporary folders of killed processes are removed; those in use, and those of others, are not."""

import signal
import subprocess
import sys
import tempfile

import pytest

from semprior.io.temporary_folders import clear_stale_folders, temporary_folder

PROGRAM = """
import sys
from semprior.io.temporary_folders import temporary_folder
with temporary_folder("semprior-test-") as folder:
    (folder / "inside").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield tmp_path
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_only_the_folder_of_a_killed_process_is_removed(place):
    (place / "semprior-of-something-else").mkdir()
    other = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    (name,) = [other.stdout.readline().strip()]
    with temporary_folder("st-") as mine:
        assert clear_stale_folders() == []
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert [str(folder) for folder in clear_stale_folders(str(place / "none"))] == [name]
        assert mine.is_dir()
    assert [path.name for path in place.iterdir()] == ["semprior-of-something-else"]


def test_a_folder_is_removed_at_the_end_also_after_an_error(place):
    with pytest.raises(ZeroDivisionError), temporary_folder("semprior-"):
        _ = 1 / 0
    assert list(place.iterdir()) == []
    with pytest.raises(ValueError, match="must begin with"), temporary_folder("x-"):
        pass
