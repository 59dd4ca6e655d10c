"""Text from outside stays text in a terminal, a CSV file and a Markdown page."""

import csv
import io
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from semprior.io.foreign_text import csv_cell, markdown_code, visible

HOSTILE = "a\x1b]0;owned\x07\x1b[2Jb\u202egnp.\udcff\x9b31m\n[/x]=1"


@given(st.text())
@example(HOSTILE)
def test_what_is_visible_moves_hides_and_reorders_nothing(text):
    shown = visible(text)
    assert all(unicodedata.category(sign)[0] not in "C" or unicodedata.category(sign) == "Cn" for sign in shown)
    assert shown.splitlines() in ([shown], [])
    shown.encode()  # no half of a pair is left
    assert visible(shown) == shown


def test_usual_names_are_shown_as_they_are():
    for name in ("Misc_1.png", "données/été 3.png", "赤外線\u3000画像.png", r"C:\images", "±[0, 1]"):
        assert visible(name) == csv_cell(name) == name
    assert visible("\x1b[31m\t\u200b\U000e0041\udc80") == r"\x1b[31m\t\u200b\U000e0041\udc80"


@given(st.text())
@example("=HYPERLINK(1)")
@example("\t+1")
@example("\uff1d1")
@example("@SUM(A1)")
def test_no_cell_of_a_table_is_a_formula(text):
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerow([csv_cell(text), 1])
    ((cell, number),) = csv.reader(io.StringIO(table.getvalue()))
    assert number == "1"
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert cell.removeprefix("'") in (visible(text), visible(text).removeprefix("'"))


@given(st.text(alphabet=st.one_of(st.sampled_from("`<>&[]()!\\\n |*_#"), st.characters())))
@example("<script>alert(1)</script>")
@example("a`<b>`c")
@example("` `")
@example("  ")
def test_a_markdown_page_shows_a_text_as_code_and_nothing_else(text):
    (paragraph,) = [token for token in MarkdownIt().parse(f"A {markdown_code(text)}.") if token.type == "inline"]
    before, code, after = paragraph.children
    assert (before.content, code.type, after.content) == ("A ", "code_inline", ".")
    assert code.content == (visible(text) if visible(text).strip() else "(empty)")
