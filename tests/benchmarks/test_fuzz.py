"""The first round of `benchmarks.fuzz`: of damaged and foreign inputs only a `UserError` of one line comes out."""

import numpy as np
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


def fill(*_):
    np.ones(int(2e8))


def two_lines(*_):
    raise UserError("one\ntwo")


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (lambda *_: {}["key"], KeyError),
        (wait, fuzz.TooMuchError),
        (fill, fuzz.TooMuchError),
        (two_lines, AssertionError),
    ],
)
def test_everything_else_is_a_failure(monkeypatch, read, fault):
    monkeypatch.setattr(fuzz, "MOST_SECONDS", 1)
    monkeypatch.setattr(fuzz, "MOST_BYTES", 5e8)
    monkeypatch.setitem(fuzz.TARGETS, "broken", fuzz.Target(st.just(0), read))
    with pytest.raises(fault):
        fuzz.explore("broken", 2, seed=0)
