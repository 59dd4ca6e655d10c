"""Which of a source's files are annotations, by their content, and which format is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from semprior.data.finding.unread import counted
from semprior.data.formats import coco, cvat, datumaro, labelme, tables, text_files, voc
from semprior.data.formats.marks import Annotations, FindImage
from semprior.data.formats.parsing import LARGEST
from semprior.data.image_tables import GROUP_TABLE, SUBSET_TABLE
from semprior.data.importing.source import Source, folder_role
from semprior.errors import UserError
from semprior.reading.csv_text import foreign_rows
from semprior.reading.files import read_foreign_text
from semprior.reading.json_text import parse_json
from semprior.reading.xml_text import read_xml

Read = Callable[[Any, FindImage], Annotations]

READERS: dict[str, Read] = {
    "voc": voc.read,
    "coco": coco.read,
    "datumaro": datumaro.read,
    "labelme": labelme.read,
    "cvat": cvat.read,
    "yolo": text_files.read_yolo,
    "csv": tables.read,
    "points": text_files.read_points,
}
"""Readers by the names of formats, which ``--format`` takes; ``points`` also stands for images of points."""

_OTHER_TABLES = (".xlsx", ".xls", ".ods", ".parquet", ".pkl", ".h5")

FORMATS = ("auto", "masks", *READERS)

Found = dict[str, list[tuple[Path, object]]]


def find_annotations(source: Source) -> Found:
    """The annotation files of a source with their parsed contents, by format.

    Raises:
        UserError: a file cannot be parsed.
    """
    found: Found = defaultdict(list)
    empty: list[Path] = []
    for path in source.others:
        suffix = path.suffix.lower()
        if suffix == ".xml":
            root = read_xml(path, LARGEST)
            kind = {voc.ROOT: "voc", cvat.ROOT: "cvat"}.get(root.tag, "")
            found[kind].append((path, root))
        elif suffix == ".json":
            content: object = parse_json(read_foreign_text(path, LARGEST), object, str(path))
            kinds = {"coco": coco, "labelme": labelme, "datumaro": datumaro}
            kind = next((kind for kind, module in kinds.items() if module.recognises(content)), "")
            found[kind].append((path, content))
        elif suffix in (".csv", ".tsv") and path.name not in (GROUP_TABLE, SUBSET_TABLE):
            rows = foreign_rows(read_foreign_text(path, LARGEST), str(path))
            kind = "csv" if rows and _names_targets(path, rows) else ""
            found[kind].append((path, rows))
        elif suffix == ".txt" and source.find_image(str(path.relative_to(source.root))) is not None:
            role, key = folder_role(source, path)
            if role == "points" and key != source.points:
                continue  # another folder of points is read
            lines = text_files.words(path)
            kind = text_files.kind_of(lines) or ""
            if kind == "empty":
                empty.append(path)
            else:
                found[kind].append((path, lines))
        elif suffix == ".txt":
            rows = _table_in(path)
            if rows:
                found["csv"].append((path, rows))
        elif suffix in _OTHER_TABLES:
            found[""].append((path, None))
    around = {path.parent: kind for kind in ("points", "yolo") for path, _ in found[kind]}
    for path in empty:  # no target; of the format of the files around it
        found[around.get(path.parent, "yolo")].append((path, []))
    unread = found.pop("", [])
    for path, content in unread:  # that its image has no targets would be wrong
        meant = around.get(path.parent, folder_role(source, path)[0])
        if path.suffix.lower() == ".txt" and meant in ("points", "yolo"):
            text_files.refuse(path, cast(text_files.Lines, content), meant)
    if unread:
        first = unread[0][0].relative_to(source.root)
        paths = [path for path, _ in unread]
        source.notes.append(f"not read: {first if len(paths) == 1 else f'{counted(paths)}, such as {first}'}")
    return {kind: files for kind, files in found.items() if files}


def _table_in(path: Path) -> tables.Rows:
    """The rows of a text file that is a table of targets; none of any other."""
    try:
        rows = foreign_rows(read_foreign_text(path, LARGEST), str(path))
        return rows if rows and tables.columns(rows[0][1]) is not None else []
    except UserError:
        return []


def _names_targets(path: Path, rows: tables.Rows) -> bool:
    try:
        return tables.columns(rows[0][1]) is not None
    except UserError as error:
        raise UserError(f"{path}: line 1: {error}") from error


def choose_format(source: Source, found: Found, asked: str) -> str:
    """The format to read: the one asked for, or the only one that was found; ``masks`` if there is none.

    Raises:
        UserError: several formats were found, or not the one that was asked for.
    """
    present = sorted(found.keys() | ({"points"} if source.marks else set()))
    if asked == "auto":
        if len(present) > 1:
            example = ", ".join(
                f"{kind} ({found[kind][0][0].relative_to(source.root) if kind in found else f'{source.points}/'})"
                for kind in present
            )
            raise UserError(f"{source.root}: holds annotations in several formats, {example}; choose with --format")
        return present[0] if present else "masks"
    if asked not in FORMATS:
        raise UserError(f"--format {asked}: unknown; there are {', '.join(FORMATS)}")
    if asked == "masks" and not source.masks:
        raise UserError(f"{source.root}: holds no masks that fit its images")
    if asked != "masks" and asked not in present:
        raise UserError(
            f"{source.root}: holds no annotations of the format {asked}; found: {', '.join(present) or 'none'}"
        )
    return asked
