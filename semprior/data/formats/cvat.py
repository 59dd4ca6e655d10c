"""CVAT for images: one XML file with an element per image that holds boxes, points and polygons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from semprior.data.formats.marks import Annotations, FindImage, Mark, extent
from semprior.data.formats.parsing import number
from semprior.errors import UserError
from semprior.reading.schema import shown_key

ROOT = "annotations"
_SHAPES = ("box", "points", "polygon", "ellipse", "polyline")


def read(files: Sequence[tuple[Path, Element]], find_image: FindImage) -> Annotations:
    """Points, and boxes of the other shapes: their extents.

    Args:
        files: with their parsed roots, ``<annotations>``.
        find_image: names images.

    Raises:
        UserError: a coordinate is missing or no number.
    """
    found = Annotations()
    for path, root in files:
        if root.find("track") is not None:
            raise UserError(f"{path}: holds tracks of a video; export it as CVAT for images")
        for image in root.iter("image"):
            name = find_image(image.get("name", ""))
            if name is None:
                found.strangers.append(image.get("name", ""))
                continue
            found.claim(name, image.get("name", ""), str(path))
            found.add(name, [])
            for shape in image:
                if shape.tag in _SHAPES:
                    found.add(name, _marks(f"{path}: {shape.tag} in {shown_key(image.get('name', ''))}", shape))
                    found.labels[shape.get("label", "")] += 1
    return found


def _marks(where: str, shape: Element) -> list[Mark]:
    if shape.tag == "box":
        left, top, right, bottom = (number(shape.get(key), where) for key in ("xtl", "ytl", "xbr", "ybr"))
        return [Mark(where, box=(left, top, right, bottom))]
    if shape.tag == "ellipse":
        x, y, across, down = (number(shape.get(key), where) for key in ("cx", "cy", "rx", "ry"))
        return [Mark(where, box=(x - across, y - down, x + across, y + down))]
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise UserError(f"{where}: its points are not x,y;x,y")
    corners = [(number(x, where), number(y, where)) for x, y in pairs]
    if shape.tag == "points":
        return [Mark(where, point=(x - 0.5, y - 0.5)) for x, y in corners]
    return [Mark(where, box=extent(corners))]
