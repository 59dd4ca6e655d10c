"""What a leaf of the configuration accepts: its type and its limits."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from semprior.errors import UserError

_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Leaf:
    """One leaf.

    Attributes:
        hint: its type as annotated, such as ``float | None``.
        low: smallest value of a number; none: no limit.
        high: largest value of a number; none: no limit.
    """

    hint: Any
    low: float | None = None
    high: float | None = None

    @property
    def options(self) -> tuple[Any, ...]:
        """The types that the leaf may have: those of a union, else the one."""
        union = typing.get_origin(self.hint) in (typing.Union, types.UnionType)
        return typing.get_args(self.hint) if union else (self.hint,)

    @property
    def words(self) -> str:
        """What the leaf accepts, for an error message."""
        words: list[str] = []
        for option in self.options:
            if typing.get_origin(option) is Literal:
                words += [str(choice) for choice in typing.get_args(option)]
            elif typing.get_origin(option) is tuple:
                words.append("a list like [1, 2]")
            else:
                words.append("null" if option is type(None) else _WORDS[option])
        return " or ".join(words)

    def check(self, value: Any, where: str) -> Any:  # noqa: ANN401
        """`value` as the leaf's type, where that loses nothing.

        Args:
            value: as a file, a variable or a flag gave it.
            where: names source and key in the error message.

        Raises:
            UserError: another type, or outside the limits.
        """
        fitted = self._fit(value, where)
        if isinstance(fitted, int | float) and not isinstance(fitted, bool):
            low, high = self.low, self.high
            if fitted != fitted or (low is not None and fitted < low) or (high is not None and fitted > high):
                bounds = f"at least {low}" if high is None else f"between {low} and {high}"
                raise UserError(f"{where} must be {bounds}, not {fitted}")
        return fitted

    def _fit(self, value: Any, where: str) -> Any:  # noqa: ANN401
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
            if option is float and isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
            if option is float and isinstance(value, str):
                try:  # YAML reads 1e-3, without a dot, as text
                    return float(value)
                except ValueError:
                    continue
            if option is str and isinstance(value, str):
                return value
        raise UserError(f"{where} must be {self.words}, not {value!r}")
