"""Which of millions of records count, and in what order: `tune.records.visible` on columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tune.records import BEGINNING, KINDS

KEYS = ("trial", "attempt", "epoch", "kind", "writer")
"""The columns that `arrange` needs of every row; of some it needs ``time``."""
NEVER = np.int64(1) << 31  # an epoch that no run reaches


@dataclass(frozen=True)
class Arranged:
    """The records that count. T trials, V reports; positions are rows of the table that was arranged.

    Attributes:
        trials: their ids, in order.
        reports: (V,) positions of the reports, by trial and epoch.
        owners: (V,) which trial each report is of.
        epochs: (V,) its epoch.
        starts: (T,) position of the highest attempt's start; -1 without one.
        ends: (T,) position of the end; -1 while the trial runs.
        firsts: (T,) position of one record of the trial.
        attempts: (T,) the highest attempt.
        told: (N,) positions of all records, each once, whether it counts or not.
        tellers: (N,) which trial each of these is of.
    """

    trials: list[str]
    reports: np.ndarray
    owners: np.ndarray
    epochs: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    firsts: np.ndarray
    attempts: np.ndarray
    told: np.ndarray
    tellers: np.ndarray

    def total(self, column: pa.ChunkedArray) -> np.ndarray:
        """(T,) sums over all records of each trial, of a column of the table."""
        return np.bincount(self.tellers, column.to_numpy()[self.told], len(self.trials))


def arrange(columns: dict[str, pa.ChunkedArray], time_of: Callable[[np.ndarray], np.ndarray]) -> Arranged:
    """Arrange records in any order and with doubles.

    Args:
        columns: `KEYS`; taken out of the dictionary as they are used, for they are large.
        time_of: gives the times of the rows at some positions; asked for few of them.
    """
    trials, trial = ranked_words(columns.pop("trial"))
    _, writer = ranked_words(columns.pop("writer"))
    kind = ranked_kinds(columns.pop("kind"))
    attempt, epoch = columns.pop("attempt").to_numpy(), columns.pop("epoch").to_numpy()
    pa.default_memory_pool().release_unused()
    rows = _told_once([trial, attempt, writer, epoch, kind], time_of).astype(np.int32)  # half of the memory
    trial = trial[rows]  # one after the other, as all of them in both orders take memory
    attempt = attempt[rows]
    writer = writer[rows]
    epoch = epoch[rows]
    kind = kind[rows]

    # groups of rows of one trial, attempt and writer, in order
    firsts = np.flatnonzero(_changes(trial) | _changes(attempt) | _changes(writer))
    begin = np.isin(kind, [KINDS.index(name) for name in BEGINNING])
    begins = np.minimum.reduceat(np.where(begin, epoch, NEVER), firsts) if len(rows) else firsts
    limits = _least_of_later(begins, trial[firsts])
    group = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, len(rows))))
    counts = (kind == KINDS.index("report")) & (epoch < limits[group])

    number = len(trials)
    top = np.zeros(number, np.int64)
    np.maximum.at(top, trial[firsts], attempt[firsts])
    starting = kind == KINDS.index("start")
    ending = np.flatnonzero((kind == KINDS.index("end")) & (attempt == top[trial]))
    ending = ending[np.argsort(time_of(rows[ending]), kind="stable")] if len(ending) > 1 else ending
    return Arranged(
        trials=trials,
        reports=rows[counts],
        owners=trial[counts],
        epochs=epoch[counts],
        starts=last_of_each(trial[starting], rows[starting], number),
        ends=last_of_each(trial[ending], rows[ending], number),
        firsts=last_of_each(trial, rows, number),
        attempts=top,
        told=rows,
        tellers=trial,
    )


def ranked_words(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The different words of a dictionary column, in order, and for each row (N,) the place of its word."""
    if len(column) == 0:
        return [], np.zeros(0, np.int32)
    joined = pa.table({"words": column}).unify_dictionaries()["words"].combine_chunks()
    words = joined.dictionary.to_pylist()
    order = sorted(range(len(words)), key=words.__getitem__)
    places = np.empty(len(words), np.int32)
    places[order] = np.arange(len(words))
    return [words[index] for index in order], places[joined.indices.to_numpy()]


def ranked_kinds(column: pa.ChunkedArray) -> np.ndarray:
    """For each row (N,) the place of its kind in `records.KINDS`."""
    words, places = ranked_words(column)
    return np.array([KINDS.index(word) for word in words], np.int8)[places] if words else places


def _told_once(keys: Sequence[np.ndarray], time_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Rows in the order of their keys; of rows with equal keys only that of the latest time."""
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    lows = [int(key.min()) for key in keys]
    widths = [(int(key.max()) - low).bit_length() for key, low in zip(keys, lows, strict=True)]
    if sum(widths) > 63:
        order = np.lexsort(keys[::-1])
        repeats = np.logical_and.reduce([~_changes(key[order]) for key in keys])
    else:
        packed = np.zeros(len(keys[0]), np.int64)
        for key, low, width in zip(keys, lows, widths, strict=True):
            packed <<= width
            packed |= key - low
        if (packed[1:] > packed[:-1]).all():
            return np.arange(len(packed))
        order = np.argsort(packed, kind="stable")  # sorted runs, which the files are, are merged and not sorted anew
        repeats = ~_changes(packed[order])
    if not repeats.any():
        return order
    tied = np.flatnonzero(repeats | np.append(repeats[1:], False))
    group = np.cumsum(~repeats)[tied]
    order[tied] = order[tied][np.lexsort((time_of(order[tied]), group))]
    return order[~np.append(repeats[1:], False)]


def _changes(column: np.ndarray) -> np.ndarray:
    """(N,) whether each value differs from the one before; the first does."""
    return np.append(True, column[1:] != column[:-1]) if len(column) else np.zeros(0, bool)


def _least_of_later(begins: np.ndarray, trial: np.ndarray) -> np.ndarray:
    """(G,) the least beginning among the later groups of the same trial; `NEVER` for the last."""
    if not len(begins):
        return begins
    # a trial's values all lie above those of the trials before it, so that one running minimum serves all
    least = np.minimum.accumulate((begins + trial * (2 * NEVER))[::-1])[::-1] - trial * (2 * NEVER)
    limits = np.full(len(begins), NEVER)
    followed = trial[:-1] == trial[1:]
    limits[:-1][followed] = least[1:][followed]
    return limits


def last_of_each(owners: np.ndarray, positions: np.ndarray, number: int) -> np.ndarray:
    """(number,) the last position of each owner; -1 where it has none."""
    found = np.full(number, -1, np.int64)
    found[owners] = positions  # of an owner that comes again the last stays
    return found
