"""Plain values, as JSON gives them -> values of an annotated type.

Example::

    @dataclass(frozen=True)
    class Entry:
        size: int
        sha256: str = ""

    checked({"size": 3}, Entry, "manifest.json")    # Entry(3)
    checked({"size": "3"}, Entry, "manifest.json")  # UserError: manifest.json: size: expected a whole number, not '3'
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from semprior.errors import UserError

T = TypeVar("T")
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    type(None): "null",
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60  # characters
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 3


def shown(value: object) -> str:
    """A value for an error message: on one line, and cut in the middle if it is long."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python converts no number of thousands of digits to text
        return "a number of thousands of digits"


def checked(value: object, hint: type[T], place: str) -> T:
    """Check that a plain value has a type, and make the dataclasses in it.

    Args:
        value: of ``dict``, ``list``, ``str``, ``int``, ``float``, ``bool`` and ``None``.
        hint: one of these types, a union, a ``Literal``, ``Any`` or ``object``, a ``Sequence``, ``tuple`` or
            ``Mapping`` of such types, a dataclass or a ``TypedDict``. Of a ``TypedDict``, ``total=False`` makes keys
            optional, and ``Required`` does not count. Keys that a dataclass or a ``TypedDict`` does not have are
            ignored, so that a newer version may write more. A ``float`` is finite; a whole number is converted to it.
        place: file, and where in it the value is.

    Raises:
        UserError: the value has another type; the message names the place and the key.
    """
    try:
        result: T = _convert(value, hint, ())
        return result
    except _MismatchError as error:
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.path).removeprefix(".")
        raise UserError(f"{place}: {f'{shown_key(key)}: ' if key else ''}{error}") from error


def shown_key(key: str) -> str:
    """A key for an error message, cut if it is long."""
    return key if len(key) <= 80 and key.isprintable() else shown(key)


class _MismatchError(Exception):
    def __init__(self, text: str, path: tuple[str | int, ...]) -> None:
        super().__init__(text)
        self.path = path


def _convert(value: Any, hint: Any, path: tuple[str | int, ...]) -> Any:  # noqa: ANN401  # values and hints of any type
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (typing.Union, types.UnionType):
        return _member(value, arguments, path)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise _MismatchError(f"expected {' or '.join(map(str, arguments))}, not {shown(value)}", path)
    if hint is float:
        return _number(value, path)
    if hint in _WORDS:
        if type(value) is not hint:
            raise _MismatchError(f"expected {_WORDS[hint]}, not {shown(value)}", path)
        return value
    if origin is tuple and (len(arguments) != 2 or arguments[1] is not Ellipsis):
        items = _instance(value, list, f"a list of {len(arguments)}", path)
        if len(items) != len(arguments):
            raise _MismatchError(f"expected a list of {len(arguments)}, not of {len(items)}", path)
        return tuple(_convert(item, kind, (*path, i)) for i, (item, kind) in enumerate(zip(items, arguments)))  # noqa: B905
    if origin in (list, tuple, Sequence):
        items = [
            _convert(item, arguments[0], (*path, i)) for i, item in enumerate(_instance(value, list, "a list", path))
        ]
        return items if origin is list else tuple(items)
    if origin in (dict, Mapping):
        found = _instance(value, dict, "keys and values", path)
        return {_convert(key, str, path): _convert(item, arguments[1], (*path, key)) for key, item in found.items()}
    return _record(value, hint, path)


def _record(value: Any, hint: Any, path: tuple[str | int, ...]) -> Any:  # noqa: ANN401  # an instance of `hint`
    found = _instance(value, dict, "keys and values", path)
    fields, optional = _fields(hint)
    missing = next((name for name in fields if name not in found and name not in optional), None)
    if missing is not None:
        raise _MismatchError(f"the key '{missing}' is missing", path)
    known = {name: _convert(found[name], kind, (*path, name)) for name, kind in fields.items() if name in found}
    return {**found, **known} if typing.is_typeddict(hint) else hint(**known)


@functools.cache
def _fields(hint: Any) -> tuple[Mapping[str, Any], frozenset[str]]:  # noqa: ANN401
    """The types of the fields of a dataclass or `TypedDict` by name, and the names of those that may be missing."""
    hints = typing.get_type_hints(hint)
    if typing.is_typeddict(hint):
        return hints, frozenset(hint.__optional_keys__)
    fields = dataclasses.fields(hint)
    lacking = (dataclasses.MISSING, dataclasses.MISSING)
    with_default = frozenset(item.name for item in fields if (item.default, item.default_factory) != lacking)
    return {item.name: hints[item.name] for item in fields if item.init}, with_default


def _member(value: Any, options: tuple[Any, ...], path: tuple[str | int, ...]) -> Any:  # noqa: ANN401
    """Convert to the first member of a union that the value fits."""
    expected = []
    for option in options:
        try:
            return _convert(value, option, path)
        except _MismatchError as error:
            if error.path != path:  # the kind fits, and something in it does not
                raise
            expected.append(str(error).removeprefix("expected ").partition(", not ")[0])
    raise _MismatchError(f"expected {' or '.join(expected)}, not {shown(value)}", path)


def _number(value: Any, path: tuple[str | int, ...]) -> float:  # noqa: ANN401
    if type(value) in (int, float):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _MismatchError(f"expected {_WORDS[float]}, not {shown(value)}", path)


def _instance(value: Any, kind: type[T], words: str, path: tuple[str | int, ...]) -> T:  # noqa: ANN401
    if not isinstance(value, kind):
        raise _MismatchError(f"expected {words}, not {shown(value)}", path)
    return value
