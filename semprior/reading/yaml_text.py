"""YAML documents that remember the line of each key, so that errors can name it.

Documents contain plain values only: texts, numbers, true and false, null, lists, and mappings whose keys are texts. A
date is a text. A key that occurs twice in a mapping is refused, where PyYAML would silently use the last one, and so
are aliases that expand to very many values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from semprior.errors import UserError
from semprior.reading.files import as_text, read_bytes
from semprior.reading.schema import shown

KeyPath = tuple[str | int, ...]
"""The keys of mappings and indices of lists that lead from the top of a document to a value."""

LARGEST = 1 << 20  # bytes of a file; PyYAML needs some 15 s for so many
MOST_VALUES = 200_000
_DEEPEST = 50  # brackets in each other
_LONGEST_NUMBER = 100  # characters
_TAG = "tag:yaml.org,2002:"
_COLLECTIONS = (_TAG + "map", _TAG + "seq")
_SCALARS = {
    _TAG + "str": "text",
    _TAG + "int": "a whole number",
    _TAG + "float": "a number",
    _TAG + "bool": "true or false",
    _TAG + "null": "null",
}
"""The tags of plain values, and their names."""


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

    def flat(self, *section: str) -> dict[str, Any]:
        """The values of a section, or of the whole document, by dotted keys; `lines` learns the lines of these keys.

        Raises:
            UserError: a value is given twice, as ``scam.scale`` and as ``scale`` in ``scam``.
        """
        found: dict[str, Any] = {}

        def enter(tree: Mapping[str, Any], parents: KeyPath) -> None:
            for name, value in tree.items():
                path = (*parents, name)
                if isinstance(value, dict) and value:
                    enter(value, path)
                    continue
                key = ".".join(map(str, path[len(section) :]))
                if key in found:
                    raise UserError(f"{self.location(path)}: the key {shown(key)} is given twice")
                if path in self.lines:
                    self.lines.setdefault((*section, key), self.lines[path])
                found[key] = value

        tree = self.content
        for name in section:
            tree = tree[name]
        enter(tree or {}, section)
        return found


def read_yaml(path: Path) -> Document:
    """Read a YAML file.

    Raises:
        UserError: the file cannot be read, or as `parse_yaml`.
    """
    return parse_yaml(as_text(read_bytes(path, LARGEST), str(path)), str(path))


def parse_yaml(text: str, source: str) -> Document:
    """Parse a YAML document.

    Args:
        text: the document.
        source: name of the file in error messages, which add the line.

    Raises:
        UserError: the text is not YAML, contains a key twice, a value that is not plain, or too many values.
    """
    return _parse(text, source, lambda line: f"{source}:{line}")


def parse_value(text: str, source: str) -> Any:  # noqa: ANN401
    """Parse a value that was given alone, by a flag or a variable.

    Args:
        text: the value in YAML.
        source: the flag or the variable.

    Raises:
        UserError: as `parse_yaml`.
    """
    return _parse(text, source, lambda line: source).content


def _parse(text: str, source: str, place: Callable[[int], str]) -> Document:
    try:
        if len(text) > LARGEST:
            raise UserError(f"{source}: is longer than {LARGEST >> 20} MiB")
        loader = _Loader(text)
        node = loader.get_single_node()
        builder = _Builder(loader, place)
        content = builder.value(node, (), ()) if node is not None else None
    except (RecursionError, _TooDeepError) as error:
        raise UserError(f"{source}: is nested too deeply") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{place(mark.line + 1) if mark else source}: is not valid YAML: {problem}") from error
    return Document(source, content, builder.lines)


class _TooDeepError(Exception):
    pass


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for which dates are texts, and which stops at deep brackets.

    PyYAML takes seconds for a thousand open brackets, as any of them may yet turn out to begin a key.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  # the name and kind that PyYAML expects
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TAG + "timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:  # PyYAML's name
        if self.flow_level >= _DEEPEST:
            raise _TooDeepError
        super().fetch_flow_collection_start(TokenClass)


class _Builder:
    """Makes plain values of the nodes of a document, and notes the line of each key path."""

    def __init__(self, loader: yaml.SafeLoader, place: Callable[[int], str]) -> None:
        self._loader, self._place = loader, place
        self._count = 0
        self.lines: dict[KeyPath, int] = {}

    def value(self, node: yaml.Node, path: KeyPath, ancestors: tuple[yaml.Node, ...]) -> Any:  # noqa: ANN401
        """The value of a node."""
        place = self._place(node.start_mark.line + 1)
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._count += 1  # also of what an alias repeats
        if self._count > MOST_VALUES:
            raise UserError(f"{place}: expected at most {MOST_VALUES} values, counted wherever an alias repeats them")
        if any(node is outer for outer in ancestors):
            raise UserError(f"{place}: an alias refers to a value that contains it")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if node.tag not in _COLLECTIONS:
            raise UserError(f"{place}: expected plain values, not {shown(node.tag)}")
        ancestors = (*ancestors, node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i), ancestors) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, path, ancestors)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, ancestors: tuple[yaml.Node, ...]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for name, item in node.value:
            line = name.start_mark.line + 1
            place = self._place(line)
            if name.tag == _TAG + "merge":  # `<<: *defaults`: keys that this mapping does not have itself
                merged = {**self._merged(item, (*path, "<<"), ancestors, place), **merged}
                continue
            key = self._scalar(name, place) if isinstance(name, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise UserError(f"{place}: a key must be text, not {shown(key) if key is not None else 'a value'}")
            if key in content:
                raise UserError(
                    f"{place}: the key {shown(key)} occurs twice; it is also on line {self.lines[(*path, key)]}"
                )
            self.lines[(*path, key)] = line
            content[key] = self.value(item, (*path, key), ancestors)
        return {**merged, **content}

    def _merged(self, node: yaml.Node, path: KeyPath, ancestors: tuple[yaml.Node, ...], place: str) -> dict[str, Any]:
        found = self.value(node, path, ancestors)
        sections = found if isinstance(found, list) else [found]
        merged: dict[str, Any] = {}
        for section in sections:
            if not isinstance(section, dict):
                raise UserError(f"{place}: expected keys and values to merge (<<), not {shown(section)}")
            merged = {**section, **merged}  # of several sections the first one counts
        return merged

    def _scalar(self, node: yaml.ScalarNode, place: str) -> Any:  # noqa: ANN401
        if node.tag not in _SCALARS:
            raise UserError(f"{place}: expected plain values, not {shown(node.tag)}")
        words = _SCALARS[node.tag]
        if node.tag != _TAG + "str" and len(node.value) > _LONGEST_NUMBER:
            raise UserError(f"{place}: {shown(node.value)} is too long for {words}")
        try:
            return self._loader.construct_object(node, deep=True)
        except (ValueError, KeyError, IndexError, OverflowError) as error:  # `!!bool z`, `0b_`, `!!int x`
            raise UserError(f"{place}: {shown(node.value)} is not {words}") from error
