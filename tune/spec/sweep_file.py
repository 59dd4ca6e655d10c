"""Reads a sweep file into a checked, immutable `SweepSpec` (docs/sweeps.md lists every key).

    spec = load_sweep(Path("tune/sweeps/sirst-v1.yaml"), os.environ)
    SweepSpec.from_json(spec.to_json()) == spec

Leaves of semprior are checked against semprior's own configuration, so that errors are found before the first trial
starts. Each error is one line with the file, the line, the key and what was expected.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from semprior.config.schema import (
    MOST_FOLDS,
    Config,
    check_leaf,
    environment_leaves,
    flatten,
    resolve,
    variable_of,
    with_present_names,
)
from semprior.deployment.trial_cost import COST_METRICS
from semprior.errors import UserError
from semprior.reading.json_text import parse_json
from semprior.reading.names import is_identifier
from semprior.reading.schema import shown
from semprior.reading.yaml_text import Document, KeyPath, read_yaml
from tune.spec.constraints import Limit, parse_limit
from tune.spec.dimensions import Dimension, Number, SweepModel, WholeNumber
from tune.spec.fault_messages import LocatedError, first_error
from tune.spec.leaf_checks import check_configuration, check_leaves
from tune.spec.rungs import first_rung
from tune.spec.start_configurations import Start, StartFrom, check_start

STORAGE_VARIABLE = "SEMPRIOR_STORAGE"
SELECTION_METRICS = {"holdout/point_score": "point_score", "holdout/iou": "holdout/iou"}
"""The possible first objectives, each with the `select.by` that makes a trial select its best epoch by it."""
_POINT_METRICS = ("point_score", "point_pd", "point_fa", "point_size", "point_agreement")
_MASK_METRICS = ("iou", "niou", "pd", "fa")
OBJECTIVE_METRICS = tuple(
    f"holdout/{model}{name}" for model in ("", "teacher/") for name in (*_POINT_METRICS, *_MASK_METRICS)
)
"""Metrics of the held-out images that can be objectives."""
SECOND_METRICS = (*OBJECTIVE_METRICS, *COST_METRICS)
"""Metrics that can be objectives after the first, which selects the epoch: those, and the costs of the detector."""

MOST_TRIALS = 1_000_000  # of a sweep; its store is made for some million records
MOST_IN_GRID = 20_000  # values of one dimension
MOST_HOURS = 1e6
PositiveNumber = Annotated[Number, Field(gt=0, le=MOST_HOURS)]
PositiveInt = Annotated[WholeNumber, Field(ge=1, le=100_000)]


class Sampler(SweepModel):
    """The Optuna sampler that proposes configurations.

    Attributes:
        name: name of the sampler; ``grid`` enumerates all combinations of ``values:``, switches and stepped ranges.
        seed: random seed of the sampler.
        startup: number of random configurations before ``tpe`` and ``gp`` fit a model; population size of ``nsga2``.
        shrink: whether ``tpe`` and ``gp`` learn from values that are shrunk towards their mean, the more so the larger
            the errors of their comparisons are, so that a lucky value does not attract the search.
        random: share of the configurations that are drawn at random, whatever the model says.
    """

    name: Literal["tpe", "random", "gp", "nsga2", "grid"] = "tpe"
    seed: Annotated[WholeNumber, Field(ge=0, lt=2**32)] = 0
    startup: Annotated[WholeNumber, Field(ge=2, le=100_000)] = 8
    shrink: bool = False
    random: Annotated[Number, Field(ge=0, le=1)] = 0


class Scheduler(SweepModel):
    """The Ray Tune scheduler that stops trials early.

    Attributes:
        name: name of the scheduler; ``moasha`` is for several objectives, the others are for one. With ``race``, a
            configuration begins with one run, which stops early as with ``asha``, and further runs go to those that may
            still be the best (`tune.search.race`).
        factor: asha, moasha, race and hyperband continue one trial in `factor` at each rung, up to `factor` times the
            epochs.
        first: epoch, from 0, of the first rung, not before the first evaluation after an evolution of the labels and an
            outer pass. With ``auto``, hyperband starts there and the other schedulers in the second half of a run.
        brackets: number of hyperband's brackets; halving starts at `first` in one, at `factor` times `first` in the
            next, and so on.
        within: a searched leaf; a trial is then compared with those that have the same value of it. Trials of other
            detectors, say, learn at another speed.
        minimum: number of completed runs that the best configuration of a race has at least.
    """

    name: Literal["asha", "hyperband", "median", "moasha", "race", "none"] = "asha"
    factor: Annotated[Number, Field(gt=1, le=1000)] = 3
    first: Literal["auto"] | PositiveInt = "auto"
    brackets: Annotated[WholeNumber, Field(ge=1, le=100)] = 3
    within: Annotated[str, Field(strict=True)] | None = None
    minimum: Annotated[WholeNumber, Field(ge=1, le=1000)] = 2


class Budget(SweepModel):
    """The limits of a sweep.

    Attributes:
        trials: number of configurations, including the base configuration and those that fail.
        hours: time after which no trial starts and running trials stop at the end of their epoch; None for no limit.
        patience: number of configurations in a row without an improvement after which no other begins; None for no
            limit.
    """

    trials: Annotated[WholeNumber, Field(ge=1, le=MOST_TRIALS)]
    hours: PositiveNumber | None = None
    patience: PositiveInt | None = None


class Resources(SweepModel):
    """The resources of one trial.

    Attributes:
        workers: number of processes of data-parallel training.
        cpus: CPUs of the trial, shared by its workers.
        gpus: GPUs of the trial: a fraction if its only worker shares a GPU with other trials, else a whole number that
            is a multiple of `workers`.
    """

    workers: PositiveInt = 1
    cpus: PositiveNumber = 1
    gpus: Annotated[Number, Field(ge=0, le=100_000)] = 0

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.workers > 1 and self.gpus % self.workers:  # NCCL does not allow two workers on one GPU
            expected = f"0 or a whole multiple of workers, like {math.ceil(self.gpus / self.workers) * self.workers}"
            reason = ": each worker needs a GPU of its own"
        elif self.gpus > 1 and self.gpus % 1:  # Ray shares a single GPU only
            expected, reason = "a number up to 1 or a whole one", ""
        else:
            return self
        raise LocatedError(("resources", "gpus"), f"expected {expected}, not {self.gpus:g}{reason}")


class Runs(SweepModel):
    """The runs of each configuration, where they differ in more than their seed.

    Attributes:
        folds: number of parts of the training and validation images, of which each run holds out another one; None for
            runs that differ in their seed alone.
    """

    folds: Annotated[WholeNumber, Field(ge=2, le=MOST_FOLDS)] | None = None


class Failures(SweepModel):
    """The handling of trials that fail.

    Attributes:
        retries: number of times that a failed trial is retried.
    """

    retries: Annotated[WholeNumber, Field(ge=0, le=1000)] = 2


def _check_name(name: str) -> str:
    if not is_identifier(name):
        raise ValueError("expected letters, digits, dots, dashes and underscores, 64 at most, to name a folder")
    return name


def _absolute(address: object) -> object:
    """Make the path of a local folder absolute; addresses of other file systems stay unchanged."""
    return os.path.abspath(address) if isinstance(address, str) and address and "://" not in address else address


Address = Annotated[str, BeforeValidator(_absolute), Field(min_length=1, strict=True)]


class SweepSpec(SweepModel):
    """A sweep.

    Attributes:
        name: name of the sweep, and its id unless another id is chosen.
        data: folder or address of the data set.
        base: leaves that are common to all trials; ``preset`` names the preset of all other leaves.
        search: dimensions by leaf.
        configurations: instead of a search, a list of configurations: leaves that differ from `base`.
        start: configurations that the search tries first, after the base; or the sweeps whose winners they are.
        objective: metrics, each to be maximised or minimised. The first one selects the epoch of a trial; two or more
            give a Pareto front.
        constraints: bounds of metrics, as texts like ``<= 20``; configurations beyond them rank last.
        sampler: the sampler that proposes configurations.
        scheduler: the scheduler that stops trials early.
        budget: the limits of the sweep.
        seeds: number of runs of each configuration, which differ in their seed.
        runs: instead of seeds, runs that differ in more.
        resources: the resources of one trial.
        concurrent: number of concurrent trials; ``auto`` for as many as the resources allow.
        failures: the handling of trials that fail.
        storage: folder or address of the storage that holds the sweep.
    """

    name: Annotated[str, Field(strict=True), AfterValidator(_check_name)]
    data: Address
    base: Mapping[str, Any] = {}
    search: Mapping[str, Dimension] = {}
    configurations: tuple[Mapping[str, Any], ...] | None = None
    start: Start = ()
    objective: Mapping[str, Literal["max", "min"]]
    constraints: Mapping[str, Annotated[str, Field(strict=True)]] = {}
    sampler: Sampler = Sampler()
    scheduler: Scheduler = Scheduler()
    budget: Budget
    seeds: Annotated[WholeNumber, Field(ge=1, le=1000)] = 1
    runs: Runs = Runs()
    resources: Resources = Resources()
    concurrent: Literal["auto"] | PositiveInt = "auto"
    failures: Failures = Failures()
    storage: Address = "./runs"

    @field_validator("objective")
    @classmethod
    def _not_empty(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        if not value:
            raise ValueError("expected one entry or more")
        return value

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if bool(self.search) == bool(self.configurations):
            both = "either this or configurations, not both" if self.search else "one entry or more"
            raise LocatedError(("search",), f"expected {both}")
        if self.runs.folds and self.seeds > 1:
            raise LocatedError(("seeds",), "expected either this or runs.folds, not both: each fold has its own seed")
        for key in ("data.folds", "data.fold") if self.runs.folds else ():
            if key in self.base:
                raise LocatedError(("base", key), "expected no value: runs.folds sets it")
        if self.budget.trials * self.run_count > MOST_TRIALS:
            path = ("runs", "folds") if self.runs.folds else ("seeds",)
            raise LocatedError(path, f"expected at most {MOST_TRIALS} trials: budget.trials times {'.'.join(path)}")
        if self.configurations and self.budget.trials != len(self.configurations):
            raise LocatedError(("budget", "trials"), f"expected {len(self.configurations)}, as many as configurations")
        if self.start and self.configurations:
            raise LocatedError(("start",), "expected only with search")
        if not isinstance(self.start, StartFrom):
            try:
                check_start_count(len(self.start), self.budget.trials)
            except UserError as error:
                raise LocatedError(("start",), str(error)) from error
        first, *others = self.objective
        for metric in self.objective:
            if metric not in SECOND_METRICS:
                raise LocatedError.unknown(("objective",), metric, SECOND_METRICS, "a metric of the holdout or a cost")
        for metric, text in self.constraints.items():
            if metric not in SECOND_METRICS:
                raise LocatedError.unknown(
                    ("constraints",), metric, SECOND_METRICS, "a metric of the holdout or a cost"
                )
            try:
                parse_limit(metric, text)
            except ValueError as error:
                raise LocatedError(("constraints", metric), f"{error}, not {shown(text)}") from error
        if first not in SELECTION_METRICS:
            raise LocatedError(
                ("objective", first), f"expected {' or '.join(SELECTION_METRICS)} as the first objective"
            )
        if self.objective[first] != "max":
            raise LocatedError(("objective", first), f"expected max, not {self.objective[first]}")
        if others and self.budget.patience is not None:
            raise LocatedError(("budget", "patience"), "expected only with one objective")
        if not others and self.scheduler.name == "moasha":
            raise LocatedError(("scheduler", "name"), "expected any but moasha with one objective")
        if others and self.scheduler.name not in ("moasha", "none"):
            if "scheduler" in self.model_fields_set:
                number = len(self.objective)
                raise LocatedError(("scheduler", "name"), f"expected moasha or none with {number} objectives")
            object.__setattr__(self, "scheduler", Scheduler(name="none"))
        within = self.scheduler.within
        if within is not None and self.scheduler.name == "none":
            raise LocatedError(
                ("scheduler", "within"), "expected only with a scheduler that stops trials, not with none"
            )
        if within is not None and (within not in self.search or self.search[within].values is None):
            listed = [key for key, dimension in self.search.items() if dimension.values is not None]
            expected = f"one of {', '.join(listed)}" if listed else "a searched leaf with values:"
            raise LocatedError(("scheduler", "within"), f"expected {expected}, not {shown(within)}")
        if self.sampler.shrink and (others or self.sampler.name not in ("tpe", "gp")):
            raise LocatedError(("sampler", "shrink"), "expected only with tpe or gp, and one objective")
        if self.races and self.run_count < max(2, self.scheduler.minimum):
            most = max(2, self.scheduler.minimum)
            raise LocatedError(("scheduler", "name"), f"expected runs.folds or seeds of at least {most} with race")
        if self.sampler.name == "grid":
            for key, dimension in self.search.items():
                size = dimension.size
                if size is None:
                    raise LocatedError(("search", key), "expected values: or step: for the sampler grid")
                if size > MOST_IN_GRID:
                    expected = f"at most {MOST_IN_GRID} values for the sampler grid"
                    raise LocatedError(("search", key), f"expected {expected}, not {size}")
        return self

    @property
    def directions(self) -> tuple[Literal["max", "min"], ...]:
        """The direction of each objective, in the order of the objectives."""
        return tuple(self.objective.values())

    @property
    def run_count(self) -> int:
        """Number of runs, that is trials, of each configuration."""
        return self.runs.folds or self.seeds

    def run_leaves(self, seed: int, run: int) -> dict[str, Any]:
        """The leaves in which a run differs from the others of its configuration.

        Args:
            seed: of the first run.
            run: index of the run.
        """
        held_out = {"data.folds": self.runs.folds, "data.fold": run} if self.runs.folds else {}
        return {"seed": seed + run, **held_out}

    @property
    def holds_out(self) -> bool:
        """Whether trials hold out images, on which they are evaluated."""
        return bool(self.runs.folds) or self.base_config().data.holds_out

    @property
    def races(self) -> bool:
        """Whether the runs of a configuration begin one after the other, as long as it may be the best."""
        return self.scheduler.name == "race"

    @property
    def runs_of_the_best(self) -> int:
        """The number of completed runs that a configuration needs to be called the best."""
        return self.scheduler.minimum if self.races else 1

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The constraints."""
        return tuple(parse_limit(metric, text) for metric, text in self.constraints.items())

    @property
    def needs_masks(self) -> bool:
        """Whether an objective or constraint can be computed only from ground-truth masks."""
        return any(metric.rpartition("/")[2] in _MASK_METRICS for metric in (*self.objective, *self.constraints))

    def base_config(self) -> Config:
        """The base configuration, which is configuration 0."""
        own = {key: value for key, value in self.base.items() if key != "preset"}
        chosen = {**own, "select.by": SELECTION_METRICS[next(iter(self.objective))]}
        return resolve(self.base.get("preset"), flags=chosen, environment={}).config

    def slowest_config(self) -> Config:
        """The base configuration with the latest evolution of the labels that a configuration of the sweep may have.

        By it the first rung is set, which is the same for all.
        """
        config = self.base_config()
        refine, shares = self._listed("labels.refine"), self._listed("labels.evolve_after")
        labels = replace(config.labels, evolve_after=max([config.labels.evolve_after, *map(float, shares)]))
        return replace(config, labels=replace(labels, refine="evolve") if "evolve" in refine else labels)

    def _listed(self, key: str) -> list[Any]:
        """The values of a leaf that the search or the configurations name, or the bounds of its range."""
        dimension = self.search.get(key)
        searched = [] if dimension is None else [*(dimension.values or dimension.bounds or ())]
        return searched + [one[key] for one in self.configurations or () if key in one]

    def require_masks(self, present: bool) -> None:
        """Refuse an objective or constraint that cannot be computed on the data set.

        Args:
            present: whether the data set has masks of its training images.

        Raises:
            UserError: an objective or constraint needs masks, and there are none.
        """
        if self.needs_masks and not present:
            metrics = (*self.objective, *self.constraints)
            metric = next(metric for metric in metrics if metric.rpartition("/")[2] in _MASK_METRICS)
            key = "objective" if metric in self.objective else "constraints"
            raise UserError(
                f"{key}: {metric} needs true masks, and {self.data} has none; holdout/point_score needs points only"
            )

    def to_json(self) -> str:
        """The sweep as JSON with all keys of a sweep file, defaults included."""
        return self.model_dump_json(by_alias=True, indent=1)

    @classmethod
    def from_json(cls, text: str, source: str = "sweep.json") -> SweepSpec:
        """Read and check the JSON that `to_json` wrote, maybe of an earlier version.

        Raises:
            UserError: the text is not JSON, or not a valid sweep.
        """
        return _checked(Document(source, _under_present_names(parse_json(text, dict[str, Any], source))))


def check_start_count(count: int, trials: int, location: str = "") -> None:
    """Refuse more configurations to start with than fit into the budget beside the base.

    Raises:
        UserError: there are more.
    """
    if count >= trials and count:
        where = f"{location}: " if location else ""
        raise UserError(f"{where}expected no more than {trials - 1}, as budget.trials counts the base too, not {count}")


def load_sweep(path: Path, environment: Mapping[str, str]) -> SweepSpec:
    """Read and check a sweep file.

    Relative paths are relative to the current folder. As for a single run, an environment variable such as
    SEMPRIOR__SCAM__SCALE=0.3 overrides a leaf of the base; SEMPRIOR_STORAGE overrides the storage.

    Args:
        path: path of the file.
        environment: the environment variables.

    Raises:
        UserError: the file is invalid.
    """
    document = read_yaml(path)
    content, lines = document.content, document.lines
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, like `name: my-sweep`")
    content = {"name": path.stem, **content}
    if isinstance(content.get("base"), dict):
        content["base"] = document.flat("base")
    overrides = environment_leaves(environment)
    for key, value in overrides.items():
        check_leaf(key, value, "environment")
        if isinstance(content.get("search"), dict) and key in content["search"]:
            raise UserError(
                f"{document.location(('search', key))}: search: {key} is also set in the environment;"
                f" unset {variable_of(key)}"
            )
    if overrides and isinstance(content.get("base", {}), dict):
        content["base"] = {**content.get("base", {}), **overrides}
    if environment.get(STORAGE_VARIABLE):
        content["storage"] = environment[STORAGE_VARIABLE]
    outside: dict[KeyPath, str] = {("base", key): f"environment: {variable_of(key)}" for key in overrides}
    return _checked(Document(document.source, content, lines, outside))


def _under_present_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a stored sweep whose leaves have their names of today; what is no sweep is refused later."""
    found = dict(content)
    if isinstance(content.get("base"), dict):
        found["base"] = with_present_names(content["base"])
    for key in ("configurations", "start"):
        if isinstance(content.get(key), list):
            found[key] = [with_present_names(leaves) if isinstance(leaves, dict) else leaves for leaves in content[key]]
    if isinstance(content.get("search"), dict):
        found["search"] = {}
        for key, stored in content["search"].items():
            dimension = dict(stored) if isinstance(stored, dict) else stored
            renamed = next(iter(with_present_names({key: True})))
            if isinstance(dimension, dict):
                if renamed != key and isinstance(dimension.get("values"), list):
                    dimension["values"] = [with_present_names({key: value})[renamed] for value in dimension["values"]]
                if isinstance(dimension.get("when"), dict):
                    dimension["when"] = with_present_names(dimension["when"])
            found["search"][renamed] = dimension
    return found


def _checked(document: Document) -> SweepSpec:
    try:
        spec = SweepSpec.model_validate(document.content)
    except ValidationError as error:
        raise UserError(first_error(error, document, SweepSpec)) from error
    check_leaves(spec.base, spec.search, document, folded=bool(spec.runs.folds))
    if not isinstance(spec.start, StartFrom):
        check_start(spec.start, spec.search, flatten(spec.base_config()), document)
    for index, configuration in enumerate(spec.configurations or ()):
        check_configuration(spec.base, configuration, index, document)
    expected = SELECTION_METRICS[next(iter(spec.objective))]
    if spec.base.get("select.by", expected) != expected:
        raise UserError(
            f"{document.location(('base', 'select.by'))}: base: select.by: expected {expected}, because of the first"
            " objective"
        )
    first, config = spec.scheduler.first, spec.slowest_config()
    if first != "auto" and not first_rung(config) <= first < config.epochs:
        raise UserError(
            f"{document.location(('scheduler', 'first'))}: scheduler: first: expected auto or an epoch from"
            f" {first_rung(config)}, the first evaluation after an outer pass and, if labels evolve, an evolution, to"
            f" {config.epochs - 1}, not {first}"
        )
    return spec
