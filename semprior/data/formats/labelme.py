"""LabelMe: one JSON file per image, with ``shapes`` of points, rectangles, circles and polygons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semprior.data.formats.marks import Annotations, FindImage, Mark, extent
from semprior.data.formats.parsing import number, size, text
from semprior.errors import UserError


def recognises(content: object) -> bool:
    """Whether the content of a JSON file is of this format."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read(files: Sequence[tuple[Path, Any]], find_image: FindImage) -> Annotations:
    """Points, and boxes of the other shapes: their extents.

    Args:
        files: with their parsed contents.
        find_image: names images; the name of the JSON file counts before its ``imagePath``.

    Raises:
        UserError: a shape lacks a key or holds a value of another type.
    """
    found = Annotations()
    for path, content in files:
        name = find_image(str(path)) or find_image(text(content.get("imagePath") or "", str(path)))
        if name is None:
            found.strangers.append(path.name)
            continue
        found.claim(name, str(path), str(path))
        if declared := size(content.get("imageWidth"), content.get("imageHeight")):
            found.sizes[name] = declared
        marks = []
        for index, shape in enumerate(content["shapes"], 1):
            where = f"{path}: shape {index}"
            try:
                own = _marks(where, shape)
                marks += own
                found.labels[text(shape.get("label") or "", where)] += len(own)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise UserError(f"{where}: not as LabelMe writes it ({type(error).__name__}: {error})") from error
        found.add(name, marks)
    return found


def _marks(where: str, shape: Mapping[str, Any]) -> list[Mark]:
    corners = [(number(x, where), number(y, where)) for x, y in shape["points"]]
    kind = shape.get("shape_type") or "polygon"
    if not corners:
        raise UserError(f"{where}: has no points")
    if kind in ("point", "points") or len(corners) == 1:
        return [Mark(where, point=(x - 0.5, y - 0.5)) for x, y in corners]
    if kind == "circle":
        (x, y), (x_on, y_on) = corners[:2]
        radius = math.hypot(x_on - x, y_on - y)
        return [Mark(where, box=(x - radius, y - radius, x + radius, y + radius))]
    return [Mark(where, box=extent(corners))]
