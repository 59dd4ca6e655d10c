"""Pascal VOC: an XML file per image, with boxes from (xmin, ymin) to (xmax, ymax), inclusive and counted from 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from semprior.data.formats.marks import Annotations, Box, FindImage, Mark
from semprior.data.formats.parsing import number, size

ROOT = "annotation"


def read(files: Sequence[tuple[Path, Element]], find_image: FindImage) -> Annotations:
    """The boxes of all objects.

    Many tools write the format with coordinates counted from 0. A zero anywhere tells them: then all boxes are read so.

    Args:
        files: with their parsed roots, ``<annotation>``.
        find_image: names images; the name of the XML file counts before its ``<filename>``.

    Raises:
        UserError: a coordinate is missing or no number.
    """
    found, given = Annotations(), []
    for path, root in files:
        name = find_image(str(path)) or find_image((root.findtext("filename") or "").strip())
        if name is None:
            found.strangers.append(path.name)
            continue
        found.claim(name, str(path), str(path))
        found.add(name, [])
        if declared := size(root.findtext("size/width"), root.findtext("size/height")):
            found.sizes[name] = declared
        for index, thing in enumerate(root.iter("object"), 1):
            where = f"{path}: object {index}"
            box = thing.find("bndbox")
            corners = [None if box is None else box.findtext(key) for key in ("xmin", "ymin", "xmax", "ymax")]
            given.append((name, where, [number(corner, where) for corner in corners]))
            found.labels[(thing.findtext("name") or "").strip()] += 1
    first = 0 if any(min(corners[:2]) < 1 for _, _, corners in given) else 1
    for name, where, (left, top, right, bottom) in given:
        box_edges: Box = (left - first, top - first, right - first + 1, bottom - first + 1)
        found.add(name, [Mark(where, box=box_edges)])
    if given:
        found.notes.append(f"boxes are read as counted from {first}, last row and column included")
    return found
