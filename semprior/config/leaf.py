"""The type and the limits of a leaf of the configuration, against which values are checked."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from semprior.errors import UserError
from semprior.reading.schema import shown

_TYPE_NAMES: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Leaf:
    """A leaf of the configuration.

    Attributes:
        hint: its annotated type, such as ``float | None``.
        low: smallest value of a number.
        high: largest value of a number.
    """

    hint: Any
    low: float = -math.inf
    high: float = math.inf

    @property
    def options(self) -> tuple[Any, ...]:
        """The types of its values: the members of a union, else the one type."""
        union = typing.get_origin(self.hint) in (typing.Union, types.UnionType)
        return typing.get_args(self.hint) if union else (self.hint,)

    @property
    def description(self) -> str:
        """The values that the leaf accepts, for an error message."""
        words: list[str] = []
        for option in self.options:
            if typing.get_origin(option) is Literal:
                words += [str(choice) for choice in typing.get_args(option)]
            elif typing.get_origin(option) is tuple:
                words.append("a list like [1, 2]")
            else:
                words.append("null" if option is type(None) else _TYPE_NAMES[option])
        return " or ".join(words)

    def check(self, value: object, where: str) -> Any:  # noqa: ANN401 - of whichever type the leaf has
        """Convert a value to the leaf's type if the conversion is lossless.

        Args:
            value: from a file, a variable or a flag.
            where: source and key, for the error message.

        Raises:
            UserError: the value has another type or is outside the limits.
        """
        converted = self._convert(value, where)
        is_number = isinstance(converted, int | float) and not isinstance(converted, bool)
        if is_number and not self.low <= converted <= self.high:  # also refuses .nan
            raise UserError(f"{where} must be between {self.low} and {self.high}, not {shown(converted)}")
        return converted

    def _convert(self, value: object, where: str) -> Any:  # noqa: ANN401 - of whichever type the leaf has
        for option in self.options:
            if option is type(None) and value is None:
                return None
            if typing.get_origin(option) is Literal and value in typing.get_args(option):
                return value
            if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
                inner = typing.get_args(option)[0]
                if all(type(item) is inner for item in value):
                    return tuple(value)
            if option is bool and isinstance(value, bool):
                return value
            if option is int and isinstance(value, int) and not isinstance(value, bool):
                return value
            if option is float and isinstance(value, int | float | str) and not isinstance(value, bool):
                try:  # YAML reads 1e-3, without a dot, as text
                    return float(value)
                except ValueError:
                    continue
                except OverflowError:  # of a whole number of hundreds of digits
                    return math.inf
            if option is str and isinstance(value, str):
                return value
        raise UserError(f"{where} must be {self.description}, not {shown(value)}")
