"""Where the cache lies, also without a home."""

import logging
import stat
import tempfile

import pytest

from semprior.cache import _among_temporary_files, cache_folder
from semprior.errors import UserError

HOMELESS = "/proc/nonexistent"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _among_temporary_files.cache_clear()
    yield tmp_path
    _among_temporary_files.cache_clear()


def test_the_cache_has_its_place(tmp_path):
    named, home = str(tmp_path / "a" / "b"), str(tmp_path / "h")
    assert str(cache_folder({"SEMPRIOR_CACHE": named, "HOME": home})) == named
    assert cache_folder({"XDG_CACHE_HOME": str(tmp_path / "c"), "HOME": home}) == tmp_path / "c" / "semprior"
    assert cache_folder({"HOME": home}).name == "semprior"


@pytest.mark.parametrize("variables", [{"HOME": HOMELESS}, {"XDG_CACHE_HOME": HOMELESS}])
def test_without_a_home_it_lies_among_temporary_files_and_that_is_said_once(temporary, caplog, variables):
    with caplog.at_level(logging.WARNING):
        folder = cache_folder(variables)
        assert cache_folder(variables) == folder
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (said,) = caplog.messages
    assert HOMELESS in said and str(folder) in said and "SEMPRIOR_CACHE" in said


def test_what_others_can_write_is_not_used(temporary):
    cache_folder({"HOME": HOMELESS}).chmod(0o777)
    _among_temporary_files.cache_clear()
    with pytest.raises(UserError, match="not this user's alone; name a folder in SEMPRIOR_CACHE"):
        cache_folder({"HOME": HOMELESS})


def test_a_cache_that_is_named_and_cannot_be_written_is_one_line():
    with pytest.raises(UserError, match=f"SEMPRIOR_CACHE: {HOMELESS}: cannot be written"):
        cache_folder({"SEMPRIOR_CACHE": HOMELESS})
