"""Faults of a sweep file as one line: file, line, key, and what was expected."""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from tune.spec.yaml_document import Document, Place

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
"""What was expected, by the kind of pydantic's error."""


class KeyFault(ValueError):
    """A fault at a place that pydantic does not know of by itself.

    Args:
        place: of the fault, from the top of the file.
        text: what was expected.
    """

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.place = place

    @classmethod
    def unknown(cls, above: Place, key: str, known: Iterable[str], what: str) -> KeyFault:
        """A key that there is not."""
        return cls((*above, key), f"expected {what}{nearest(key, known)}")


def nearest(key: str, known: Iterable[str]) -> str:
    """The known key that was perhaps meant, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(known)}"


def first_fault(error: ValidationError, document: Document, model: type[BaseModel]) -> str:
    """The fault that stands first in the file, as one line.

    Args:
        error: pydantic's.
        document: what was read.
        model: what it was to be.
    """
    faults = [_fault(dict(details), model) for details in error.errors(include_url=False)]
    first = min(faults, key=lambda fault: (fault.missing, _line(document, fault.place)))
    # a value that could be one of several things has a fault for each
    same = [fault for fault in faults if fault.place == first.place and fault.given == first.given]
    text = " or ".join(dict.fromkeys(fault.text for fault in same)) if first.given is not None else first.text
    text = text if first.given is None else f"expected {text}, not {first.given}"
    key = ": ".join(str(part) for part in first.place)
    return f"{document.at(first.place)}: {key}: {text}" if key else f"{document.at(())}: {text}"


@dataclass(frozen=True)
class _Fault:
    """A place and what is wrong there; where a value was given, the text is what was expected instead."""

    place: Place
    text: str
    given: str | None = None
    missing: bool = False


def _line(document: Document, place: Place) -> tuple[int, int]:
    for end in range(len(place), -1, -1):
        if place[:end] in document.lines:
            return document.lines[place[:end]], len(place)
    return 0, 0


def _fault(details: dict[str, Any], model: type[BaseModel]) -> _Fault:
    place, parent = _real_place(tuple(details["loc"]), model)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "value_error":
        raised = context["error"]
        return _Fault(raised.place if isinstance(raised, KeyFault) else place, str(raised))
    if kind == "missing":
        return _Fault(place[:-1], f"expected the key '{place[-1]}'", missing=True)
    given = json.dumps(details["input"], default=str)
    if kind == "extra_forbidden":
        names = [field.alias or name for name, field in parent.model_fields.items()] if parent else []
        return _Fault(place, f"unknown key{nearest(str(place[-1]), names)}")
    if kind == "literal_error":
        return _Fault(place, context["expected"].replace("'", ""), given)
    if kind in ("too_short", "too_long"):
        return _Fault(place, "a list of 2, [low, high]", given)
    for name, words in {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}.items():
        if name in context:
            return _Fault(place, f"a number {words} {context[name]:g}", given)
    return _Fault(place, _EXPECTED.get(kind, details["msg"]), given)


def _real_place(loc: tuple[str | int, ...], model: type[BaseModel]) -> tuple[Place, type[BaseModel] | None]:
    """The place without the names that pydantic gives to the members of a union, and the part that holds it."""
    place: list[str | int] = []
    inside: Any = model
    parent: type[BaseModel] | None = None
    for part in loc:
        fields = {f.alias or n: f.annotation for n, f in inside.model_fields.items()} if _is_part(inside) else None
        if fields is not None:
            parent = inside
            place.append(part)
            inside = fields.get(str(part))
        elif isinstance(part, int):
            place.append(part)
        elif _mapped(inside) is not None:
            place.append(part)
            inside = _mapped(inside)
    return tuple(place), parent


def _is_part(hint: Any) -> bool:  # noqa: ANN401
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _mapped(hint: Any) -> Any:  # noqa: ANN401
    """What a mapping's values are; none for anything else."""
    arguments = typing.get_args(hint)
    return arguments[1] if len(arguments) == 2 and hasattr(typing.get_origin(hint), "keys") else None
