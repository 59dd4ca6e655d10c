"""YAML that remembers on which line everything stands, for errors that name it.

Read with PyYAML's safe loader: a file gives plain values and nothing else. A key that stands twice in a mapping, which
YAML's readers let pass with the last one winning, is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from semprior.errors import UserError

Place = tuple[str | int, ...]
"""The way to a value: keys of mappings and positions in lists, from the top."""

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True)
class Document:
    """A file's content.

    Attributes:
        source: what errors call the file.
        content: plain values.
        lines: line, from 1, of each place; empty for what was not read from a file.
        outside: what errors call a place that was set elsewhere than in the file.
    """

    source: str
    content: Any
    lines: dict[Place, int] = field(default_factory=dict)
    outside: Mapping[Place, str] = field(default_factory=dict)

    def at(self, place: Place) -> str:
        """``FILE:LINE`` of a place, or of what encloses it; without the line where none is known."""
        if place in self.outside:
            return self.outside[place]
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                return f"{self.source}:{self.lines[place[:end]]}"
        return self.source


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        UserError: it cannot be read, is not YAML, or has a key twice; one line with file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not a text file") from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines: dict[Place, int] = {}
        content = _plain(loader, node, (), lines, str(path), ()) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}{line}: is not valid YAML: {problem}") from error
    return Document(str(path), content, lines)


def _plain(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    place: Place,
    lines: dict[Place, int],
    source: str,
    around: tuple[yaml.Node, ...],
) -> Any:  # noqa: ANN401
    here = f"{source}:{node.start_mark.line + 1}"
    lines.setdefault(place, node.start_mark.line + 1)
    if any(node is outer for outer in around):
        raise UserError(f"{here}: an alias names what it stands in")
    around = (*around, node)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise UserError(f"{here}: expected plain values, not {node.tag}")
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*place, i), lines, source, around) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    found: dict[Hashable, Any] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        key = loader.construct_object(name, deep=True)
        if not isinstance(key, str):
            raise UserError(f"{source}:{line}: a key must be text, not {key!r}")
        if key in found:
            raise UserError(f"{source}:{line}: the key '{key}' stands twice; it was on line {lines[(*place, key)]}")
        lines[(*place, key)] = line
        found[key] = _plain(loader, value, (*place, key), lines, source, around)
    return found
