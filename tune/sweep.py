"""A sweep file as a checked, frozen `SweepSpec` (docs/sweeps.md lists every key).

    spec = load_sweep(Path("tune/sweeps/sirst-v1.yaml"), os.environ)
    SweepSpec.from_json(spec.to_json()) == spec

What the file says of semprior's leaves is checked against semprior's own configuration, and everything that can be
wrong before the first trial is found before the first trial: one line with file, line, key and what was expected.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from semprior.config import Config, Resolved, check_leaf, environment_leaves, leaves, resolve, variable_of
from semprior.errors import UserError
from tune.dimensions import Dimension, Number, Part, Whole
from tune.lined_yaml import Document, Place, read_document
from tune.rungs import first_rung
from tune.sweep_checks import check_configuration, check_leaves
from tune.sweep_errors import KeyFault, first_fault

STORAGE_VARIABLE = "SEMPRIOR_STORAGE"
CHOSEN_BY = {"holdout/point_score": "point_score", "holdout/iou": "holdout/iou"}
"""The first objective, and the setting `select.by` that makes a trial choose its best epoch by the same value."""
_BY_POINTS = ("point_score", "point_pd", "point_fa", "point_size", "point_agreement")
_BY_MASKS = ("iou", "niou", "pd", "fa")
METRICS = tuple(f"holdout/{who}{name}" for who in ("", "teacher/") for name in (*_BY_POINTS, *_BY_MASKS))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Above0 = Annotated[Number, Field(gt=0)]
Count = Annotated[Whole, Field(ge=1)]


class Sampler(Part):
    """Who proposes configurations: a sampler of Optuna's.

    Attributes:
        name: its name; ``grid`` goes through all combinations of ``values:``, switches and stepped ranges.
        seed: of all its choices.
        startup: random configurations before ``tpe`` and ``gp`` model anything; the population of ``nsga2``.
    """

    name: Literal["tpe", "random", "gp", "nsga2", "grid"] = "tpe"
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0
    startup: Annotated[Whole, Field(ge=2)] = 8


class Scheduler(Part):
    """Who stops trials early: a scheduler of Ray Tune's, by the trial's own epoch.

    Attributes:
        name: its name.
        factor: of asha and hyperband: one trial in `factor` goes on from each rung, to `factor` times the epochs.
        first: the epoch, from 0, of the first decision; none is earlier than the first evaluation after an evolution of
            the labels and an outer pass, where hyperband begins by itself; ``auto`` of the others: in the second half.
        brackets: of hyperband: halving begins at `first`, at `first` times `factor`, and so on.
    """

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    factor: Annotated[Number, Field(gt=1)] = 3
    first: Literal["auto"] | Count = "auto"
    brackets: Count = 3


class Budget(Part):
    """What a sweep may cost.

    Attributes:
        trials: configurations, the base itself and failed ones included.
        hours: after these no trial begins, and running ones finish their epoch; none: no limit.
    """

    trials: Count
    hours: Above0 | None = None


class Resources(Part):
    """What one trial takes.

    Attributes:
        workers: processes of data-parallel training.
        cpus: of the trial, shared by its workers.
        gpus: of the trial; a fraction where one worker shares a GPU with other trials, else whole ones for each worker.
    """

    workers: Count = 1
    cpus: Above0 = 1
    gpus: Annotated[Number, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.workers > 1 and self.gpus % self.workers:  # NCCL refuses two workers on one GPU
            wanted = f"0 or a whole multiple of workers, like {math.ceil(self.gpus / self.workers) * self.workers}"
            why = ": each worker needs a GPU of its own"
        elif self.gpus > 1 and self.gpus % 1:  # Ray shares one GPU, not several
            wanted, why = "a number up to 1 or a whole one", ""
        else:
            return self
        raise KeyFault(("resources", "gpus"), f"expected {wanted}, not {self.gpus:g}{why}")


class Failures(Part):
    """What happens to a trial that fails.

    Attributes:
        retries: times it is tried again.
    """

    retries: Annotated[Whole, Field(ge=0)] = 2


def _sound_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("expected letters, digits, dots, dashes and underscores, 64 at most, to name a folder")
    return name


def _absolute(address: Any) -> Any:  # noqa: ANN401
    """A folder without its way from the current one; an address of another file system as it is."""
    return os.path.abspath(address) if isinstance(address, str) and address and "://" not in address else address


Address = Annotated[str, BeforeValidator(_absolute), Field(min_length=1, strict=True)]


class SweepSpec(Part):
    """A sweep.

    Attributes:
        name: of the sweep, and its id unless another is chosen.
        data: folder or address of the data set.
        base: leaves of semprior that every trial begins with; ``preset`` names where the others come from.
        search: dimensions by leaf.
        configurations: in the place of a search: the leaves, beside those of `base`, of each configuration there is.
        objective: metrics and whether each is to be large or small; the first chooses the epoch, two or more give a
            Pareto front.
        sampler: proposes configurations.
        scheduler: stops trials early.
        budget: what the sweep may cost.
        seeds: runs of each configuration.
        resources: what one trial takes.
        concurrent: trials at a time; ``auto``: as many as fit.
        failures: what happens to a trial that fails.
        storage: folder or address that holds the sweep.
    """

    name: Annotated[str, Field(strict=True), AfterValidator(_sound_name)]
    data: Address
    base: Mapping[str, Any] = {}
    search: Mapping[str, Dimension] = {}
    configurations: tuple[Mapping[str, Any], ...] | None = None
    objective: Mapping[str, Literal["max", "min"]]
    sampler: Sampler = Sampler()
    scheduler: Scheduler = Scheduler()
    budget: Budget
    seeds: Count = 1
    resources: Resources = Resources()
    concurrent: Literal["auto"] | Count = "auto"
    failures: Failures = Failures()
    storage: Address = "./runs"

    @field_validator("objective")
    @classmethod
    def _not_empty(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if not value:
            raise ValueError("expected one entry or more")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if bool(self.search) == bool(self.configurations):
            both = "either this or configurations, not both" if self.search else "one entry or more"
            raise KeyFault(("search",), f"expected {both}")
        if self.configurations and self.budget.trials != len(self.configurations):
            raise KeyFault(("budget", "trials"), f"expected {len(self.configurations)}, as many as configurations")
        first, *others = self.objective
        for metric in self.objective:
            if metric not in METRICS:
                raise KeyFault.unknown(("objective",), metric, METRICS, "a metric of the holdout")
        if first not in CHOSEN_BY:
            raise KeyFault(("objective", first), f"expected {' or '.join(CHOSEN_BY)} as the first objective")
        if self.objective[first] != "max":
            raise KeyFault(("objective", first), f"expected max, not {self.objective[first]}")
        if others and self.scheduler.name != "none":
            if "scheduler" in self.model_fields_set:
                raise KeyFault(("scheduler", "name"), f"expected none with {len(self.objective)} objectives")
            object.__setattr__(self, "scheduler", Scheduler(name="none"))
        if self.sampler.name == "grid":
            for key, dimension in self.search.items():
                if not dimension.listed:
                    raise KeyFault(("search", key), "expected values: or step: for the sampler grid")
        return self

    @property
    def directions(self) -> tuple[Literal["max", "min"], ...]:
        """Of the objectives, in their order."""
        return tuple(self.objective.values())

    @property
    def needs_masks(self) -> bool:
        """Whether an objective can be computed only where true masks exist."""
        return any(metric.rpartition("/")[2] in _BY_MASKS for metric in self.objective)

    def base_settings(self) -> Resolved:
        """The configuration that all trials begin with, configuration 0 as it is."""
        given = {key: value for key, value in self.base.items() if key != "preset"}
        chosen = {**given, "select.by": CHOSEN_BY[next(iter(self.objective))]}
        return resolve(self.base.get("preset"), flags=chosen, environment={})

    def base_config(self) -> Config:
        """The configuration 0."""
        return self.base_settings().config

    def require_masks(self, present: bool) -> None:
        """Refuse an objective that the data set cannot give.

        Args:
            present: whether the data set has masks of its training images.

        Raises:
            UserError: an objective needs masks and there are none.
        """
        if self.needs_masks and not present:
            metric = next(metric for metric in self.objective if metric.rpartition("/")[2] in _BY_MASKS)
            raise UserError(
                f"objective: {metric} needs true masks, and {self.data} has none; holdout/point_score needs points only"
            )

    def to_json(self) -> str:
        """The sweep as JSON with the keys of a sweep file, every one written out."""
        return self.model_dump_json(by_alias=True, indent=1)

    @classmethod
    def from_json(cls, text: str, source: str = "sweep.json") -> SweepSpec:
        """The sweep that `to_json` wrote.

        Raises:
            UserError: not JSON, or not a sweep.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise UserError(f"{source}: is not valid JSON: {error}") from error
        return _checked(Document(source, content))


def load_sweep(path: Path, environment: Mapping[str, str]) -> SweepSpec:
    """Read and check a sweep file.

    Relative paths count from the current folder. As for a single run, a variable like SEMPRIOR__SCAM__SCALE=0.3
    overrides a leaf of the base, and SEMPRIOR_STORAGE the storage.

    Args:
        path: of the file.
        environment: the process's variables.

    Raises:
        UserError: a fault; one line with file, line, key and what was expected.
    """
    document = read_document(path)
    content, lines = document.content, document.lines
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, like `name: my-sweep`")
    content = {"name": path.stem, **content}
    if isinstance(content.get("base"), dict):
        content["base"] = _flat(content["base"], (), lines)
    set_outside = environment_leaves(environment)
    for key, value in set_outside.items():
        check_leaf(key, value, "environment")
        if key in (content.get("search") or {}):
            raise UserError(
                f"{document.at(('search', key))}: search: {key} is also set in the environment;"
                f" unset {variable_of(key)}"
            )
    if set_outside and isinstance(content.get("base", {}), dict):
        content["base"] = {**content.get("base", {}), **set_outside}
    if environment.get(STORAGE_VARIABLE):
        content["storage"] = environment[STORAGE_VARIABLE]
    outside = {("base", key): f"environment: {variable_of(key)}" for key in set_outside}
    return _checked(Document(document.source, content, lines, outside))


def _flat(tree: Mapping[str, Any], above: tuple[str, ...], lines: dict[Place, int]) -> dict[str, Any]:
    """Nested and dotted keys are both understood, as in a run's own file; `lines` learns the dotted ones."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = ".".join((*above, name))
        if isinstance(value, dict) and key not in leaves():
            flat |= _flat(value, (*above, name), lines)
        else:
            lines.setdefault(("base", key), lines[("base", *above, name)])
            flat[key] = value
    return flat


def _checked(document: Document) -> SweepSpec:
    try:
        spec = SweepSpec.model_validate(document.content)
    except ValidationError as error:
        raise UserError(first_fault(error, document, SweepSpec)) from error
    check_leaves(spec.base, spec.search, document)
    for place, configuration in enumerate(spec.configurations or ()):
        check_configuration(spec.base, configuration, place, document)
    asked = CHOSEN_BY[next(iter(spec.objective))]
    if spec.base.get("select.by", asked) != asked:
        raise UserError(
            f"{document.at(('base', 'select.by'))}: base: select.by: expected {asked}, what the first objective chooses"
        )
    first, config = spec.scheduler.first, spec.base_config()
    if first != "auto" and not first_rung(config) <= first < config.epochs:
        raise UserError(
            f"{document.at(('scheduler', 'first'))}: scheduler: first: expected auto or an epoch from"
            f" {first_rung(config)}, the first evaluation after an evolution of the labels and an outer pass, to"
            f" {config.epochs - 1}, not {first}"
        )
    return spec
