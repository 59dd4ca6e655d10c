"""Search dimensions: what a sweep varies, each the range or the choices of one leaf of semprior's configuration.

    clusters.count:    {int: [1, 128], log: true}
    data.crop:         {int: [96, 192], step: 32}
    scam.scale:        {float: [0.05, 1.0], when: {scam.stages: nonempty}}
    detector:          {values: [alclnet, mlclnet]}
    scam.stages:       {subset: all}                 # a switch a stage, whatever the detector's number of stages

``when`` names other leaves, searched or not: the dimension is searched only where each has the value given (or one of
a list of them), or, for ``scam.stages``, where it is ``nonempty`` or ``empty``. Elsewhere the leaf keeps its value in
the base.
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
from tune.spec.yaml_document import Document

STAGES = "scam.stages"
"""The one leaf that is a set of stages."""

Scalar = bool | int | float | str | None
Value = Scalar | tuple[int, ...]


def as_number(value: Any) -> Any:  # noqa: ANN401
    """YAML reads 1e-3, without a dot, as text; a number all the same."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _as_value(value: Any) -> Any:  # noqa: ANN401
    return tuple(value) if isinstance(value, list) else value


Number = Annotated[float, BeforeValidator(as_number), Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True)]
Given = Annotated[Any, BeforeValidator(_as_value)]


class Part(BaseModel):
    """A part of a sweep file: it does not change, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Dimension(Part):
    """One dimension; one of its first four fields is set.

    Attributes:
        whole: ends of a range of whole numbers, both included.
        real: ends of a range of numbers, both included.
        subset: stages, counted from 1, that are each on or off; ``all``: every one the detector has.
        values: the choices.
        log: whether a range is searched on a logarithmic scale.
        step: distance of the values of a range.
        when: values of other leaves under which the dimension is searched.
    """

    whole: tuple[Whole, Whole] | None = Field(None, alias="int")
    real: tuple[Number, Number] | None = Field(None, alias="float")
    subset: Literal["all"] | tuple[Whole, ...] | None = None
    values: tuple[Given, ...] | None = None
    log: Annotated[bool, Field(strict=True)] = False
    step: Number | None = None
    when: Mapping[str, Given] = {}

    @model_validator(mode="after")
    def _sound(self) -> Self:
        kinds = [name for name in ("whole", "real", "subset", "values") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError("expected one of int: [low, high], float: [low, high], values: [...], subset: all")
        self._sound_range(kinds[0])
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
        """As a sweep file has it: without what is not set."""
        return {key: value for key, value in handler(self).items() if value not in (None, False, {})}

    def _sound_range(self, kind: str) -> None:
        ends = self.ends
        if ends is None:
            if self.log or self.step is not None:
                name = "log" if self.log else "step"
                raise ValueError(f"{name}: expected only with int: or float:, not with {kind}:")
            return
        if not ends[0] < ends[1]:
            raise ValueError(f"expected a range [low, high] with low below high, not [{ends[0]}, {ends[1]}]")
        if self.log and ends[0] <= 0:
            raise ValueError(f"log: expected a range above 0, not from {ends[0]}")
        if self.step is not None and self.log:
            raise ValueError("step: expected without log: true")
        if self.step is not None and (self.step <= 0 or (self.whole is not None and self.step != int(self.step))):
            raise ValueError(f"step: expected a {'whole ' if self.whole else ''}number above 0, not {self.step:g}")
        if self.step is not None and abs(math.remainder(ends[1] - ends[0], self.step)) > 1e-9 * self.step:
            raise ValueError(f"step: expected one that leads from {ends[0]:g} to {ends[1]:g}, not {self.step:g}")

    @property
    def ends(self) -> tuple[float, float] | None:
        """Ends of the range; none where there is none."""
        return self.whole if self.whole is not None else self.real

    @property
    def listed(self) -> bool:
        """Whether a grid can go through it: choices, switches, whole numbers, or a range with a step."""
        return self.real is None or self.step is not None


def sorted_dimensions(search: Mapping[str, Dimension], document: Document | None = None) -> list[str]:
    """The searched leaves, each after those that its conditions name, and otherwise as they stand.

    The detector comes before the stages, whose number it sets.

    Raises:
        UserError: conditions that wait for each other.
    """
    waits = {key: [name for name in dimension.when if name in search] for key, dimension in search.items()}
    if STAGES in waits and "detector" in search:
        waits[STAGES].append("detector")
    sorter = graphlib.TopologicalSorter(waits)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        key, *others = error.args[1][:-1]
        where = f"{document.at(('search', key))}: " if document else ""
        circle = " and ".join([key, *others])
        raise UserError(
            f"{where}search: {key}: when: expected conditions that do not wait in a circle: {circle}"
        ) from error
    found: list[str] = []
    position = {key: index for index, key in enumerate(search)}
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=position.__getitem__)
        found += ready
        sorter.done(*ready)
    return found
