"""How `benchmarks.fuzz` makes inputs: valid ones with a few edits."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

_TOKENS = (
    *("2001-99-99", "2001-01-01", "0b_", "0x", "!!int x", "!!bool z", "!!binary x", "!!python/name:os", "!!set {a}"),
    *("9" * 5000, "0x" + "f" * 5000, "1:" * 2000 + "1", "1e999", "-1e999", ".inf", "-.inf", ".nan", "NaN", "Infinity"),
    *("[" * 3000, "{a: " * 500, "{" * 3000, '{"a":' * 3000, "&a [*a]", "*a", "&a", "<<: *a", "<<: b", "? [1]\n: 2"),
    *("null", "true", "~", "-1", "0", "1_0", "21.0", "1e3", "4294967296", "1000000000", "1e-320", "-0.0", "\uff11"),
    *("a" * 140_000, "\0", "\x1b[31m", "\u2028", "\ufeff", "\r", "\n", '"', "'", ",", ": ", "- ", "#", "%YAML 9.9\n"),
    *("../x", "/etc/passwd", "a/../b", "=HYPERLINK(1)", "[bold]", "name,x,y\n", "epochs: 1\n", "\ud800", "..", "."),
    *("a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",),
    *(
        "{int: [0, 4294967295]}",
        "{int: [1, 2]}",
        "{float: [0, 1], step: 1e-9}",
        "{values: [[1], [2]]}",
        "{subset: all}",
    ),
    *("name: grid", "seeds: 100000000", "trials: 1000000", "epochs: 100000", "when: {seed: 1}", "data.holdout_seed"),
)
WORDS = st.sampled_from(_TOKENS)
"""Texts that have surprised a reader, or might."""


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


_BYTES = st.one_of(
    WORDS.map(_encoded),
    st.binary(max_size=6),
    st.sampled_from(
        [b"\xff\xfe", b"\x80", b"\xff" * 4, b"\x00" * 8, b"\x7f\xff\xff\xff", b"<" + b"\xff" * 6 + b"\x7f"]
    ),
)


@st.composite
def edited(draw: st.DrawFn, base: bytes) -> bytes:
    """`base` with up to three edits: bytes exchanged, cut, repeated or inserted; seldom anything else."""
    if draw(st.integers(0, 30)) == 0:
        return draw(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(_encoded)))
    content = base
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content)))
        match draw(st.integers(0, 4)):
            case 0:
                content = content[:place]
            case 1:
                content = content[:place] + draw(_BYTES) + content[place:]
            case 2:
                content = content[:place] + draw(_BYTES) + content[place + draw(st.integers(0, 12)) :]
            case 3:
                content = content[:place] + content[max(0, place - 40) :]
            case 4:
                flipped = content[place : place + 1].translate(bytes(b ^ (1 << (b % 8)) for b in range(256)))
                content = content[:place] + flipped + content[place + 1 :]
    return content


json_value = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.sampled_from([t for t in _TOKENS if len(t) < 5001]),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
"""Anything that JSON can hold."""


@st.composite
def edited_json(draw: st.DrawFn, base: bytes) -> bytes:
    """A JSON document in which up to two values are others or missing; sometimes its text is edited, too."""
    document: Any = copy.deepcopy(json.loads(base))
    for _ in range(draw(st.integers(0, 2))):
        places = _places(document)
        if not places:
            document = draw(json_value)
            continue
        holder, key = draw(st.sampled_from(places))
        if draw(st.integers(0, 3)) == 0:
            del holder[key]
        else:
            holder[key] = draw(json_value)
    content = json.dumps(document).encode()
    return draw(edited(content)) if draw(st.integers(0, 2)) == 0 else content


def _places(value: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """Every place in a document: what holds it, and its key there."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]
