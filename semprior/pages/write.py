"""A page as one HTML file: escaped texts, charts with Plotly inside, pictures as data, no access to any network.

A Content-Security-Policy in the page forbids every request; the only scripts that run are the page's own and Plotly,
whose hashes it names.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, get_args

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from semprior.errors import StorageError
from semprior.io.atomic_files import write_atomically
from semprior.io.foreign_text import page_text
from semprior.pages.blocks import Block, Cell, Chart, Choice, MarkKind, Page, Picture, Pictures, Section, Table

LARGEST_SIDE = 640
"""Height and width to which a whole image is reduced; parts of it are shown pixel by pixel."""
_LABEL_PIXELS = 13  # height of the text beside a mark, on the screen
_LABEL_WIDTH = 0.65  # of a digit, as a share of the height
_CHART_HEIGHT = 420
_PLOTLY_TAG = re.compile(r"<(?!/?(?:br|b|i|sub|sup|extra)\s*/?>)")
"""What begins a tag in a text of a chart, except for tags that Plotly knows: it drops others with their content."""
_CLOSED = "default-src 'none'; connect-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'"


def write_page(page: Page, path: Path) -> None:
    """Write a page as one file, which replaces that of before at once.

    Raises:
        StorageError: the file cannot be written.
    """
    content = render_page(page).encode("utf-8")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def render_page(page: Page) -> str:
    """The HTML of a page."""
    images, numbers = _Images(), count()
    sections = [
        {
            "title": section.title,
            "anchor": anchor,
            "blocks": [_rendered(block, images, numbers) for block in section.blocks],
        }
        for section, anchor in zip(page.sections, _anchors(page.sections), strict=True)
    ]
    charts = any(isinstance(block, Chart | Choice) for section in page.sections for block in section.blocks)
    script = _asset("page.js")
    scripts = [_hash(script)]
    if charts:
        scripts += [_plotly()[1], "'unsafe-eval'"]  # Plotly compiles the shaders of parallel coordinates
    return _template().render(
        page=page,
        sections=sections,
        images=images.found,
        css=Markup(_asset("page.css")),
        script=Markup(script),
        plotly=Markup(_plotly()[0]) if charts else None,
        policy=f"{_CLOSED}; script-src {' '.join(scripts)}",
    )


def _anchors(sections: tuple[Section, ...]) -> list[str]:
    """A distinct anchor for each section, made of its title."""
    taken: list[str] = []
    for number, section in enumerate(sections, 1):
        name = "-".join(re.findall(r"[a-z0-9]+", section.title.lower())) or "section"
        taken.append(f"{name}-{number}" if name in (*taken, "main") else name)
    return taken


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("semprior.pages", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: page_text(value) if type(value) is str else value,
    )
    return environment.get_template("page.html.j2")


@cache
def _asset(name: str) -> str:
    return files("semprior.pages").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _plotly() -> tuple[str, str]:
    """Plotly's script as base64 of gzip, which is less than half as long, and its hash."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    packed = gzip.compress(source.encode("utf-8"), mtime=0)
    return base64.b64encode(packed).decode("ascii"), _hash(source)


def _hash(script: str) -> str:
    """A script's source expression in the policy of the page."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _rendered(block: Block, images: _Images, numbers: Iterator[int]) -> tuple[str, Any]:
    """The name of a block's type, and what the template shows of it."""
    kind = type(block).__name__
    if isinstance(block, Table):
        return kind, _table(block)
    if isinstance(block, Chart):
        return kind, _chart(block, f"chart-{next(numbers)}")
    if isinstance(block, Choice):
        charts = [(name, _chart(chart, f"chart-{next(numbers)}")) for name, chart in block.charts]
        return kind, {"label": block.label, "charts": charts}
    if isinstance(block, Pictures):
        strips = []
        for strip in block.strips:
            shown = [images.shown(picture) for picture in strip.pictures]
            groups = [shown[start : start + strip.together] for start in range(0, len(shown), strip.together)]
            strips.append({"title": strip.title, "groups": groups})
        marked = {mark.kind for strip in block.strips for picture in strip.pictures for mark in picture.marks}
        kinds = [kind for kind in get_args(MarkKind) if kind in marked]
        return kind, {"caption": block.caption, "strips": strips, "kinds": kinds}
    return kind, block


def _table(table: Table) -> dict[str, Any]:
    rows = []
    for index, row in enumerate(table.rows):
        cells = []
        for column, given in zip(table.columns, row, strict=True):
            cell = given if isinstance(given, Cell) else Cell(given, _number(given) if column.numeric else None)
            value = cell.value if cell.value is not None and np.isfinite(cell.value) else None
            cells.append({"text": cell.text, "hint": cell.hint, "value": value, "numeric": column.numeric})
        rows.append({"cells": cells, "highlighted": index in table.highlighted})
    return {"caption": table.caption, "columns": table.columns, "rows": rows}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _chart(chart: Chart, identifier: str) -> dict[str, Any]:
    from plotly.utils import PlotlyJSONEncoder

    specification = chart.figure.to_plotly_json()
    layout = specification["layout"]
    layout.pop("template", None)
    text = json.dumps({"data": specification["data"], "layout": layout}, cls=PlotlyJSONEncoder)
    return {
        "id": identifier,
        "height": int(layout.get("height") or _CHART_HEIGHT),
        "json": Markup(_script_text(_PLOTLY_TAG.sub("&lt;", text))),
        "description": chart.description,
        "caption": chart.caption,
        "data": _table(chart.data) if chart.data else None,
    }


def _script_text(json_text: str) -> str:
    """JSON that no HTML ends, with the same value."""
    return json_text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


@dataclass(frozen=True)
class _Embedded:
    """An image that the page holds once: its name, size in pixels, and data."""

    id: str
    width: int
    height: int
    uri: str


class _Images:
    """The images of a page, each embedded once however many pictures show it."""

    def __init__(self) -> None:
        self.found: list[_Embedded] = []
        self._known: dict[bytes, _Embedded] = {}

    def shown(self, picture: Picture) -> dict[str, Any]:
        """What the template needs for a picture."""
        small = _reduced(picture)
        height, width = small.image.shape[:2]
        top, left, rows, columns = small.crop or (0, 0, height, width)
        font = _LABEL_PIXELS / small.zoom
        marks = []
        for mark in small.marks:
            x, y, beside = mark.column + 0.5, mark.row + 0.5, 1.3 * mark.radius + font / 4
            width = beside + _LABEL_WIDTH * font * len(mark.label)
            # Neighbours of different kinds keep their labels apart: misses to the left, false alarms below.
            leftward = x - left >= width if mark.kind == "miss" else x + width > left + columns
            marks.append(
                {
                    "kind": mark.kind,
                    "label": mark.label,
                    "radius": round(mark.radius, 2),
                    "x": round(x, 2),
                    "y": round(y, 2),
                    "label_x": round(x - beside if leftward else x + beside, 2),
                    "label_y": round(y + font if mark.kind == "false alarm" else y - 0.3 * font, 2),
                    "anchor": "end" if leftward else "start",
                }
            )
        return {
            "image": self._embedded(small.image).id,
            "alt": small.alt,
            "caption": small.caption,
            "width": round(columns * small.zoom),
            "height": round(rows * small.zoom),
            "view": f"{left} {top} {columns} {rows}",
            "font": round(font, 2),
            "marks": marks,
        }

    def _embedded(self, image: np.ndarray) -> _Embedded:
        key = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
        if key not in self._known:
            height, width = image.shape[:2]
            self._known[key] = _Embedded(f"image-{len(self.found)}", width, height, image_uri(image))
            self.found.append(self._known[key])
        return self._known[key]


def _reduced(picture: Picture) -> Picture:
    """A picture of a very large image, with only the pixels that it shows."""
    height, width = picture.image.shape[:2]
    if max(height, width) <= LARGEST_SIDE:
        return picture
    if picture.crop is not None:
        top, left, rows, columns = picture.crop
        marks = tuple(replace(mark, row=mark.row - top, column=mark.column - left) for mark in picture.marks)
        part = picture.image[top : top + rows, left : left + columns]
        return replace(picture, image=part, crop=(0, 0, *part.shape[:2]), marks=marks)
    scale = LARGEST_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    marks = tuple(
        replace(
            mark,
            row=(mark.row + 0.5) * scale - 0.5,
            column=(mark.column + 0.5) * scale - 0.5,
            radius=mark.radius * scale,
        )
        for mark in picture.marks
    )
    small = cv2.resize(picture.image, size, interpolation=cv2.INTER_AREA)
    return replace(picture, image=small, marks=marks, zoom=picture.zoom / scale)


def image_uri(image: np.ndarray) -> str:
    """An image, (H,W) uint8 grey or (H,W,3) uint8 RGB, as a data URI of lossless WebP.

    Raises:
        ValueError: the array has another shape or dtype.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"an image of {image.shape} {image.dtype} cannot be shown on a page")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="WEBP", lossless=True, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
