"""A page with one block of every kind, and names that others chose."""

import numpy as np
from plotly.graph_objects import Figure, Parcoords, Scatter

from semprior.io.foreign_text import chart_name, page_name
from semprior.pages.blocks import (
    Cell,
    Chart,
    Column,
    Facts,
    Mark,
    Page,
    Picture,
    Pictures,
    Section,
    Strip,
    Table,
    Text,
)

NAMES = ("<script>alert(1)</script>.png", "صورة 12.png", "图像_3.png", "Größe.png", "a\u202egnp.exe", "'\"&amp;.png")
SCORES = (0.5, None, 0.25, 10.0, 9.0, -1.0)


def table() -> Table:
    """A table of the names with numbers and hints; twelve rows, so that it can be filtered."""
    rows = [
        (page_name(name), Cell("-" if score is None else f"{score:g}", score))
        for name, score in zip(NAMES, SCORES, strict=True)
    ]
    rows += [(Cell(f"row {number}", hint=f"hint {number}\nof two lines"), str(number)) for number in range(20, 26)]
    return Table(
        (Column("Name"), Column("Score", numeric=True, hint="Higher is better.")), tuple(rows), "Names", frozenset({2})
    )


def page(**changes) -> Page:
    """The page."""
    image = np.arange(64 * 80, dtype=np.uint32).reshape(64, 80).astype(np.uint8)
    marks = (Mark(10, 12, 4, "hit", "0.93"), Mark(30, 70, 4, "miss", "0.20"), Mark(50, 20, 4, "false alarm", "0.61"))
    pictures = (
        Picture(image, "A whole image.", page_name(NAMES[0]), marks, zoom=2),
        Picture(image, "A part.", "part", marks, (0, 0, 32, 32), 3),
    )
    curves = Figure([Scatter(x=[1, 2, 3], y=[1, 3, 2], name=chart_name(name)) for name in NAMES])
    lines = Figure(Parcoords(dimensions=[{"label": label, "values": [1, 2, 3]} for label in "ab"]))
    sections = (
        Section("Words", (Text("One.\n\nTwo."), Text("Careful.", "note"), Text("semprior train \\\n  --x", "code"))),
        Section("Facts", (Facts((("Data", page_name(NAMES[1])), ("IoU", "0.71"))),)),
        Section("Numbers", (table(),)),
        Section("Charts", (Chart(curves, "Six curves.", "A caption.", table()), Chart(lines, "Three lines."))),
        Section("Pictures", (Pictures((Strip(page_name(NAMES[0]), pictures),), "Noise."),)),
        Section("Facts", ()),
        Section("图", ()),
    )
    return Page(f"Page of {page_name(NAMES[0])}", "What it says.", sections, **changes)
