"""COCO: one JSON file with ``images`` and ``annotations``; a box is (left, top, width, height), counted from 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from semprior.data.formats.marks import Annotations, FindImage, Mark, find_beside
from semprior.data.formats.parsing import number, size, text
from semprior.errors import UserError
from semprior.reading.schema import shown


def recognises(content: object) -> bool:
    """Whether the content of a JSON file is of this format."""
    return isinstance(content, dict) and isinstance(content.get("images"), list) and "annotations" in content


def read(files: Sequence[tuple[Path, Any]], find_image: FindImage) -> Annotations:
    """The boxes of all annotations; files named for splits, such as ``instances_train.json``, tell the splits.

    Args:
        files: with their parsed contents.
        find_image: names images.

    Raises:
        UserError: an entry lacks a key or holds a value of another type, or two images have the same id.
    """
    found = Annotations()
    for path, content in files:
        try:
            _read_file(path, content, find_image, found)
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not as COCO writes it ({type(error).__name__}: {error})") from error
    return found


def _read_file(path: Path, content: Mapping[str, Any], find_image: FindImage, found: Annotations) -> None:
    names: dict[object, str | None] = {}
    for image in content["images"]:
        given = text(image["file_name"], f"{path}: file_name")
        if image["id"] in names:
            raise UserError(f"{path}: two images have the id {shown(image['id'])}; give each its own")
        names[image["id"]] = name = find_beside(find_image, given, path)
        if name is None:
            found.strangers.append(given)
        else:
            found.claim(name, given, str(path))
            found.add(name, [])
            if declared := size(image.get("width"), image.get("height")):
                found.sizes[name] = declared
    categories = {
        category["id"]: text(category.get("name", ""), f"{path}: categories")
        for category in content.get("categories") or ()
    }
    for index, annotation in enumerate(content["annotations"], 1):
        where = f"{path}: annotation {shown(annotation.get('id', index))}"
        if annotation["image_id"] not in names:
            raise UserError(f"{where}: no image has the id {shown(annotation['image_id'])}")
        if len(annotation["bbox"]) != 4:
            raise UserError(f"{where}: the box has {len(annotation['bbox'])} numbers instead of 4")
        left, top, width, height = (number(value, where) for value in annotation["bbox"])
        name = names[annotation["image_id"]]
        if name is not None:
            found.add(name, [Mark(where, box=(left, top, left + width, top + height))])
            found.labels[categories.get(annotation.get("category_id"), "")] += 1
    found.note_splits(path, names.values())
