"""How far a metric is beyond its bound."""

import math

import numpy as np
import pytest

from tune.spec.constraints import parse_limit, unmet


@pytest.mark.parametrize(
    ("text", "value", "excess"),
    [
        ("<= 20", 20, 0),
        ("<= 20", 30, 0.5),  # of the bound, so that metrics of different units can be added up
        ("<= 20", 5, -0.75),
        (">= 0.5", 0.5, 0),
        (">= 0.5", 0.25, 0.5),
        ("<= 0", 3, 3),
        ("<= -2", -1, 0.5),
        ("<= 20", None, 1),
        ("<= 20", math.nan, 1),
    ],
)
def test_the_excess_is_above_0_where_a_constraint_is_not_met(text, value, excess):
    assert parse_limit("holdout/fa", text).excess(value) == excess


def test_constraints_that_are_not_met_are_told_apart():
    limits = [parse_limit("a", "<= 1"), parse_limit("b", ">= 1"), parse_limit("c", "<= 1")]
    assert unmet(limits, {"a": 0.5, "b": 0.5}) == limits[1:]
    assert np.array_equal(limits[0].excesses(np.array([0.5, 2.0, math.nan])), [-0.5, 1.0, 1.0])
