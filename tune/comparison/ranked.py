"""The first configurations of a ranking, compared on the same images.

The store ranks by value alone. The first of the ranking are compared image by image (`tune.comparison.paired`):

- Each value is shown with its difference from the best one and from that of configuration 0. Those that may be called
  the best also have the probability of being it: they meet the constraints and, in a race, have enough runs. If none
  has both, all that meet the constraints may be the best, and if none does, all.
- The first `BANDED` of them are divided into **bands**. The best remaining configuration opens a band, which goes on
  for as long as the next one by value is not worse by more than the standard error of its difference from the first.
  In a band, cheaper configurations (by device seconds per trial) come first. Costs that differ by less than 10% are
  within the noise of the clock and count as equal: the cheapest configuration of a band and all within 10% of it come
  first, by value; then the cheapest of the others and all within 10% of it, and so on. Only a configuration whose
  trials all completed can precede a better one by being cheaper. One that was stopped early, failed, diverged or still
  runs is cheap only because it is incomplete; in its band it counts as no cheaper than the better ones.
- Configurations that have different runs, as in a race, are ordered by their differences, over the runs that both have,
  from the best of those with the most runs.
- With folds, the value is that of the pooled images of all folds. The store ranks by the mean over the folds, which
  chooses the configurations that are compared here.

Only the terms of the configurations that are compared are read. Where they are missing, differences are unknown, and
the value decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from statistics import median

import numpy as np

from semprior.evaluation.image_sums import METRICS, TEACHER, ImageSums
from semprior.io.manifest import DamagedError
from semprior.io.storage import Storage
from tune.comparison.paired import Comparison, Difference
from tune.comparison.stored_sums import read_sums
from tune.spec.constraints import Limit
from tune.store.ranking import Direction, Ranked, RankedBy
from tune.store.records import run_index
from tune.store.results_store import ResultsStore

BANDED = 10
"""Number of the first configurations by value that are divided into bands, however many are shown."""
SAME_COST = 1.1
"""Factor up to which costs count as equal, because runs of the same configuration differ by some percent."""
_REQUESTS = 8  # to the storage at a time
_HOLDOUT = "holdout/"


@dataclass(frozen=True)
class Standing:
    """One objective of a configuration beside those of others.

    Attributes:
        from_best: difference from the best of those that may be called the best; None if it is not known.
        from_base: difference from the value of configuration 0; likewise.
        probability: of being the best; None if it is not known, or may not be called the best.
    """

    from_best: Difference | None = None
    from_base: Difference | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Compared:
    """A configuration of the ranking.

    Attributes:
        entry: its place, values and trials. With folds, the values and errors are those of the pooled images.
        band: number of the band in its front, from 1; None beyond the bands.
        standings: for each objective.
    """

    entry: Ranked
    band: int | None
    standings: tuple[Standing, ...]


@dataclass(frozen=True)
class ComparedRanking:
    """The first configurations of a ranking.

    Attributes:
        shown: the first configurations, by place.
        missing: the trials whose terms are missing or damaged, so that their differences are not known.
        leader: with a single objective, the best by value of those that may be called the best. A cheaper one of its
            band can precede it. None without configurations.
        gains: by objective, the best configuration, or of a single objective the first, and its difference from
            configuration 0; empty if configuration 0 has no value.
        error: the standard error of a value of the first objective beside the others: the difference of two independent
            values with this error has the median standard error of the first `BANDED` differences from the best. None
            if no difference is known.
    """

    shown: list[Compared]
    missing: tuple[str, ...]
    leader: Ranked | None = None
    gains: dict[str, tuple[Ranked, Ranked, Difference | None]] = field(default_factory=dict)
    error: float | None = None


def compare_first(
    store: ResultsStore,
    objectives: Mapping[str, Direction],
    by: RankedBy = "best",
    *,
    limit: int = BANDED,
    minimum: int = 1,
    limits: Sequence[Limit] = (),
) -> ComparedRanking:
    """Rank the configurations of a store and compare the first of them.

    Args:
        store: the store of the sweep.
        objectives: as in `ResultsStore.rank`.
        by: likewise.
        limit: number of places to return.
        minimum: as in `ResultsStore.rank`.
        limits: likewise.

    Raises:
        UserError: the storage cannot be read.
    """
    several = len(objectives) > 1
    read = max(limit, BANDED)
    ranked = store.rank(objectives, by, limit=None if several else read, include=(0,), minimum=minimum, limits=limits)
    chosen = [entry for entry in ranked if entry.place <= read or entry.configuration == 0]
    signs = [1 if direction == "max" else -1 for direction in objectives.values()]
    if several:
        chosen += [ranked[place] for place in _best(ranked, signs) if ranked[place] not in chosen]
        chosen.sort(key=lambda entry: entry.place)
    wanted = {trial: address for entry in chosen for trial, address in zip(entry.trials, entry.images, strict=True)}
    if not any(map(_image_metric, objectives)):
        wanted = {}
    images = read_images(store.storage, wanted)
    runs = [{run_index(trial): images[trial] for trial in entry.trials if trial in images} for entry in chosen]
    comparisons = [
        Comparison(runs if (name := _image_metric(metric)) else [{}] * len(chosen), name or METRICS[0])
        for metric in objectives
    ]
    chosen = [_with_pooled_values(entry, comparisons, index) for index, entry in enumerate(chosen)]
    order, bands = _in_bands(chosen, comparisons[0], signs[0])
    places = sorted(entry.place for entry in chosen)
    contenders = _contenders(chosen, several)
    standings = _standings(chosen, contenders, comparisons, signs)
    compared = [
        Compared(replace(chosen[index], place=place), bands.get(index), standings[index])
        for place, index in zip(places, order, strict=True)
    ]
    gains = _gains(compared, comparisons, list(objectives), signs, order)
    shown = [one for one in compared if one.entry.place <= limit]
    ahead = None if several or not chosen else _falling(contenders, chosen, comparisons[0], signs[0])[0]
    leader = None if ahead is None else compared[order.index(ahead)].entry
    missing = tuple(sorted(wanted.keys() - images))
    return ComparedRanking(shown, missing, leader, gains, _typical_error(compared[:BANDED]))


def _typical_error(compared: Sequence[Compared]) -> float | None:
    """The error of one of two values whose difference has the median error of the differences from the best one."""
    differences = [one.standings[0].from_best for one in compared]
    errors = [one.error for one in differences if one is not None and one.error]  # of the best one itself it is 0
    return median(errors) / math.sqrt(2) if errors else None


def _contenders(entries: Sequence[Ranked], several: bool) -> list[int]:
    """Those that may be called the best; of a single objective, only those in front 1 have enough runs."""
    met = [index for index, entry in enumerate(entries) if not entry.unmet]
    enough = [index for index in met if several or entries[index].front == 1]
    return enough or met or list(range(len(entries)))


def _best(entries: Sequence[Ranked], signs: Sequence[int]) -> list[int]:
    """The index of the best entry in each objective that meets the constraints, if any does; empty without entries."""
    meeting = [place for place, entry in enumerate(entries) if not entry.unmet] or range(len(entries))
    if not entries:
        return []
    return [max(meeting, key=lambda place: sign * entries[place].values[index]) for index, sign in enumerate(signs)]


def _image_metric(metric: str) -> str:
    """The metric of the images, without ``holdout/``; empty for a cost, which has nothing to do with them."""
    name = metric.removeprefix(_HOLDOUT)
    return name if name != metric and name.removeprefix(TEACHER) in METRICS else ""


def read_images(storage: Storage, addresses: Mapping[str, str | None]) -> dict[str, ImageSums]:
    """The terms of evaluations, by trial, as far as they are there and not damaged.

    Args:
        storage: the storage of the sweep.
        addresses: of the terms, by trial; None for those that are known to be missing.

    Raises:
        StorageError: the storage cannot be read.
    """

    def read(address: str | None) -> ImageSums | None:
        try:
            return read_sums(storage, address) if address is not None else None
        except DamagedError:
            return None

    with ThreadPoolExecutor(_REQUESTS) as pool:
        found = zip(addresses, pool.map(read, addresses.values()), strict=True)
        return {trial: images for trial, images in found if images is not None}


def _with_pooled_values(entry: Ranked, comparisons: Sequence[Comparison], index: int) -> Ranked:
    """With several folds, all of which are known, the values and errors of the pooled images."""
    values, errors = list(entry.values), list(entry.errors)
    for objective, comparison in enumerate(comparisons):
        known = len(comparison.configurations[index]) == len(entry.trials)
        if known and comparison.pooled(index) and (value := comparison.value(index)) is not None:
            values[objective], errors[objective] = value, comparison.error(index)
    return replace(entry, values=tuple(values), errors=tuple(errors))


def _in_bands(entries: Sequence[Ranked], comparison: Comparison, sign: int) -> tuple[list[int], dict[int, int]]:
    """The order of the entries, by index, and the band of each of the first `BANDED`."""
    order: list[int] = []
    bands: dict[int, int] = {}
    first = list(range(min(BANDED, len(entries))))
    for _, front in groupby(first, key=lambda index: entries[index].front):
        falling = _falling(list(front), entries, comparison, sign)
        number = 0
        while falling:
            number += 1
            stop = 1
            while stop < len(falling) and _as_good(comparison.difference(falling[0], falling[stop]), sign):
                stop += 1
            band, falling = falling[:stop], falling[stop:]
            costs = np.array([entries[index].device_s for index in band])
            completed = np.array([entries[index].completed for index in band])
            counted = np.where(completed, costs, np.maximum.accumulate(costs))
            order += [band[place] for place in np.argsort(_cost_classes(counted), kind="stable")]
            bands |= dict.fromkeys(band, number)
    return [*order, *range(len(first), len(entries))], bands


def _falling(
    indices: Sequence[int], entries: Sequence[Ranked], comparison: Comparison, sign: int, objective: int = 0
) -> list[int]:
    """The order of some entries in an objective, the best first."""
    values = {index: entries[index].values[objective] for index in indices}
    runs = {index: frozenset(map(run_index, entries[index].trials)) for index in indices}
    if len(set(runs.values())) > 1:
        reference = max(indices, key=lambda index: (len(runs[index]), sign * values[index]))
        for index in indices:
            if runs[index] != runs[reference] and (found := comparison.difference(index, reference)) is not None:
                values[index] = values[reference] + found.value
    return sorted(indices, key=lambda index: -sign * values[index])


def _as_good(difference: Difference | None, sign: int) -> bool:
    """Whether the second is not worse than the first by more than the standard error of the difference."""
    if difference is None or difference.error is None:
        return False
    return sign * difference.value <= difference.error


def _cost_classes(cost: np.ndarray) -> np.ndarray:
    """(N,) classes of equal costs: 0 for the cheapest and all within 10% of it, 1 for the cheapest of the rest ..."""
    rising = np.argsort(cost, kind="stable")
    costs, classes = cost[rising], np.empty(len(cost), np.int64)
    start = number = 0
    while start < len(rising):
        stop = int(np.searchsorted(costs, costs[start] * SAME_COST, side="right"))
        classes[rising[start:stop]] = number
        start, number = stop, number + 1
    return classes


def _standings(
    entries: Sequence[Ranked], contenders: Sequence[int], comparisons: Sequence[Comparison], signs: Sequence[int]
) -> list[tuple[Standing, ...]]:
    base = next((index for index, entry in enumerate(entries) if entry.configuration == 0), None)
    columns = []
    for objective, (comparison, sign) in enumerate(zip(comparisons, signs, strict=True)):
        probabilities = comparison.probabilities(sign > 0, contenders)
        known = [index for index in contenders if comparison.configurations[index]]
        best = _falling(known, entries, comparison, sign, objective)[0] if known else None
        columns.append(
            [
                Standing(
                    None if best is None else comparison.difference(index, best),
                    None if base is None else comparison.difference(index, base),
                    probabilities[index],
                )
                for index in range(len(entries))
            ]
        )
    return list(zip(*columns, strict=True))


def _gains(
    compared: Sequence[Compared],
    comparisons: Sequence[Comparison],
    objectives: Sequence[str],
    signs: Sequence[int],
    order: Sequence[int],
) -> dict[str, tuple[Ranked, Ranked, Difference | None]]:
    entries = [one.entry for one in compared]
    base = next((place for place, entry in enumerate(entries) if entry.configuration == 0), None)
    if base is None:
        return {}
    found = {}
    for objective, metric in enumerate(objectives):
        best = _best(entries, signs)[objective] if len(objectives) > 1 else 0
        difference = comparisons[objective].difference(order[best], order[base])
        found[metric] = entries[best], entries[base], difference
    return found
