"""The first round of `benchmarks.fuzz`: of damaged and foreign inputs only a `UserError` of one line comes out."""

import itertools

import pytest
from hypothesis import strategies as st

from benchmarks import fuzz
from semprior.errors import UserError

EXAMPLES = 120  # times the share of each target


def test_there_are_examples_of_every_kind():
    assert sum(round(EXAMPLES * target.share) for target in fuzz.TARGETS.values()) >= 3000


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_only_user_errors_come_out(name):
    assert fuzz.explore(name, round(EXAMPLES * fuzz.TARGETS[name].share), seed=0) > 0


def wait(*_):
    while True:
        pass


def two_lines(*_):
    raise UserError("one\ntwo")


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (lambda *_: {}["key"], KeyError),
        (wait, fuzz.TooMuchError),
        (two_lines, AssertionError),
    ],
)
def test_everything_else_is_a_failure(monkeypatch, read, fault):
    monkeypatch.setattr(fuzz, "MOST_SECONDS", 1)
    monkeypatch.setitem(fuzz.TARGETS, "broken", fuzz.Target(st.just(0), read))
    with pytest.raises(fault):
        fuzz.explore("broken", 2, seed=0)


def test_much_memory_is_a_failure(monkeypatch):
    peaks = itertools.chain([1e9], itertools.repeat(3e9))
    monkeypatch.setattr(fuzz, "_peak", lambda: next(peaks))
    with pytest.raises(fuzz.TooMuchError, match=r"2\.0 GB"):
        fuzz.explore("name", 1, seed=0)
