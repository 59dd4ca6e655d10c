"""YAML documents: plain values with their lines, or one line that says what is wrong and where."""

import pytest

from semprior.errors import UserError
from semprior.reading.yaml_text import MOST_VALUES, parse_value, parse_yaml, read_yaml

TEN = {after: ", ".join([f"*{before}"] * 10) for before, after in zip("abcdefgh", "bcdefghi", strict=True)}
BOMB = "a: &a [1, 1]\n" + "".join(f"{name}: &{name} [{ten}]\n" for name, ten in TEN.items())
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(f"{name}: &{name} {{<<: [{ten}]}}\n" for name, ten in TEN.items())
REFUSED = {
    "duplicate key": ("epochs: 1\nepochs: 2\n", ":2: the key 'epochs' occurs twice; it is also on line 1"),
    "self-reference": ("a: &a [*a]\n", ":1: an alias refers to a value that contains it"),
    "alias bomb": (BOMB, f"expected at most {MOST_VALUES} values"),
    "merged alias bomb": (MERGE_BOMB, f"expected at most {MOST_VALUES} values"),
    "deep nesting": ("a: " + "[" * 100_000, "is nested too deeply"),
    "deep mappings": ("{a: " * 5000 + "1" + "}" * 5000, "is nested too deeply"),
    "number of 5,000 digits": ("epochs: " + "9" * 5000, ":1: .* is too long for a whole number"),
    "hexadecimal of 5,000 digits": ("epochs: 0x" + "f" * 5000, "is too long for a whole number"),
    "base 60": ("a: " + "1" + ":1" * 5000, "is too long for a whole number"),
    "no digits": ("a: 0b_\n", ":1: '0b_' is not a whole number"),
    "text as a number": ("b: 1\na: !!int x\n", ":2: 'x' is not a whole number"),
    "text as a boolean": ("a: !!bool z\n", ":1: 'z' is not true or false"),
    "object": ("a: !!python/object/apply:os.system [ls]\n", ":1: expected plain values, not 'tag:"),
    "binary": ("a: !!binary aGk=\n", "expected plain values"),
    "set": ("a: !!set {b, c}\n", "expected plain values"),
    "number as a key": ("1: 2\n", ":1: a key must be text, not 1"),
    "list as a key": ("? [1, 2]\n: 3\n", ":1: a key must be text"),
    "two documents": ("a: 1\n---\nb: 2\n", "is not valid YAML"),
    "unknown alias": ("a: *b\n", "is not valid YAML: found undefined alias"),
    "merge of a text": ("a: {<<: b}\n", "expected keys and values to merge"),
    "control character": ("a: \x07\n", "is not valid YAML"),
}


@pytest.mark.parametrize(("text", "fault"), REFUSED.values(), ids=REFUSED.keys())
def test_a_fault_is_one_line_with_its_place(text, fault):
    with pytest.raises(UserError, match=rf"^settings\.yaml.*{fault}") as caught:
        parse_yaml(text, "settings.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_values_are_plain_and_a_date_is_text():
    text = "a: 2001-99-99\nb: 2001-01-01\nc: [1, 2.5, true, null, .inf]\nd: {e: x}\n"
    document = parse_yaml(text, "f")
    assert document.content == {
        "a": "2001-99-99",
        "b": "2001-01-01",
        "c": [1, 2.5, True, None, float("inf")],
        "d": {"e": "x"},
    }
    assert document.location(("d", "e")) == "f:4"


def test_aliases_and_merges_repeat_values():
    text = "base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\nlist: [*b]\n"
    assert parse_yaml(text, "f").content == {
        "base": {"x": 1, "y": 2},
        "other": {"x": 1, "y": 3},
        "list": [{"x": 1, "y": 2}],
    }


def test_a_value_given_alone_has_no_line():
    assert parse_value("[1, 3]", "--set a") == [1, 3]
    with pytest.raises(UserError, match=r"^--set a: is not valid YAML"):
        parse_value("[1", "--set a")


def test_nested_and_dotted_keys_of_one_value_are_refused():
    document = parse_yaml("scam: {scale: 1}\nscam.scale: 2\n", "f")
    with pytest.raises(UserError, match=r"^f:2: the key 'scam\.scale' is given twice"):
        document.flat()


def test_a_file_is_text_of_bounded_size(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UserError, match=r"a\.yaml:2: cannot be read as text"):
        read_yaml(path)
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(UserError, match=r"a\.yaml: holds 2 MB; at most 1 MB"):
        read_yaml(path)
