"""Settings of configurations, as the page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semprior.pages.blocks import Cell, Column, Table
from tune.monitor.repeat_command import differences_from_preset
from tune.monitor.tables import format_value
from tune.pages.gathered import SweepData
from tune.spec.dimensions import Dimension
from tune.store.ranking import Ranked

OWN = ("seed", "data.fold", "data.folds")
"""Settings in which the runs of one configuration differ."""


def shown_value(value: object) -> str:
    """A value of a setting; a dash for None."""
    return format_value(value) or "-"


def in_lines(params: Mapping[str, Any], separator: str = "\n") -> str:
    """The searched settings, a line each."""
    return separator.join(f"{key} = {shown_value(value)}" for key, value in params.items()) or "the preset itself"


def number_of(entry: Ranked) -> str:
    """The number of a configuration, which is the id of its trial if it has one run."""
    return entry.trial.partition(".")[0]


def differences_table(data: SweepData, most: int) -> Table:
    """The settings of the first configurations beside those of the preset and of trial 0, as far as they differ.

    Args:
        data: the sweep.
        most: number of configurations.
    """
    first = [one.entry for one in data.ranking.shown[:most]]
    configs = [data.trials[entry.trial].config for entry in first]
    preset_of = {
        key: preset
        for config in configs
        for key, (_, preset) in differences_from_preset(config).items()
        if key not in OWN
    }
    base = data.trials[data.base.trial].config if data.base else {}
    columns = [Column("setting"), Column(f"preset {configs[0]['preset']}" if configs else "preset")]
    columns += [Column("trial 0000", hint="The base of the sweep, with which the search began.")] if base else []
    columns += [Column(f"place {entry.place}: {number_of(entry)}", hint=in_lines(entry.params)) for entry in first]
    rows = []
    for key, preset in preset_of.items():
        values = [shown_value(preset)] + ([shown_value(base.get(key))] if base else [])
        values += [shown_value(config.get(key)) for config in configs]
        rows.append((key, *values))
    caption = "Settings that differ from the preset, of the first configurations"
    return Table(tuple(columns), tuple(sorted(rows)), caption)


def dimensions_table(data: SweepData) -> Table:
    """What was searched: each dimension with its range, its value in trial 0 and in the best configuration."""
    spec = data.sweep.spec
    best = data.best.entry if data.best else None
    base = data.history.space.base
    rows = []
    for key, dimension in spec.search.items():
        found = shown_value(best.params.get(key)) if best else "-"
        rows.append((key, _range(dimension), _condition(dimension), shown_value(base.get(key)), found))
    columns = ("dimension", "searched", "only if", "trial 0000", "best")
    return Table(tuple(map(Column, columns)), tuple(rows), "The search space")


def listed_table(configurations: Sequence[Mapping[str, Any]]) -> Table:
    """The configurations of a sweep that lists them."""
    rows = tuple(
        (Cell(f"{number:04d}", float(number)), in_lines(one, ", ")) for number, one in enumerate(configurations)
    )
    return Table((Column("configuration", numeric=True), Column("settings")), rows, "The configurations")


def _range(dimension: Dimension) -> str:
    if dimension.values is not None:
        return "one of " + ", ".join(shown_value(value) for value in dimension.values)
    if dimension.bounds is None:
        stages = "every stage" if dimension.subset == "all" else f"stages {shown_value(dimension.subset)}"
        return f"{stages}, on or off"
    low, high = (format_value(bound) for bound in dimension.bounds)
    step = f" in steps of {dimension.step:g}" if dimension.step is not None else ""
    return f"{low} to {high}{', on a logarithmic scale' if dimension.log else ''}{step}"


def _condition(dimension: Dimension) -> str:
    return " and ".join(f"{key} is {shown_value(value)}" for key, value in dimension.when.items())
