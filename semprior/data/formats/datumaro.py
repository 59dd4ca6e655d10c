"""Datumaro, the JSON export of CVAT: ``items``, each with ``annotations`` of boxes (left, top, width, height)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semprior.data.formats.marks import Annotations, FindImage, Mark, extent
from semprior.data.formats.parsing import number, size, text
from semprior.errors import UserError
from semprior.reading.schema import shown_key


def recognises(content: object) -> bool:
    """Whether the content of a JSON file is of this format."""
    return isinstance(content, dict) and isinstance(content.get("items"), list) and "categories" in content


def read(files: Sequence[tuple[Path, Any]], find_image: FindImage) -> Annotations:
    """Boxes, points, and the extents of polygons; files named for splits, such as ``train.json``, tell the splits.

    Args:
        files: with their parsed contents.
        find_image: names images.

    Raises:
        UserError: an entry lacks a key or holds a value of another type.
    """
    found = Annotations()
    for path, content in files:
        names = []
        try:
            for item in content["items"]:
                given = text(item["id"], f"{path}: id")
                name = find_image(given)
                if name is None:
                    found.strangers.append(given)
                    continue
                found.claim(name, given, str(path))
                names.append(name)
                height, width = (item.get("image") or {}).get("size") or (0, 0)
                if declared := size(width, height):
                    found.sizes[name] = declared
                marks = [_mark(f"{path}: item {shown_key(given)}", entry, found) for entry in item["annotations"]]
                found.add(name, [mark for mark in marks if mark is not None])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path}: not as Datumaro writes it ({type(error).__name__}: {error})") from error
        found.note_splits(path, names)
    return found


def _mark(where: str, entry: Mapping[str, Any], found: Annotations) -> Mark | None:
    kind = entry["type"]
    if kind == "bbox":
        left, top, width, height = (number(value, where) for value in entry["bbox"])
        mark = Mark(where, box=(left, top, left + width, top + height))
    elif kind in ("points", "polygon"):
        values = [number(value, where) for value in entry["points"]]
        corners = list(zip(values[::2], values[1::2], strict=True))
        if kind == "points" and len(corners) == 1:
            mark = Mark(where, point=(corners[0][0] - 0.5, corners[0][1] - 0.5))
        else:
            mark = Mark(where, box=extent(corners))
    else:
        note = f"annotations of the type {shown_key(text(kind, where))} are not read"
        found.notes += [] if note in found.notes else [note]
        return None
    found.labels[text(entry.get("label_id", ""), where)] += 1
    return mark
