"""XML: elements without entities, of bounded depth and size."""

import pytest

from semprior.errors import UserError
from semprior.reading.xml_text import read_xml


def test_elements_have_their_text_and_attributes(tmp_path):
    (tmp_path / "a.xml").write_bytes("<?xml version='1.0' encoding='utf-16'?><a><b c='é'>d</b></a>".encode("utf-16"))
    (child,) = read_xml(tmp_path / "a.xml")
    assert (child.tag, child.get("c"), child.text) == ("b", "é", "d")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not XML"),
        (b"<a>", "not XML"),
        (b"<a>\xff</a>", "not XML"),
        (b"<?xml version='1.0' encoding='none'?><a/>", "not XML"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "declares a document type or entities"),
        (b"<a>" * 200 + b"</a>" * 200, "elements lie deeper than 100"),
        (b"<a/>" + b" " * 100, r"holds 0 MB; at most 0 MB are read"),
    ],
)
def test_a_fault_is_one_line(tmp_path, content, fault):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.xml: {fault}") as raised:
        read_xml(tmp_path / "a.xml", limit=100 if fault.startswith("holds") else 10_000)
    assert "\n" not in str(raised.value)
