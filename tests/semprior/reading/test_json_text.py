"""JSON: values of the expected type, or one line that names the file and the key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import pytest

from semprior.errors import UserError
from semprior.reading.json_text import parse_json, read_json
from semprior.reading.schema import checked, shown


@dataclass(frozen=True)
class Entry:
    size: int
    kind: Literal["data", "vfm"] = "data"
    shares: tuple[float, float] | None = None


class Manifest(TypedDict):
    files: Mapping[str, Entry]
    about: dict[str, Any]


def test_values_become_the_expected_types_and_unknown_keys_are_ignored():
    text = b'{"files": {"a": {"size": 3, "shares": [1, 0.5], "newer": 1}}, "about": {"x": [null]}, "more": 2}'
    found = parse_json(text, Manifest, "m.json")
    assert found["files"] == {"a": Entry(3, shares=(1.0, 0.5))}
    assert found["about"] == {"x": [None]}
    assert found["more"] == 2  # a newer version may write more


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is damaged: not valid JSON"),
        ("[1]", "expected keys and values, not [1]"),
        ('{"about": {}}', "the key 'files' is missing"),
        ('{"files": {"a": {"size": "3"}}, "about": {}}', "files.a.size: expected a whole number, not '3'"),
        ('{"files": {"a": {"size": true}}, "about": {}}', "files.a.size: expected a whole number, not True"),
        ('{"files": {"a": {"size": 3, "kind": "x"}}, "about": {}}', "files.a.kind: expected data or vfm, not 'x'"),
        (
            '{"files": {"a": {"size": 3, "shares": [1]}}, "about": {}}',
            "shares: expected a list of 2 or null, not [1]",
        ),
        ('{"files": {"a": {"size": 3, "shares": 5}}, "about": {}}', "files.a.shares: expected a list of 2 or null"),
        ('{"files": {"a": {"size": 3, "shares": [1, 1e999]}}, "about": {}}', "shares[1]: expected a finite number"),
        ('{"files": NaN, "about": {}}', "NaN is not a number"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"files": ' + "9" * 5000 + "}", "is damaged: not valid JSON (Exceeds the limit"),
        (b'{"files": "\xff"}', ":1: cannot be read as text"),
    ],
)
def test_a_fault_is_one_line_with_file_and_key(text, fault):
    with pytest.raises(UserError) as caught:
        parse_json(text, Manifest, "m.json")
    assert str(caught.value).startswith("m.json:")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_values_are_cut_in_messages():
    for value in ("x" * 10**6, 10**5000, ["y" * 10**6] * 100, {"z" * 10**6: 1}):
        assert len(shown(value)) < 300
        with pytest.raises(UserError):
            checked({"size": value}, dict[str, bool], "f")
    with pytest.raises(UserError, match="a finite number"):
        checked(10**400, float, "f")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json: cannot be read: No such file"):
        read_json(tmp_path / "none.json", dict[str, int])
