"""The cache is where a variable or the platform puts it, and among temporary files without a home."""

import logging
import stat
import sys
import tempfile

import pytest

from semprior.errors import UserError
from semprior.io.cache_folder import _temporary_cache, cache_folder

HOMELESS = "/proc/nonexistent"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, of a user without SEMPRIOR_CACHE."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SEMPRIOR_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    _temporary_cache.cache_clear()
    yield tmp_path
    _temporary_cache.cache_clear()


def test_a_variable_names_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SEMPRIOR_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"


@pytest.mark.skipif(sys.platform != "linux", reason="the places are those of Linux")
def test_without_the_variable_it_is_in_the_user_cache(monkeypatch, temporary):
    monkeypatch.setenv("SEMPRIOR_CACHE", "")
    monkeypatch.setenv("HOME", str(temporary / "h"))
    assert cache_folder() == temporary / "h" / ".cache" / "semprior"
    monkeypatch.setenv("XDG_CACHE_HOME", str(temporary / "c"))
    assert cache_folder() == temporary / "c" / "semprior"


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_without_a_home_it_lies_among_temporary_files_and_that_is_said_once(temporary, monkeypatch, caplog, variable):
    monkeypatch.setenv(variable, HOMELESS)
    with caplog.at_level(logging.WARNING):
        folder = cache_folder()
        assert cache_folder() == folder
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (said,) = caplog.messages
    assert HOMELESS in said and str(folder) in said and "SEMPRIOR_CACHE" in said


def test_what_others_can_write_is_not_used(temporary, monkeypatch):
    monkeypatch.setenv("HOME", HOMELESS)
    cache_folder().chmod(0o777)
    _temporary_cache.cache_clear()
    with pytest.raises(UserError, match="does not belong to this user alone; name a folder in SEMPRIOR_CACHE"):
        cache_folder()


def test_a_cache_that_is_named_and_cannot_be_written_is_one_line(monkeypatch):
    monkeypatch.setenv("SEMPRIOR_CACHE", HOMELESS)
    with pytest.raises(UserError, match=f"SEMPRIOR_CACHE: {HOMELESS}: cannot be written"):
        cache_folder()
