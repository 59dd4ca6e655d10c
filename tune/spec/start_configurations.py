"""Configurations that a search tries first: listed in the sweep file, or the winners of earlier sweeps.

    start: [{scam.scale: 0.3}, {clusters.count: 8, scam.stages: [1, 3]}]     # other dimensions have their base values
    start: {from: [first, s3://bucket/runs/second], top: 5}

Winners become a list when the sweep is submitted (`tune.search.winners`), so that the sweep is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag

from semprior.config.schema import check_leaf
from semprior.errors import UserError
from semprior.models.published import detector_traits
from semprior.models.stages import placed_stages
from semprior.reading.schema import shown
from semprior.reading.yaml_text import Document
from tune.spec.dimensions import STAGES, ChoiceValue, Dimension, SweepModel, WholeNumber, sorted_dimensions
from tune.spec.fault_messages import suggestion

_MOST_WINNERS = 1000
_Sources = Annotated[tuple[Annotated[str, Field(strict=True, min_length=1)], ...], Field(min_length=1)]


class StartFrom(SweepModel):
    """The winners of earlier sweeps.

    Attributes:
        sweeps: ids of sweeps of the same storage, or addresses of sweeps.
        top: number of configurations of each, the best by its own objectives.
    """

    sweeps: _Sources = Field(alias="from")
    top: Annotated[WholeNumber, Field(ge=1, le=_MOST_WINNERS)] = 5


def _form(value: object) -> str:
    return "StartFrom" if isinstance(value, Mapping | StartFrom) else "tuple"


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


StartConfigurations = Annotated[tuple[Mapping[str, ChoiceValue], ...], BeforeValidator(_as_tuple)]
Start = Annotated[
    Annotated[StartFrom, Tag("StartFrom")] | Annotated[StartConfigurations, Tag("tuple")], Discriminator(_form)
]


def stage_count(chosen: Mapping[str, Any], base: Mapping[str, Any]) -> int:
    """The number of stages of a configuration's detector.

    Args:
        chosen: the searched leaves and their values.
        base: all leaves of the base.
    """
    return len(detector_traits(str(chosen.get("detector", base["detector"]))).stages)


def is_searched(key: str, search: Mapping[str, Dimension], chosen: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Whether the condition of a dimension holds.

    Args:
        key: leaf of the dimension.
        search: dimensions by leaf.
        chosen: values of the dimensions before it in `sorted_dimensions`, as far as these are searched.
        base: all leaves of the base.
    """
    for other, wanted in search[key].when.items():
        if other in search and other not in chosen:
            return False
        value = chosen.get(other, base[other])
        if other == STAGES:
            count = stage_count(chosen, base)
            placed = placed_stages(value, count)
            holds = bool(placed) == (wanted == "nonempty")
            if wanted not in ("nonempty", "empty"):
                holds = placed == placed_stages(wanted, count)
        else:
            holds = value in (wanted if isinstance(wanted, tuple) else (wanted,))
        if not holds:
            return False
    return True


def fits(key: str, dimension: Dimension, value: Any, stages: int) -> bool:  # noqa: ANN401 - the value of any leaf
    """Whether a value is one that a dimension searches.

    Args:
        key: leaf of the dimension.
        dimension: the dimension.
        value: a value that the leaf accepts (`semprior.config.schema.check_leaf`).
        stages: number of stages of the detector, which matters to ``scam.stages`` alone.
    """
    if dimension.values is not None:
        return any(check_leaf(key, choice, key) == value for choice in dimension.values)
    if dimension.bounds is not None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = dimension.bounds
        step = 1 if dimension.int_range is not None and dimension.step is None else dimension.step
        on_step = step is None or abs(math.remainder(value - low, step)) <= 1e-9 * step
        return low <= value <= high and on_step
    assert key == STAGES
    try:
        placed = placed_stages(value, stages)
    except UserError:
        return False
    return dimension.subset == "all" or {stage + 1 for stage in placed} <= set(dimension.subset or ())


def complete(given: Mapping[str, Any], search: Mapping[str, Dimension], base: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a configuration of which some dimensions are given; the others have their base values.

    Args:
        given: values by leaf of dimensions.
        search: dimensions by leaf.
        base: all leaves of the base.

    Returns:
        The leaves that are searched in this configuration, and their values.
    """
    found: dict[str, Any] = {}
    for key in sorted_dimensions(search):
        if is_searched(key, search, found, base):
            value = check_leaf(key, given[key], "start") if key in given else base[key]
            found[key] = list(value) if isinstance(value, tuple) else value
    return found


def check_start(
    start: Sequence[Mapping[str, Any]], search: Mapping[str, Dimension], base: Mapping[str, Any], document: Document
) -> None:
    """Refuse a configuration to start with that the search could not have proposed.

    Raises:
        UserError: a leaf that is unknown or not searched, or a value that its dimension does not have.
    """
    for index, given in enumerate(start):
        values: dict[str, Any] = {}
        for key, value in given.items():
            location = f"{document.location(('start', index, key))}: start"
            values[key] = check_leaf(key, value, location)
            if key not in search:
                raise UserError(f"{location}: {key}: expected a leaf that is searched{suggestion(key, search)}")
        found: dict[str, Any] = {}
        for key in sorted_dimensions(search):
            location = f"{document.location(('start', index, key))}: start"
            if not is_searched(key, search, found, base):
                if key in values:
                    raise UserError(f"{location}: {key}: is not searched here, because its condition does not hold")
                continue
            stages = stage_count(found, base) if key == STAGES else 0
            if key in values and not fits(key, search[key], values[key], stages):
                raise UserError(f"{location}: {key}: expected {_described(search[key])}, not {shown(given[key])}")
            found[key] = values.get(key, base[key])


def _described(dimension: Dimension) -> str:
    if dimension.values is not None:
        return f"one of {', '.join(shown(value) for value in dimension.values)}"
    if dimension.bounds is not None:
        low, high = dimension.bounds
        kind = "a whole number" if dimension.int_range is not None else "a number"
        return f"{kind} from {low:g} to {high:g}" + (f" in steps of {dimension.step:g}" if dimension.step else "")
    return (
        "stages of the detector" if dimension.subset == "all" else f"some of the stages {list(dimension.subset or ())}"
    )
