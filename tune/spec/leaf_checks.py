"""Checks of the leaves that a sweep sets or searches, against semprior's configuration."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

from semprior.config.schema import check_leaf, leaves, preset_leaves, unflatten
from semprior.config.true_masks import TRUE_MASKS
from semprior.errors import UserError
from semprior.models.published import detector_traits
from semprior.models.stages import placed_stages
from semprior.reading.yaml_text import Document
from tune.spec.dimensions import STAGES, Dimension, sorted_dimensions

FIXED_LEAVES = {
    "preset": "set it in base",
    "seed": "`seeds` sets how many runs a configuration has",
    "epochs": "trials are compared epoch by epoch",
    "data.holdout": "trials are compared on the same images",
    "data.holdout_seed": "trials are compared on the same images",
    "data.folds": "`runs` sets it",
    "data.fold": "`runs` sets it",
    "select.by": "the first objective sets it",
    "select.after": "trials are compared by the same evaluations",
    "select.every": "trials are compared by the same evaluations",
}
"""Leaves that a sweep cannot vary, and the reason."""


def check_leaves(
    base: Mapping[str, Any], search: Mapping[str, Dimension], document: Document, *, folded: bool = False
) -> None:
    """Refuse, before the first trial, every setting that semprior would refuse.

    Args:
        base: leaves that are common to all trials.
        search: dimensions by leaf.
        document: the sweep file.
        folded: whether each run holds out a fold.

    Raises:
        UserError: an unknown leaf, a value or range outside its limits, a dimension of the wrong type, or a condition
            that cannot be met.
    """
    start = _check_base(base, document)
    if search and start.get("data.holdout") == 0 and not folded and not start.get("data.folds"):
        location = document.location(("base", "data.holdout"))
        raise UserError(f"{location}: base: data.holdout: expected more than 0: trials are compared on held-out images")
    for key, dimension in search.items():
        _check_dimension(key, dimension, document)
    _check_stages(start, search, document)
    for key, dimension in search.items():
        _check_conditions(key, dimension, search, document)
    sorted_dimensions(search, document)


def check_configuration(
    base: Mapping[str, Any], configuration: Mapping[str, Any], index: int, document: Document
) -> None:
    """Refuse a listed configuration that semprior would refuse.

    Args:
        base: leaves that are common to all trials.
        configuration: leaves of this configuration alone.
        index: of the configuration in the list.
        document: the sweep file.

    Raises:
        UserError: an unknown leaf, or a value outside its limits.
    """
    location = f"{document.location(('configurations', index))}: configurations"
    for key, value in configuration.items():
        _refuse_true_masks(key, check_leaf(key, value, location), location)
        if key in FIXED_LEAVES:
            raise UserError(f"{location}: {key} cannot be set for a single configuration: {FIXED_LEAVES[key]}")
    _check_base({**base, **configuration}, document)


def _check_base(base: Mapping[str, Any], document: Document) -> Mapping[str, Any]:
    for key, value in base.items():
        location = f"{document.location(('base', key))}: base"
        _refuse_true_masks(key, check_leaf(key, value, location), location)
        if key in ("preset", "detector"):
            _with_location(preset_leaves if key == "preset" else detector_traits, value, location)
    given = {key: value for key, value in base.items() if key != "preset"}
    start = {**preset_leaves(str(base.get("preset", "standard"))), **given}
    # the first objective determines select.by, which is checked with the whole sweep
    unflatten({**start, "select.by": "point_score"}, f"{document.location(('base',))}: base")
    return start


def _refuse_true_masks(key: str, value: object, location: str) -> None:
    if key == "labels.seed" and value == TRUE_MASKS:
        raise UserError(f"{location}: {key}: {TRUE_MASKS} is a reference for benchmarks; a sweep learns from points")


def _with_location(check: Callable[[str], object], value: str, location: str) -> None:
    """Call `check` and prefix its error with the location."""
    try:
        check(value)
    except UserError as error:
        raise UserError(f"{location}: {error}") from error


def _check_dimension(key: str, dimension: Dimension, document: Document) -> None:
    location = f"{document.location(('search', key))}: search"
    if key not in leaves():
        known = {name.split(".")[0] for name in leaves() if "." in name}
        if key in known:
            raise UserError(f"{location}: {key}: expected a dotted key, like {_example_key(key)}")
        check_leaf(key, None, location)
    if key in FIXED_LEAVES:
        raise UserError(f"{location}: {key} cannot be searched: {FIXED_LEAVES[key]}")
    types = leaves()[key].options
    if dimension.subset is not None and key != STAGES:
        raise UserError(f"{location}: {key}: expected {_allowed_kinds(types)}, not subset:, which is for {STAGES}")
    if dimension.bounds is not None and float not in types and (int not in types or dimension.float_range is not None):
        given = "int:" if dimension.int_range is not None else "float:"
        raise UserError(f"{location}: {key}: expected {_allowed_kinds(types)}, not {given}")
    for value in (*(dimension.bounds or ()), *(dimension.values or ())):
        value = check_leaf(key, value, location)
        _refuse_true_masks(key, value, location)
        if key == "detector":
            _with_location(detector_traits, value, location)
    if key == "data.crop" and dimension.bounds is not None and (dimension.step is None or dimension.step % 32):
        raise UserError(f"{location}: {key}: expected step: 32, as crops are multiples of 32")
    if key == "data.crop" and any(v % 32 for v in (*(dimension.bounds or ()), *(dimension.values or ()))):
        raise UserError(f"{location}: {key}: expected multiples of 32")


def _example_key(section: str) -> str:
    return next(name for name in leaves() if name.startswith(section + "."))


def _allowed_kinds(types: tuple[Any, ...]) -> str:
    """The kinds of dimension that are possible for a leaf of these types."""
    if float in types:
        return "float:, int: or values:"
    if int in types:
        return "int: or values:"
    if any(typing.get_origin(kind) is tuple for kind in types):
        return "subset: or values:"
    choices = [str(c) for kind in types if typing.get_origin(kind) is Literal for c in typing.get_args(kind)]
    return f"values: of {', '.join(choices)}" if choices else "values:"


def _check_stages(start: Mapping[str, Any], search: Mapping[str, Dimension], document: Document) -> None:
    """Refuse stages that one of the sweep's detectors does not have."""
    searched = search.get("detector")
    detectors = searched.values if searched is not None and searched.values else (start.get("detector", "alclnet"),)
    dimension = search.get(STAGES)
    choices: list[tuple[Any, tuple[str, ...]]] = [(start[STAGES], ("base", STAGES))] if STAGES in start else []
    if dimension is not None:
        named = [dimension.subset] if dimension.subset is not None else list(dimension.values or ())
        choices += [(choice, ("search", STAGES)) for choice in named]
    for choice, path in choices:
        for name in detectors:
            try:
                placed_stages(choice, len(detector_traits(str(name)).stages))
            except UserError as error:
                raise UserError(f"{document.location(path)}: {path[0]}: {error}, {name}") from error


def _check_conditions(key: str, dimension: Dimension, search: Mapping[str, Dimension], document: Document) -> None:
    for other, wanted in dimension.when.items():
        location = f"{document.location(('search', key, 'when', other))}: search: {key}: when"
        if other not in leaves():
            check_leaf(other, wanted, location)
        if other == key:
            raise UserError(f"{location}: expected a condition on another leaf, not on itself")
        if other == STAGES and wanted in ("nonempty", "empty"):
            continue
        if wanted in ("nonempty", "empty"):
            raise UserError(f"{location}: {other}: expected a value; {wanted} is for {STAGES}")
        options = wanted if isinstance(wanted, tuple) and other != STAGES else (wanted,)
        for option in options:
            check_leaf(other, option, location)
            if not _reachable(option, search.get(other)):
                raise UserError(f"{location}: {other}: expected a value that the sweep tries, not {option!r}")


def _reachable(value: object, dimension: Dimension | None) -> bool:
    """Whether a searched leaf can take a value; True for a leaf that is not searched."""
    if dimension is None or dimension.subset is not None:
        return True
    if dimension.values is not None:
        return value in dimension.values
    low, high = typing.cast(tuple[float, float], dimension.bounds)
    return isinstance(value, int | float) and low <= value <= high
