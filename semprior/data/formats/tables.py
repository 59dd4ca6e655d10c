"""Tables (CSV) with a row per target: its image, and a point or a box under any usual names of columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from semprior.data.formats.marks import SPLIT_WORDS, Annotations, FindImage, Mark, find_beside
from semprior.data.formats.parsing import number
from semprior.errors import UserError
from semprior.reading.schema import shown, shown_key

Rows = list[tuple[int, list[str]]]

NAMES = {
    "name": (
        *("name", "image", "imagename", "filename", "file", "imageid", "imagefile", "img", "imgname", "path", "frame"),
        *("imagepath", "imgpath", "filepath", "imgid", "imgfile", "imagefilename", "frameid", "framename"),
    ),
    "x": (
        *("x", "col", "column", "cx", "xcenter", "centerx", "xcentre", "centrex", "px", "u", "xc", "pointx", "xpx"),
        *("xpos", "posx", "xcoord", "coordx", "xpixel", "pixelx", "targetx"),
    ),
    "y": (
        *("y", "row", "line", "cy", "ycenter", "centery", "ycentre", "centrey", "py", "v", "yc", "pointy", "ypx"),
        *("ypos", "posy", "ycoord", "coordy", "ypixel", "pixely", "targety"),
    ),
    "left": ("left", "xmin", "x1", "xtl", "minx", "x0", "bboxx1", "bboxleft", "bboxx", "bboxxmin", "xleft"),
    "top": ("top", "ymin", "y1", "ytl", "miny", "y0", "bboxy1", "bboxtop", "bboxy", "bboxymin", "ytop"),
    "right": ("right", "xmax", "x2", "xbr", "maxx", "bboxx2", "bboxright", "bboxxmax", "xright"),
    "bottom": ("bottom", "ymax", "y2", "ybr", "maxy", "bboxy2", "bboxbottom", "bboxymax", "ybottom"),
    "width": ("width", "w", "boxwidth", "bboxw", "bboxwidth"),
    "height": ("height", "h", "boxheight", "bboxh", "bboxheight"),
    "label": ("label", "class", "classname", "category", "type"),
    "split": ("split", "subset", "set", "partition", "phase"),
}
"""Spellings of columns, in lower case without blanks, hyphens and underscores."""


def columns(header: Sequence[str]) -> dict[str, int] | None:
    """The position of each known column, if they tell a point or a box of a named image; else None.

    Raises:
        UserError: two columns mean the same.
    """
    found: dict[str, int] = {}
    for position, cell in enumerate(header):
        plain = re.sub(r"[\s_-]|\(.*\)|\[.*\]", "", cell).lower()
        for meaning, spellings in NAMES.items():
            if plain in spellings:
                if meaning in found and meaning not in ("label", "split"):  # which are not needed
                    one, other = shown(header[found[meaning]]), shown(cell)
                    raise UserError(f"{one} and {other} both seem to be the {meaning}; rename one")
                found.setdefault(meaning, position)
    corner = {"left", "top"} <= found.keys()
    sized = {"width", "height"} <= found.keys()
    box = corner and ({"right", "bottom"} <= found.keys() or sized)
    return found if "name" in found and (box or {"x", "y"} <= found.keys()) else None


def read(files: Sequence[tuple[Path, Rows]], find_image: FindImage) -> Annotations:
    """Points, boxes, or both.

    ``right`` and ``bottom`` are the last column and row of a box. ``width`` and ``height`` are those of a box where
    ``left`` and ``top`` are given without them, or, beside ``x`` and ``y``, where the names say so (``cx,cy,w,h``);
    otherwise beside ``x`` and ``y`` they could be anything and are refused. If every number is within 0..1 and some
    are fractions, they are shares of the image's size.

    A column of splits, or names of files such as ``train.csv``, tell the splits.

    Args:
        files: with their rows, the header first.
        find_image: names images.

    Raises:
        UserError: a row has another number of values than the header, or a value is no number.
    """
    found = Annotations()
    for path, rows in files:
        (_, header), *body = rows
        try:
            place = columns(header)
        except UserError as error:
            raise UserError(f"{path}: line 1: {error}") from error
        assert place is not None  # it was recognised by them
        marks, names = [], []
        for line, cells in body:
            where = f"{path}: line {line}"
            if len(cells) != len(header):
                raise UserError(f"{where}: {len(cells)} values instead of {len(header)}")
            name = find_beside(find_image, cells[place["name"]], path)
            if name is None:
                found.strangers.append(cells[place["name"]])
                continue
            found.claim(name, cells[place["name"]], where)
            values = {
                key: number(cells[position], where)
                for key, position in place.items()
                if key not in ("name", "label", "split") and cells[position]
            }
            found.add(name, [])
            if split := SPLIT_WORDS.get(cells[place["split"]].lower() if "split" in place else ""):
                found.splits.setdefault(split, []).append(name)
            else:
                names.append(name)
            if values:
                marks.append((name, where, values))
                found.labels[cells[place["label"]] if "label" in place else ""] += 1
        found.note_splits(path, names)
        _add(path, header, place, marks, found)
    return found


def _add(
    path: Path,
    header: Sequence[str],
    place: dict[str, int],
    rows: Sequence[tuple[str, str, dict[str, float]]],
    found: Annotations,
) -> None:
    sized = {"width", "height"} <= place.keys() and not {"right", "bottom"} <= place.keys()
    centred = sized and not {"left", "top"} <= place.keys()
    if centred and not header[place["x"]].lower().startswith(("c", "xc", "x_c", "x c")):
        raise UserError(
            f"{path}: line 1: {shown_key(', '.join(header))}: is x, y the centre or a corner of the box? Name them"
            " cx, cy or left, top, or leave width and height out"
        )
    numbers = [value for _, _, values in rows for key, value in values.items() if key not in ("width", "height")]
    shares = bool(numbers) and max(numbers) <= 1 and min(numbers) >= 0 and any(value % 1 for value in numbers)
    last = 0.0 if shares else 1.0
    for name, where, values in rows:
        box = None
        if {"left", "top", "right", "bottom"} <= values.keys():
            box = (values["left"], values["top"], values["right"] + last, values["bottom"] + last)
        elif sized and {"left", "top", "width", "height"} <= values.keys():
            box = (
                values["left"],
                values["top"],
                values["left"] + values["width"],
                values["top"] + values["height"],
            )
        elif centred and {"x", "y", "width", "height"} <= values.keys():
            across, down, half = values["width"] / 2, values["height"] / 2, last / 2
            x, y = values["x"] + half, values["y"] + half
            box = (x - across, y - down, x + across, y + down)
        point = (values["x"], values["y"]) if {"x", "y"} <= values.keys() else None
        if box is None and point is None:
            raise UserError(f"{where}: gives neither a point nor a box")
        found.add(name, [Mark(where, point, box, shares)])
    if rows:
        taken = ", ".join(f"{header[position]} = {key}" for key, position in place.items())
        found.notes.append(f"{path.name}: columns are read as {taken}{'; shares of the image' if shares else ''}")
