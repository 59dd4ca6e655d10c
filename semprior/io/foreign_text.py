"""Text that others wrote, shown so that it stays text: in a terminal, a table for spreadsheets, a Markdown page.

Names of files, sweeps and hosts, messages of libraries and everything that a storage holds may contain characters that
mean something to the medium: a terminal obeys escape sequences, a spreadsheet computes a cell that begins with ``=``, a
page runs HTML. Every such text passes through the function of its medium where it is shown, and only there: what is
stored and compared is the text itself.
"""

from __future__ import annotations

import html
import re
import unicodedata

_HIDDEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
"""Unicode categories without a glyph: controls, direction marks, private use, halves of pairs, line separators."""
_FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]")
"""How a cell begins that a spreadsheet would compute; full-width signs count in some."""
_ISOLATE = ("\u2068", "\u2069")
"""Around a text, they keep its direction of writing from reordering the text beside it."""
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str) -> str:
    r"""A text for a terminal, a log or a figure: every character that moves, hides or reorders others is spelled out.

    Example::

        visible("a\x1b[2J\u202egnp.png")  # r"a\x1b[2J\u202egnp.png"
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(sign) if unicodedata.category(sign) in _HIDDEN else sign for sign in text)


def _spelled(sign: str) -> str:
    return _ESCAPES.get(sign) or (f"\\x{ord(sign):02x}" if ord(sign) < 0x100 else ascii(sign)[1:-1])


def csv_cell(text: str) -> str:
    """A text for a cell of a CSV file: `visible`, and with an apostrophe in front where it would be a formula.

    Spreadsheets take the apostrophe for the mark of a text. Separators and quotes are left to the `csv` module.
    """
    shown = visible(text)
    return f"'{shown}" if _FORMULA.match(text) else shown


def markdown_code(text: str) -> str:
    """A text for a Markdown page, as inline code, in which neither Markdown nor HTML means anything."""
    shown = visible(text)
    if not shown.strip():
        return "`(empty)`"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if "`" in (shown[0], shown[-1]) or shown[0] == shown[-1] == " " else ""
    return f"{fence}{space}{shown}{space}{fence}"


def page_name(text: str) -> str:
    """A name for a sentence, a table or a caption of a page: `visible`, and isolated if it is not ASCII.

    Isolated, an Arabic name does not reorder the words and numbers beside it. Whoever writes the HTML escapes it.
    """
    shown = visible(text)
    return shown if shown.isascii() else f"{_ISOLATE[0]}{shown}{_ISOLATE[1]}"


def page_text(text: str) -> str:
    """A text of several lines for a page: `visible`, except for line breaks and the isolation of `page_name`."""
    return "".join(sign if sign in ("\n", *_ISOLATE) else visible(sign) for sign in text)


def chart_name(text: str) -> str:
    """A name for a chart of Plotly, which takes some HTML in its texts: `page_name`, with that escaped."""
    return html.escape(page_name(text), quote=False)
