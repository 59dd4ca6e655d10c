"""What a sweep says of semprior's leaves, held against semprior's configuration."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, Literal

from semprior.config.schema import check_leaf, leaves, preset_leaves, unflatten
from semprior.errors import UserError
from semprior.models.published import detector_traits
from semprior.models.stages import placed_stages
from tune.spec.dimensions import STAGES, Dimension, sorted_dimensions
from tune.spec.yaml_document import Document

FIXED = {
    "preset": "set it in base",
    "seed": "`seeds` sets how many runs a configuration has",
    "epochs": "trials are compared epoch by epoch",
    "data.holdout": "trials are compared on the same images",
    "data.holdout_seed": "trials are compared on the same images",
    "select.by": "the first objective sets it",
    "select.after": "trials are compared by the same evaluations",
    "select.every": "trials are compared by the same evaluations",
}
"""Leaves that no sweep searches, and why."""


def check_leaves(base: Mapping[str, Any], search: Mapping[str, Dimension], document: Document) -> None:
    """Refuse what semprior would refuse, before the first trial.

    Args:
        base: leaves that all trials begin with.
        search: dimensions by leaf.
        document: what they were read from.

    Raises:
        UserError: an unknown leaf, a value or range outside its limits, a dimension of another type, a condition that
            cannot be met.
    """
    start = _check_base(base, document)
    if search and start.get("data.holdout") == 0:
        place = document.at(("base", "data.holdout"))
        raise UserError(f"{place}: base: data.holdout: expected more than 0: trials are compared on held-out images")
    for key, dimension in search.items():
        _check_dimension(key, dimension, document)
    _check_stages(start, search, document)
    for key, dimension in search.items():
        _check_conditions(key, dimension, search, document)
    sorted_dimensions(search, document)


def check_configuration(
    base: Mapping[str, Any], configuration: Mapping[str, Any], place: int, document: Document
) -> None:
    """Refuse a configuration that semprior would refuse.

    Args:
        base: leaves that all trials begin with.
        configuration: its own leaves.
        place: in the list of configurations.
        document: what they were read from.

    Raises:
        UserError: an unknown leaf, or a value that does not fit.
    """
    where = f"{document.at(('configurations', place))}: configurations"
    for key, value in configuration.items():
        check_leaf(key, value, where)
        if key in FIXED:
            raise UserError(f"{where}: {key} is not a configuration's own: {FIXED[key]}")
    _check_base({**base, **configuration}, document)


def _check_base(base: Mapping[str, Any], document: Document) -> Mapping[str, Any]:
    for key, value in base.items():
        where = f"{document.at(('base', key))}: base"
        check_leaf(key, value, where)
        if key in ("preset", "detector"):
            _located(preset_leaves if key == "preset" else detector_traits, value, where)
    given = {key: value for key, value in base.items() if key != "preset"}
    start = {**preset_leaves(str(base.get("preset", "standard"))), **given}
    # select.by is what the objective says, checked with the whole
    _ = unflatten({**start, "select.by": "point_score"}, f"{document.at(('base',))}: base")
    return start


def _located(check: Any, value: Any, where: str) -> None:  # noqa: ANN401
    try:
        check(value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_dimension(key: str, dimension: Dimension, document: Document) -> None:
    where = f"{document.at(('search', key))}: search"
    if key not in leaves():
        known = {name.split(".")[0] for name in leaves() if "." in name}
        if key in known:
            raise UserError(f"{where}: {key}: expected a dotted key, like {_first_of(key)}")
        check_leaf(key, None, where)
    if key in FIXED:
        raise UserError(f"{where}: {key} is not searched: {FIXED[key]}")
    types = leaves()[key].options
    if dimension.subset is not None and key != STAGES:
        raise UserError(f"{where}: {key}: expected {_kinds(types)}, not subset:, which is for {STAGES}")
    if dimension.ends is not None and float not in types and (int not in types or dimension.real is not None):
        given = "int:" if dimension.whole is not None else "float:"
        raise UserError(f"{where}: {key}: expected {_kinds(types)}, not {given}")
    for value in (*(dimension.ends or ()), *(dimension.values or ())):
        value = check_leaf(key, value, where)
        if key == "detector":
            _located(detector_traits, value, where)
    if key == "data.crop" and dimension.ends is not None and (dimension.step is None or dimension.step % 32):
        raise UserError(f"{where}: {key}: expected step: 32, as crops are multiples of 32")
    if key == "data.crop" and any(v % 32 for v in (*(dimension.ends or ()), *(dimension.values or ()))):
        raise UserError(f"{where}: {key}: expected multiples of 32")


def _first_of(section: str) -> str:
    return next(name for name in leaves() if name.startswith(section + "."))


def _kinds(types: tuple[Any, ...]) -> str:
    """The kinds of dimension that a leaf of these types can have."""
    if float in types:
        return "float:, int: or values:"
    if int in types:
        return "int: or values:"
    if any(typing.get_origin(kind) is tuple for kind in types):
        return "subset: or values:"
    choices = [str(c) for kind in types if typing.get_origin(kind) is Literal for c in typing.get_args(kind)]
    return f"values: of {', '.join(choices)}" if choices else "values:"


def _check_stages(start: Mapping[str, Any], search: Mapping[str, Dimension], document: Document) -> None:
    """Stages that are named must exist in every detector that the sweep tries."""
    searched = search.get("detector")
    detectors = searched.values if searched is not None and searched.values else (start.get("detector", "alclnet"),)
    dimension = search.get(STAGES)
    given: list[tuple[Any, tuple[str, ...]]] = [(start[STAGES], ("base", STAGES))] if STAGES in start else []
    if dimension is not None:
        named = [dimension.subset] if dimension.subset is not None else list(dimension.values or ())
        given += [(choice, ("search", STAGES)) for choice in named]
    for choice, place in given:
        for name in detectors:
            try:
                placed_stages(choice, len(detector_traits(str(name)).stages))
            except UserError as error:
                raise UserError(f"{document.at(place)}: {place[0]}: {error}; {name} is one") from error


def _check_conditions(key: str, dimension: Dimension, search: Mapping[str, Dimension], document: Document) -> None:
    for other, wanted in dimension.when.items():
        where = f"{document.at(('search', key, 'when', other))}: search: {key}: when"
        if other not in leaves():
            check_leaf(other, wanted, where)
        if other == key:
            raise UserError(f"{where}: expected a condition on another leaf, not on itself")
        if other == STAGES and wanted in ("nonempty", "empty"):
            continue
        if wanted in ("nonempty", "empty"):
            raise UserError(f"{where}: {other}: expected a value; {wanted} is for {STAGES}")
        options = wanted if isinstance(wanted, tuple) and other != STAGES else (wanted,)
        for option in options:
            check_leaf(other, option, where)
            if not _reachable(option, search.get(other)):
                raise UserError(f"{where}: {other}: expected a value that the sweep tries, not {option!r}")


def _reachable(value: Any, dimension: Dimension | None) -> bool:  # noqa: ANN401
    if dimension is None or dimension.subset is not None:
        return True
    if dimension.values is not None:
        return value in dimension.values
    low, high = typing.cast(tuple[float, float], dimension.ends)
    return isinstance(value, int | float) and low <= value <= high
