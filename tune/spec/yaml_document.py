"""YAML documents that remember the line of each key, so that errors can name it.

Files are read with PyYAML's safe loader and contain plain values only. A key that occurs twice in a mapping is refused,
where PyYAML would silently use the last one.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from semprior.errors import UserError

KeyPath = tuple[str | int, ...]
"""The keys of mappings and indices of lists that lead from the top of a document to a value."""

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass(frozen=True)
class Document:
    """The content of a file.

    Attributes:
        source: name of the file in error messages.
        content: plain values.
        lines: line number, from 1, of each key path; empty if the content was not read from a YAML file.
        outside: how errors name the key paths that were set elsewhere than in the file.
    """

    source: str
    content: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    outside: Mapping[KeyPath, str] = field(default_factory=dict)

    def location(self, path: KeyPath) -> str:
        """``FILE:LINE`` of a key path, or of its closest known parent; ``FILE`` if no line is known."""
        if path in self.outside:
            return self.outside[path]
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return f"{self.source}:{self.lines[path[:length]]}"
        return self.source


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        UserError: the file cannot be read, is not YAML, or contains a key twice.
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
        lines: dict[KeyPath, int] = {}
        content = _construct(loader, node, (), lines, str(path), ()) if node is not None else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}{line}: is not valid YAML: {problem}") from error
    return Document(str(path), content, lines)


def _construct(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    key_path: KeyPath,
    lines: dict[KeyPath, int],
    source: str,
    ancestors: tuple[yaml.Node, ...],
) -> Any:  # noqa: ANN401  # whatever the file contains
    """The plain value of a node; `lines` receives the line of each key path in it."""
    location = f"{source}:{node.start_mark.line + 1}"
    lines.setdefault(key_path, node.start_mark.line + 1)
    if any(node is outer for outer in ancestors):
        raise UserError(f"{location}: an alias refers to a value that contains it")
    ancestors = (*ancestors, node)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise UserError(f"{location}: expected plain values, not {node.tag}")
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*key_path, i), lines, source, ancestors) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    content: dict[Hashable, Any] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        key = loader.construct_object(name, deep=True)
        if not isinstance(key, str):
            raise UserError(f"{source}:{line}: a key must be text, not {key!r}")
        if key in content:
            raise UserError(
                f"{source}:{line}: the key '{key}' occurs twice; it is also on line {lines[(*key_path, key)]}"
            )
        lines[(*key_path, key)] = line
        content[key] = _construct(loader, value, (*key_path, key), lines, source, ancestors)
    return content
