"""Conventions of the metrics differ as docs/metrics.md says, on its example."""

import re

import numpy as np
import pytest

from semprior.errors import UserError
from semprior.evaluation.conventions import CONVENTIONS, convention_name, find_convention
from semprior.evaluation.metrics import count_image, summarise
from tests.repository import ROOT

PAGE = (ROOT / "docs" / "metrics.md").read_text()


def mask(*boxes):
    found = np.zeros((64, 64), bool)
    for row, column, height, width in boxes:
        found[row : row + height, column : column + width] = True
    return found


EXAMPLE = (
    (mask((10, 10, 3, 3), (40, 40, 3, 3), (50, 10, 1, 2)), mask((10, 10, 3, 3))),
    (mask((20, 23, 4, 4)), mask((20, 20, 4, 4))),
    (mask(), mask()),
)
"""Predicted and true masks: a hit and two false alarms, one as large as the hit; a shift by 3 pixels; nothing."""


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_page_tells_what_each_convention_gives_on_its_example(name):
    rules = CONVENTIONS[name]
    counts = [count_image(predicted, truth, rules.false_area) for predicted, truth in EXAMPLE]
    found = summarise(counts, empty_union=rules.empty_union)
    (row,) = re.findall(rf"^\| `{name}` \|([ .0-9|]+)\|$", PAGE, re.MULTILINE)
    told = [float(cell) for cell in row.split("|")[-4:]]
    assert told == [round(found.iou, 4), round(found.niou, 4), round(found.pd, 4), round(found.fa, 1)]


def test_dnanet_counts_no_false_alarm_as_large_as_a_match():
    predicted, truth = mask((0, 0, 2, 2), (20, 20, 2, 2), (40, 40, 1, 4), (50, 50, 1, 3)), mask((0, 0, 2, 2))
    assert count_image(predicted, truth, "component").false_pixels == 11
    assert count_image(predicted, truth, "area").false_pixels == 3
    nothing = mask()
    assert count_image(predicted, nothing, "area").false_pixels == 15


def test_only_paper_is_scored_as_published():
    assert {preset: convention_name(preset) for preset in ("quick", "standard", "paper")} == {
        "quick": "semprior",
        "standard": "semprior",
        "paper": "paper",
    }


def test_an_unknown_convention():
    with pytest.raises(UserError, match="did you mean dnanet"):
        find_convention("dnnet")
