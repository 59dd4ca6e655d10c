"""The winners of earlier sweeps as the first configurations of another one: ``start: {from: [SWEEP, ...], top: 5}``.

A winner may come from another space, and other data. What it has in common with the new space is taken over; values
that the new space does not have are left out, and the configuration has its base values there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semprior.config.schema import check_leaf, flatten
from semprior.errors import UserError
from semprior.io.storage import Storage
from semprior.reading.schema import shown
from tune.comparison.ranked import compare_first
from tune.search.space import Space
from tune.spec.dimensions import sorted_dimensions
from tune.spec.start_configurations import StartFrom, fits, is_searched, stage_count
from tune.spec.sweep_file import SweepSpec, check_start_count
from tune.store.ranking import Ranked
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep, find_sweep, open_sweep

_SHOWN = 3  # values that are left out


def with_winners(spec: SweepSpec, storage: Storage) -> tuple[SweepSpec, list[str]]:
    """Replace ``from`` in the ``start`` of a sweep by configurations.

    Args:
        spec: the sweep; returned as it is if its start is a list already.
        storage: the storage in which ids of sweeps are looked up.

    Returns:
        The sweep with a list of configurations to start with, and what is to be said, a line for each earlier sweep.

    Raises:
        UserError: there is no such sweep, it has no winners, or there are more of them than the budget allows.
    """
    if not isinstance(spec.start, StartFrom):
        return spec, []
    space = Space(spec)
    seen = {space.identity(space.base_parameters())}
    found: list[dict[str, Any]] = []
    said = []
    for name in spec.start.sweeps:
        sweep = open_sweep(name) if "/" in name else find_sweep(storage, name)
        winners = _winners(sweep, spec.start.top)
        left_out: list[str] = []
        before = len(found)
        for entry, config in winners:
            values = _shared_values(spec, entry, config, left_out)
            identity = space.identity(space.completed(values))
            if identity not in seen:
                seen.add(identity)
                found.append(values)
        said.append(_in_words(sweep.id, len(found) - before, len(winners), left_out))
    check_start_count(len(found), spec.budget.trials, "start")
    return spec.model_copy(update={"start": tuple(found)}), said


def _winners(sweep: Sweep, top: int) -> list[tuple[Ranked, Mapping[str, Any]]]:
    """The best configurations of a sweep, each with all leaves of its configuration.

    Raises:
        UserError: it has none that could be called the best.
    """
    store, spec = ResultsStore(sweep.storage), sweep.spec
    found = compare_first(
        store, dict(spec.objective), limit=top, minimum=spec.runs_of_the_best, limits=spec.limits
    ).shown
    met = [one.entry for one in found if not one.entry.unmet]
    ranked = [entry for entry in met if entry.front == 1 or not spec.races]
    if not ranked:
        missing = "a value" if not found else "a value that meets its constraints" if not met else ""
        lacks = f"trial with {missing}" if missing else f"configuration with {spec.runs_of_the_best} completed runs"
        raise UserError(f"start: from: {sweep.id}: has no {lacks}")
    histories = store.histories([entry.trial for entry in ranked])
    return [(entry, histories[entry.trial][-1].config) for entry in ranked]


def _shared_values(spec: SweepSpec, entry: Ranked, config: Mapping[str, Any], left_out: list[str]) -> dict[str, Any]:
    """The values of a winner that the new space has; the others that differ from its base are added to `left_out`."""
    base = flatten(spec.base_config())
    chosen: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for key in sorted_dimensions(spec.search):
        if not is_searched(key, spec.search, chosen, base):
            continue
        chosen[key] = base[key]
        if key not in config or config[key] == base[key]:
            continue
        value = check_leaf(key, config[key], f"start: {entry.trial}")
        if fits(key, spec.search[key], value, stage_count(chosen, base)):
            chosen[key] = values[key] = value
        else:
            left_out.append(f"{key}={shown(config[key])} of {entry.trial}")
    for key, value in entry.params.items():
        if key not in spec.search and base.get(key, value) != value:
            left_out.append(f"{key}={shown(value)} of {entry.trial}")
    return values


def _in_words(name: str, taken: int, winners: int, left_out: list[str]) -> str:
    text = f"start: {taken} configuration{'s' if taken != 1 else ''} of {name}"
    if winners > taken:
        text += f", {winners - taken} more of it equal the base or another one"
    if left_out:
        values = f"{len(left_out)} value{'s' if len(left_out) > 1 else ''}"
        more = ", ..." if len(left_out) > _SHOWN else ""
        text += f"; {values} outside of this search left out: {', '.join(left_out[:_SHOWN])}{more}"
    return text
