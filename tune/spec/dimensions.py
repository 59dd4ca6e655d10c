"""Search dimensions. Each one gives the range or the choices of one leaf of semprior's configuration.

    clusters.count:    {int: [1, 128], log: true}
    data.crop:         {int: [96, 192], step: 32}
    scam.scale:        {float: [0.05, 1.0], when: {scam.stages: nonempty}}
    detector:          {values: [alclnet, mlclnet]}
    scam.stages:       {subset: all}                 # one switch per stage of the detector

``when`` names other leaves, searched or not. The dimension is searched only in configurations in which each of them has
the given value (or one of a list of values); ``scam.stages`` can also be compared with ``nonempty`` and ``empty``. In
all other configurations the leaf keeps its base value.
"""

from __future__ import annotations

import graphlib
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from semprior.errors import UserError
from semprior.reading.yaml_text import Document

STAGES = "scam.stages"
"""The only leaf whose value is a set of stages."""

_MOST_STEPS = 2**32

Scalar = bool | int | float | str | None
Value = Scalar | tuple[int, ...]


def as_number(value: Any) -> Any:  # noqa: ANN401
    """Convert text such as ``1e-3``, which YAML does not read as a number, to a number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _as_value(value: Any) -> Any:  # noqa: ANN401
    return tuple(value) if isinstance(value, list) else value


Number = Annotated[float, BeforeValidator(as_number), Field(strict=True, allow_inf_nan=False)]
WholeNumber = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
ChoiceValue = Annotated[Any, BeforeValidator(_as_value)]


class SweepModel(BaseModel):
    """Base class of the sections of a sweep file: immutable, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Dimension(SweepModel):
    """One dimension. Exactly one of the first four fields is set.

    Attributes:
        int_range: bounds of a range of whole numbers, both inclusive.
        float_range: bounds of a range of numbers, both inclusive.
        subset: stages, counted from 1, each of which is on or off; ``all`` for every stage of the detector.
        values: the choices.
        log: whether the range is searched on a logarithmic scale.
        step: distance between neighbouring values of the range.
        when: values that other leaves must have for the dimension to be searched.
    """

    int_range: tuple[WholeNumber, WholeNumber] | None = Field(None, alias="int")
    float_range: tuple[Number, Number] | None = Field(None, alias="float")
    subset: Literal["all"] | tuple[WholeNumber, ...] | None = None
    values: tuple[ChoiceValue, ...] | None = None
    log: Annotated[bool, Field(strict=True)] = False
    step: Number | None = None
    when: Mapping[str, ChoiceValue] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        kinds = [name for name in ("int_range", "float_range", "subset", "values") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError("expected one of int: [low, high], float: [low, high], values: [...], subset: all")
        self._check_range("subset" if self.subset is not None else "values")
        if self.values is not None:
            if len({repr(value) for value in self.values}) < len(self.values):
                raise ValueError("values: expected each value once")
            if not self.values:
                raise ValueError("values: expected one value or more")
        if isinstance(self.subset, tuple) and (
            not self.subset or len(set(self.subset)) < len(self.subset) or min(self.subset) < 1
        ):
            raise ValueError("subset: expected all, or a list of stages counted from 1, each once")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Serialize as in a sweep file, without fields that are not set."""
        return {key: value for key, value in handler(self).items() if value not in (None, False, {})}

    def _check_range(self, kind: str) -> None:
        bounds = self.bounds
        if bounds is None:
            if self.log or self.step is not None:
                name = "log" if self.log else "step"
                raise ValueError(f"{name}: expected only with int: or float:, not with {kind}:")
            return
        if not bounds[0] < bounds[1]:
            raise ValueError(f"expected a range [low, high] with low below high, not [{bounds[0]}, {bounds[1]}]")
        if self.log and bounds[0] <= 0:
            raise ValueError(f"log: expected a range above 0, not from {bounds[0]}")
        if self.step is not None and self.log:
            raise ValueError("step: expected without log: true")
        if self.step is not None and (self.step <= 0 or (self.int_range is not None and self.step != int(self.step))):
            raise ValueError(f"step: expected a {'whole ' if self.int_range else ''}number above 0, not {self.step:g}")
        if self.step is not None and (bounds[1] - bounds[0]) / self.step > _MOST_STEPS:
            raise ValueError(f"step: expected one that divides the range into at most {_MOST_STEPS} steps")
        if self.step is not None and abs(math.remainder(bounds[1] - bounds[0], self.step)) > 1e-9 * self.step:
            raise ValueError(f"step: expected one that leads from {bounds[0]:g} to {bounds[1]:g}, not {self.step:g}")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Bounds of the range, or None for a dimension without a range."""
        return self.int_range if self.int_range is not None else self.float_range

    @property
    def size(self) -> int | None:
        """The number of values of a list or a range, or of stages; None for a range without steps, which has no end.

        It is computed from the bounds: a range of whole numbers may hold billions.
        """
        if self.values is not None or self.bounds is None:
            return len(self.values or ()) or (len(self.subset) if isinstance(self.subset, tuple) else 1)
        if self.step is None and self.int_range is None:
            return None
        return round((self.bounds[1] - self.bounds[0]) / (self.step or 1)) + 1


def sorted_dimensions(search: Mapping[str, Dimension], document: Document | None = None) -> list[str]:
    """The searched leaves, ordered such that each follows the leaves that its conditions name.

    The detector precedes the stages, because it determines their number. Otherwise the order of the file is kept.

    Raises:
        UserError: conditions that depend on each other in a circle.
    """
    dependencies = {key: [name for name in dimension.when if name in search] for key, dimension in search.items()}
    if STAGES in dependencies and "detector" in search:
        dependencies[STAGES].append("detector")
    sorter = graphlib.TopologicalSorter(dependencies)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        key, *others = error.args[1][:-1]
        location = f"{document.location(('search', key))}: " if document else ""
        circle = " and ".join([key, *others])
        raise UserError(
            f"{location}search: {key}: when: expected conditions that do not depend on each other in a circle: {circle}"
        ) from error
    ordered: list[str] = []
    position = {key: index for index, key in enumerate(search)}
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        ordered += ready
        sorter.done(*ready)
    return ordered
