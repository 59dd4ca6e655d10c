"""CVAT for images: one XML file with an element per image that holds boxes, points and polygons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from semprior.data.formats.marks import SPLIT_WORDS, Annotations, Box, FindImage, Mark, extent, find_beside
from semprior.data.formats.parsing import number, size
from semprior.errors import UserError
from semprior.reading.schema import shown_key

ROOT = "annotations"
_SHAPES = ("box", "points", "polygon", "ellipse", "polyline", "mask")


def read(files: Sequence[tuple[Path, Element]], find_image: FindImage) -> Annotations:
    """Points, and boxes of the other shapes: their extents.

    Subsets, or names of files such as ``train.xml``, tell the splits.

    Args:
        files: with their parsed roots, ``<annotations>``.
        find_image: names images.

    Raises:
        UserError: a coordinate is missing or no number.
    """
    found, unread = Annotations(), Counter[str]()
    for path, root in files:
        names = []
        if root.find("track") is not None:
            raise UserError(f"{path}: holds tracks of a video; export it as CVAT for images")
        for image in root.iter("image"):
            given = image.get("name", "")
            name = find_beside(find_image, given, path)
            if name is None:
                found.strangers.append(given)
                continue
            found.claim(name, given, str(path))
            found.add(name, [])
            if declared := size(image.get("width"), image.get("height")):
                found.sizes[name] = declared
            if split := SPLIT_WORDS.get(image.get("subset", "").lower()):
                found.splits.setdefault(split, []).append(name)
            else:
                names.append(name)
            for shape in image:
                if shape.tag in _SHAPES:
                    own = _marks(f"{path}: {shape.tag} in {shown_key(given)}", shape)
                    found.add(name, own)
                    found.labels[shape.get("label", "")] += len(own)
                elif shape.tag != "tag":
                    unread[shape.tag] += 1
        found.note_splits(path, names)
    found.notes += [f"annotations of the type {shown_key(kind)} are not read: {n}" for kind, n in unread.items()]
    return found


def _marks(where: str, shape: Element) -> list[Mark]:
    if shape.tag == "box":
        left, top, right, bottom = (number(shape.get(key), where) for key in ("xtl", "ytl", "xbr", "ybr"))
        return [Mark(where, box=_turned((left, top, right, bottom), number(shape.get("rotation", 0), where)))]
    if shape.tag == "mask":
        left, top, width, height = (number(shape.get(key), where) for key in ("left", "top", "width", "height"))
        return [Mark(where, box=(left, top, left + width, top + height))]
    if shape.tag == "ellipse":
        x, y, across, down = (number(shape.get(key), where) for key in ("cx", "cy", "rx", "ry"))
        box = (x - across, y - down, x + across, y + down)
        return [Mark(where, box=_turned(box, number(shape.get("rotation", 0), where)))]
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{where}: its points are not x,y;x,y")
    corners = [(number(x, where), number(y, where)) for x, y in pairs]
    if shape.tag == "points":
        return [Mark(where, point=(x - 0.5, y - 0.5)) for x, y in corners]
    return [Mark(where, box=extent(corners))]


def _turned(box: Box, degrees: float) -> Box:
    """The extent of a box that is turned around its centre."""
    if not degrees:
        return box
    left, top, right, bottom = box
    x, y, angle = (left + right) / 2, (top + bottom) / 2, math.radians(degrees)
    across, down = (right - left) / 2, (bottom - top) / 2
    wide = abs(across * math.cos(angle)) + abs(down * math.sin(angle))
    high = abs(across * math.sin(angle)) + abs(down * math.cos(angle))
    return x - wide, y - high, x + wide, y + high
