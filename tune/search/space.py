"""The search space: converts between leaves of semprior's configuration and Optuna's parameters (define-by-run).

The *parameters* of a configuration are the leaves that are searched in it, with semprior's values:
``{"clusters.count": 37, "scam.stages": [1, 3], "scam.scale": 0.2}``. A leaf whose condition does not hold is not a
parameter and keeps its base value. Optuna represents the parameters as numbers and choices, and ``scam.stages`` as one
switch per stage of the configuration's detector: ``scam.stages[1]``, ``scam.stages[2]``, ...
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from semprior.config.schema import Config, flatten, unflatten
from semprior.models.published import DetectorTraits, detector_traits
from semprior.models.stages import placed_stages
from tune.spec.dimensions import STAGES, Dimension, sorted_dimensions
from tune.spec.start_configurations import complete, is_searched, stage_count
from tune.spec.sweep_file import SweepSpec

Parameters = dict[str, Any]


class SuggestingTrial(Protocol):
    """The methods of an Optuna trial that `Space.sample` uses."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...  # noqa: ANN401


class Space:
    """The search space of a sweep.

    Args:
        spec: the sweep.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self.dimensions: Mapping[str, Dimension] = spec.search
        self.order = sorted_dimensions(spec.search)
        self.base = flatten(spec.base_config())
        searched = spec.search["detector"].values if "detector" in spec.search else None
        self._detectors = {name: detector_traits(name) for name in searched or (self.base["detector"],)}

    def sample(self, trial: SuggestingTrial) -> Parameters:
        """Sample parameters with an Optuna trial."""
        found: Parameters = {}
        for key in self.order:
            if not self._active(key, found):
                continue
            values: dict[str, Any] = {}
            for name, distribution in self._distributions(key, found).items():
                if isinstance(distribution, IntDistribution):
                    values[name] = trial.suggest_int(
                        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
                    )
                elif isinstance(distribution, FloatDistribution):
                    values[name] = trial.suggest_float(
                        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
                    )
                elif isinstance(distribution, CategoricalDistribution):
                    values[name] = trial.suggest_categorical(name, distribution.choices)
            found[key] = self._decoded(key, values, found)
        return found

    def base_parameters(self) -> Parameters:
        """The parameters of the base configuration, which may be outside of the searched ranges."""
        return self.completed({})

    def completed(self, given: Mapping[str, Any]) -> Parameters:
        """The parameters of a configuration of which some are given; the others have their base values."""
        return complete(given, self.dimensions, self.base)

    def leaves(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """All leaves of the configuration with these parameters, by flat keys."""
        return flatten(self.config(parameters))

    def config(self, parameters: Mapping[str, Any]) -> Config:
        """The configuration with these parameters."""
        return unflatten({**self.base, **parameters}, "sweep")

    def identity(self, parameters: Mapping[str, Any]) -> str:
        """A text that is equal for parameters of equal configurations."""
        leaves = {**self.base, **parameters}
        leaves[STAGES] = placed_stages(leaves[STAGES], self._stages(parameters))
        numbers = {k: float(v) for k, v in leaves.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        return json.dumps({**leaves, **numbers})

    def encoded(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution], bool]:
        """Convert parameters to Optuna's.

        The parameters of the base may be outside of the search space. Numbers are then clipped to their range, null is
        replaced by the detector's own value, and choices that are not searched are left out.

        Args:
            parameters: the parameters of a configuration.

        Returns:
            The values and distributions by Optuna's names, and whether they represent the parameters exactly.
        """
        values: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        exact = True
        for key in self.order:
            if key not in parameters:
                continue
            given = parameters[key]
            for name, distribution in self._distributions(key, parameters).items():
                value = self._encoded(key, name, given, distribution, parameters)
                if value is _NOT_ENCODABLE:
                    exact = False
                    continue
                values[name], distributions[name] = value, distribution
            exact &= self._decodes_to(key, values, given, parameters)
        return values, distributions, exact

    def inactive(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Optuna's values and distributions of the base in the dimensions that are not searched with `parameters`."""
        values: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        for key in self.order:
            if key in parameters:
                continue
            for name, distribution in self._distributions(key, parameters).items():
                value = self._encoded(key, name, self.base[key], distribution, parameters)
                if value is not _NOT_ENCODABLE:
                    values[name], distributions[name] = value, distribution
        return values, distributions

    def all(self, limit: int) -> list[Parameters] | None:
        """The parameters of all configurations; None if there are more than `limit` of them."""
        sizes = [dimension.size for dimension in self.dimensions.values()]
        if any(size is None for size in sizes):
            return None
        found = list(itertools.islice(self._walk(0, {}), limit + 1))
        return found if len(found) <= limit else None

    def _walk(self, position: int, above: Parameters) -> Iterator[Parameters]:
        if position == len(self.order):
            yield above
            return
        key = self.order[position]
        if not self._active(key, above):
            yield from self._walk(position + 1, above)
            return
        distributions = self._distributions(key, above)
        for choice in _combinations([*distributions.values()]):
            value = self._decoded(key, dict(zip(distributions, choice, strict=True)), above)
            yield from self._walk(position + 1, {**above, key: value})

    def _active(self, key: str, chosen: Mapping[str, Any]) -> bool:
        """Whether a dimension is searched, given the parameters of the dimensions before it."""
        return is_searched(key, self.dimensions, chosen, self.base)

    def _stages(self, chosen: Mapping[str, Any]) -> int:
        return stage_count(chosen, self.base)

    def _detector(self, chosen: Mapping[str, Any]) -> DetectorTraits:
        name = chosen.get("detector", self.base["detector"])
        return self._detectors.get(name) or detector_traits(name)  # the base's detector need not be searched

    def _switched(self, key: str, chosen: Mapping[str, Any]) -> tuple[int, ...]:
        """The stages, counted from 1, that have a switch."""
        subset = self.dimensions[key].subset
        return tuple(range(1, self._stages(chosen) + 1)) if subset == "all" else tuple(sorted(subset or ()))

    def _distributions(self, key: str, chosen: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        dimension = self.dimensions[key]
        if dimension.int_range is not None:
            return {key: IntDistribution(*dimension.int_range, log=dimension.log, step=int(dimension.step or 1))}
        if dimension.float_range is not None:
            return {key: FloatDistribution(*dimension.float_range, log=dimension.log, step=dimension.step)}
        if dimension.values is not None:
            return {key: CategoricalDistribution([_choice(value) for value in dimension.values])}
        return {f"{key}[{stage}]": CategoricalDistribution([False, True]) for stage in self._switched(key, chosen)}

    def _decoded(self, key: str, values: Mapping[str, Any], chosen: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Convert Optuna's values to the value of a leaf."""
        dimension = self.dimensions[key]
        if dimension.values is not None:
            of_choice = {_choice(value): value for value in dimension.values}
            value = of_choice[values[key]]
            return list(value) if isinstance(value, tuple) else value
        if dimension.subset is None:
            return values[key]
        placed = [stage for stage in self._switched(key, chosen) if values[f"{key}[{stage}]"]]
        return "none" if not placed else "all" if len(placed) == self._stages(chosen) else placed

    def _encoded(
        self,
        key: str,
        name: str,
        given: Any,  # noqa: ANN401  # the value of any leaf
        distribution: BaseDistribution,
        chosen: Mapping[str, Any],
    ) -> Any:  # noqa: ANN401  # a value of any distribution
        """Convert the value of a leaf to Optuna's, or to the nearest one; `_NOT_ENCODABLE` if there is none."""
        if self.dimensions[key].subset is not None:
            placed = placed_stages(given, self._stages(chosen))
            return int(name[len(key) + 1 : -1]) - 1 in placed
        if given is None and not isinstance(distribution, CategoricalDistribution):
            published = self._detector(chosen)
            given = {"scam.scale": published.scam_scale, "optim.rate": published.learning_rate}.get(key)
        if isinstance(distribution, CategoricalDistribution):
            choice = _choice(tuple(given) if isinstance(given, list) else given)
            return choice if choice in distribution.choices else _NOT_ENCODABLE
        if given is None or not isinstance(distribution, IntDistribution | FloatDistribution):
            return _NOT_ENCODABLE
        value = min(max(given, distribution.low), distribution.high)
        if distribution.step is not None:
            value = _step(distribution, round((value - distribution.low) / distribution.step))
        return int(value) if isinstance(distribution, IntDistribution) else float(value)

    def _decodes_to(self, key: str, values: Mapping[str, Any], given: Any, chosen: Mapping[str, Any]) -> bool:  # noqa: ANN401
        names = self._distributions(key, chosen)
        if not names.keys() <= values.keys():
            return False
        decoded = self._decoded(key, values, chosen)
        if key == STAGES:
            count = self._stages(chosen)
            return placed_stages(decoded, count) == placed_stages(given, count)
        return bool(decoded == given)


_NOT_ENCODABLE = object()


def _choice(value: Any) -> Any:  # noqa: ANN401
    """Convert a choice to one that Optuna accepts: lists become text."""
    return json.dumps(value) if isinstance(value, tuple) else value


def _step(distribution: IntDistribution | FloatDistribution, index: int) -> float:
    """A value of a stepped range, without rounding errors."""
    return float(Decimal(str(distribution.low)) + index * Decimal(str(distribution.step)))


def _combinations(distributions: Sequence[BaseDistribution]) -> Iterator[tuple[Any, ...]]:
    """All combinations of values, one at a time: unlike `itertools.product`, it does not list a range first."""
    if not distributions:
        yield ()
        return
    for value in _all_values(distributions[0]):
        for others in _combinations(distributions[1:]):
            yield value, *others


def _all_values(distribution: BaseDistribution) -> Iterable[Any]:
    """All values of a finite distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        count = round((distribution.high - distribution.low) / distribution.step) + 1
        return (_step(distribution, index) for index in range(count))
    raise ValueError(f"{distribution} is infinite")
