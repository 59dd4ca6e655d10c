"""What a page consists of: sections, each of texts, tables, charts and pictures.

Everything here is plain data; `semprior.pages.write` makes HTML of it. Every text is escaped there, so that a name like
``<script>`` is shown as it is. Names that others chose (files, sweeps, hosts) go through
`semprior.io.foreign_text.page_name` when they stand inside a sentence, so that Arabic among English stays in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


MarkKind = Literal["hit", "miss", "false alarm"]


@dataclass(frozen=True)
class Text:
    """Paragraphs, separated by empty lines.

    Attributes:
        text: plain text.
        kind: ``plain``; ``note`` for what the reader must know to judge the rest; ``code`` for commands and files,
            which keep their lines.
    """

    text: str
    kind: Literal["plain", "note", "code"] = "plain"


@dataclass(frozen=True)
class Facts:
    """Terms and their values, such as the few numbers that a page begins with."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what is shown.
        value: what a numeric column is sorted by; None puts the row last.
        hint: shown when the pointer or the keyboard reaches the cell; may have several lines.
    """

    text: str
    value: float | None = None
    hint: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: the head of the column.
        numeric: whether it is sorted by `Cell.value` and aligned to the right. A plain text in such a column is taken
            for its own value if it is a number.
        hint: as that of a cell.
    """

    title: str
    numeric: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort and, if it is long, filter.

    Attributes:
        columns: from left to right; the first one names the row.
        rows: each with a cell for every column.
        caption: what the table shows.
        highlighted: indices of the rows that stand out.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    caption: str = ""
    highlighted: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a table of {len(self.columns)} columns has rows of another length")


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        figure: of Plotly. Its template is ignored: fonts, ground and grid follow the theme of the page, and curves
            take `semprior.pages.colours.SERIES` unless they have a colour. Names in it go through
            `semprior.io.foreign_text.chart_name`.
        description: one or two sentences that say what is to be seen, for those who cannot see it.
        caption: stands below the chart.
        data: the numbers of the chart, which the reader can unfold; None where the description says everything.
    """

    figure: Figure
    description: str
    caption: str = ""
    data: Table | None = None


@dataclass(frozen=True)
class Choice:
    """Charts of which the reader chooses one; it is drawn when it is chosen.

    Attributes:
        label: what is chosen.
        charts: by the name of the choice; the first one is shown at first.
    """

    label: str
    charts: tuple[tuple[str, Chart], ...]


@dataclass(frozen=True)
class Mark:
    """A mark on a picture; each kind has a colour and a shape of its own.

    Attributes:
        row: of the centre, in pixels of the image; whole numbers are the centres of pixels.
        column: of the centre.
        radius: in pixels of the image.
        kind: ``hit`` (green circle), ``miss`` (red dashed square) or ``false alarm`` (yellow diamond).
        label: short text beside the mark, such as a score.
    """

    row: float
    column: float
    radius: float
    kind: MarkKind
    label: str = ""


@dataclass(frozen=True)
class Picture:
    """An image, or a part of it, with marks.

    Attributes:
        image: (H,W) uint8 grey or (H,W,3) uint8 RGB. Pictures that share one array share its place in the file.
        alt: what is to be seen, for those who cannot see it.
        caption: stands below the picture.
        marks: drawn over the image.
        crop: row, column, height and width of the part that is shown; None for the whole image.
        zoom: pixels of the screen for a pixel of the image.
    """

    image: np.ndarray
    alt: str
    caption: str = ""
    marks: tuple[Mark, ...] = ()
    crop: tuple[int, int, int, int] | None = None
    zoom: float = 1.0


@dataclass(frozen=True)
class Strip:
    """Pictures side by side that belong together, such as those of one image.

    Attributes:
        title: stands above them.
        pictures: from left to right, in as many lines as they need.
        together: number of neighbours that no end of a line parts, such as 2 for pairs.
    """

    title: str
    pictures: tuple[Picture, ...]
    together: int = 1


@dataclass(frozen=True)
class Pictures:
    """Strips of pictures, one below the other, with a legend of the marks in them."""

    strips: tuple[Strip, ...]
    caption: str = ""


Block = Text | Facts | Table | Chart | Choice | Pictures


@dataclass(frozen=True)
class Section:
    """A part of a page with a heading, which the navigation of the page leads to."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: the heading, and the title of the browser's window.
        summary: what the reader should know first, in one or two sentences.
        sections: in their order.
        reload_seconds: the page loads itself again after so many seconds; None for a page that is final.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    reload_seconds: int | None = None
