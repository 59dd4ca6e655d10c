"""The cache is where a variable or the platform puts it."""

import sys
from pathlib import Path

import pytest

from semprior.io.cache_folder import cache_folder


def test_a_variable_names_the_cache(monkeypatch):
    monkeypatch.setenv("SEMPRIOR_CACHE", "/a/b")
    assert cache_folder() == Path("/a/b")


@pytest.mark.parametrize("variable", [None, ""])
@pytest.mark.skipif(sys.platform != "linux", reason="the places are those of Linux")
def test_without_the_variable_it_is_in_the_user_cache(monkeypatch, variable):
    monkeypatch.setenv("HOME", "/h")
    for name, value in (("SEMPRIOR_CACHE", variable), ("XDG_CACHE_HOME", None)):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert cache_folder() == Path("/h/.cache/semprior")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/c/semprior")
