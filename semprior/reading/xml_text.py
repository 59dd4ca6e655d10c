"""XML -> elements, without entities."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from semprior.errors import UserError
from semprior.reading.files import LARGEST_TEXT, read_bytes

DEEPEST = 100  # elements within one another


def read_xml(path: Path, limit: int = LARGEST_TEXT) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        UserError: the file cannot be read, is not XML, declares a document type or entities, or is nested too deeply.
    """
    content = read_bytes(path, limit)
    depth = 0

    def refuse(*_: object) -> None:
        raise UserError(f"{path}: declares a document type or entities, which are not read")

    def enter(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise UserError(f"{path}: elements lie deeper than {DEEPEST} within one another")

    def leave(*_: object) -> None:
        nonlocal depth
        depth -= 1

    try:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = refuse
        parser.EntityDeclHandler = refuse
        parser.StartElementHandler, parser.EndElementHandler = enter, leave
        parser.Parse(content, True)
        return ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path}: not XML ({' '.join(str(error).split())[:120]})") from error
