"""Each statement of the page on security is held by tests, which the page names and which exist."""

import ast
import re
from functools import cache

import pytest

from tests.repository import ROOT

LINES = (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
ROWS = [line.strip("| ").split(" | ") for line in LINES if line.startswith("| ") and not line.startswith("| statement")]


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize(("statement", "tests"), ROWS, ids=[row[0][:50] for row in ROWS])
def test_a_statement_is_one_sentence_whose_tests_exist(statement, tests):
    assert re.fullmatch(r"[^.]*(\.(?! )[^.]*)*\.", statement)
    named = [name.strip("` ").split("::") for name in tests.split(",")]
    assert named
    for file, test in named:
        assert test in functions_of(file), f"{file}::{test}"


def test_the_page_states_nothing_outside_of_its_tables():
    outside = [line for line in LINES if line and not line.startswith(("#", "|"))]
    assert [line.split(",")[0] for line in outside] == [
        "This page says what semprior trusts",
        "hold it; `tests/test_security_page.py` checks that they exist.",
        "The ports of a cluster",
    ]
