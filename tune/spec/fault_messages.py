"""Validation errors of a sweep file as one line that names the file, the line, the key and what was expected."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from semprior.reading.schema import shown_key
from semprior.reading.yaml_text import Document, KeyPath

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "text",
    "tuple_type": "a list",
    "dict_type": "keys and values",
    "mapping_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}
"""What was expected, by pydantic's error type."""


class LocatedError(ValueError):
    """A validation error of a key that pydantic would not name by itself.

    Args:
        path: path of the key from the top of the file.
        text: what was expected.
    """

    def __init__(self, path: KeyPath, text: str) -> None:
        super().__init__(text)
        self.path = path

    @classmethod
    def unknown(cls, parent: KeyPath, key: str, known: Iterable[str], what: str) -> LocatedError:
        """The error of an unknown key of the section at `parent`."""
        return cls((*parent, key), f"expected {what}{suggestion(key, known)}")


def suggestion(key: str, known: Iterable[str]) -> str:
    """A hint that names the most similar known key, or all known keys if none is similar."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(known)}"


def first_error(error: ValidationError, document: Document, model: type[BaseModel]) -> str:
    """The first error in the order of the file, as one line.

    Args:
        error: pydantic's validation error.
        document: the document that was validated.
        model: the model that it was validated against.
    """
    problems = [_problem(dict(details), model) for details in error.errors(include_url=False)]
    first = min(problems, key=lambda problem: (problem.missing, _line(document, problem.path)))
    text = first.text
    if first.given is not None:
        # pydantic reports one error for each type that a value could have had
        same = [problem.text for problem in problems if (problem.path, problem.given) == (first.path, first.given)]
        text = f"expected {' or '.join(dict.fromkeys(same))}, not {first.given}"
    key = ": ".join(shown_key(str(part)) for part in first.path)
    return f"{document.location(first.path)}: {key}: {text}" if key else f"{document.location(())}: {text}"


@dataclass(frozen=True)
class _Problem:
    """An invalid key. `text` is a complete message, or only what was expected if an invalid value was `given`."""

    path: KeyPath
    text: str
    given: str | None = None
    missing: bool = False


def _line(document: Document, path: KeyPath) -> tuple[int, int]:
    for length in range(len(path), -1, -1):
        if path[:length] in document.lines:
            return document.lines[path[:length]], len(path)
    return 0, 0


def _problem(details: dict[str, Any], model: type[BaseModel]) -> _Problem:
    path, parent = _key_path(tuple(details["loc"]), model)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "value_error":
        raised = context["error"]
        return _Problem(raised.path if isinstance(raised, LocatedError) else path, str(raised))
    if kind == "missing":
        return _Problem(path[:-1], f"expected the key '{path[-1]}'", missing=True)
    given = json.dumps(details["input"], default=str)
    given = given if len(given) <= 100 else f"{given[:97]}..."
    if kind == "extra_forbidden":
        names = [field.alias or name for name, field in parent.model_fields.items()] if parent else []
        return _Problem(path, f"unknown key{suggestion(str(path[-1]), names)}")
    if kind == "literal_error":
        return _Problem(path, context["expected"].replace("'", ""), given)
    if kind in ("too_short", "too_long"):
        least, most = context.get("min_length"), context.get("max_length")
        expected = "a list of 2, [low, high]" if 2 in (least, most) else "a list of at least one"
        return _Problem(path, expected, given)
    for name, words in {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}.items():
        if name in context:
            return _Problem(path, f"a number {words} {context[name]:g}", given)
    return _Problem(path, _EXPECTED.get(kind, details["msg"]), given)


def _key_path(loc: tuple[str | int, ...], model: type[BaseModel]) -> tuple[KeyPath, type[BaseModel] | None]:
    """The path of a key without pydantic's names of the members of a union, and the model of its section."""
    path: list[str | int] = []
    hint: Any = model
    parent: type[BaseModel] | None = None
    for part in loc:
        if _is_model(hint):
            parent = hint
            path.append(part)
            hint = {f.alias or name: f.annotation for name, f in hint.model_fields.items()}.get(str(part))
        elif isinstance(part, int):
            path.append(part)
        elif (member := _member(hint, part)) is not None:
            hint = member
        elif _value_type(hint) is not None:
            path.append(part)
            hint = _value_type(hint)
    return tuple(path), parent


def _member(hint: object, name: str) -> object:
    """The member of a union that pydantic calls by a name; None if there is none."""
    members = [typing.get_args(member)[0] if hasattr(member, "__metadata__") else member for member in _options(hint)]
    return next((member for member in members if getattr(member, "__name__", "") == name and _is_model(member)), None)


def _options(hint: object) -> tuple[object, ...]:
    """The members of a union, else none."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else ()


def _is_model(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _value_type(hint: Any) -> Any:  # noqa: ANN401  # type hints have no common type
    """The type of a mapping's values; None if the hint is not a mapping."""
    arguments = typing.get_args(hint)
    return arguments[1] if len(arguments) == 2 and hasattr(typing.get_origin(hint), "keys") else None
