"""The visible records among millions: `tune.store.records.visible`, vectorised over columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tune.store.records import BEGINNING, RECORD_KINDS

KEY_COLUMNS = ("trial", "attempt", "epoch", "kind", "writer")
"""The columns that `find_visible_records` reads of all rows; it also reads ``time`` of a few rows."""
NO_EPOCH = np.int64(1) << 31  # greater than any epoch


@dataclass(frozen=True)
class VisibleRecords:
    """Positions (row indices in a table) of the visible records of T trials with V reports.

    Attributes:
        trials: ids of the trials, sorted.
        reports: (V,) positions of the reports, sorted by trial and epoch.
        report_trials: (V,) index of the trial of each report.
        epochs: (V,) epoch of each report.
        starts: (T,) position of the start of the highest attempt; -1 if there is none.
        ends: (T,) position of the end; -1 while the trial runs.
        any_record: (T,) position of some record of the trial.
        attempts: (T,) the highest attempt.
        distinct: (N,) positions of all records without duplicates, visible or not.
        distinct_trials: (N,) index of the trial of each of these.
    """

    trials: list[str]
    reports: np.ndarray
    report_trials: np.ndarray
    epochs: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    any_record: np.ndarray
    attempts: np.ndarray
    distinct: np.ndarray
    distinct_trials: np.ndarray

    def total(self, column: pa.ChunkedArray) -> np.ndarray:
        """(T,) sums of a column of the table over all distinct records of each trial."""
        sums: np.ndarray = np.bincount(self.distinct_trials, column.to_numpy()[self.distinct], len(self.trials))
        return sums


def find_visible_records(
    columns: dict[str, pa.ChunkedArray], time_of: Callable[[np.ndarray], np.ndarray]
) -> VisibleRecords:
    """Find the visible ones among records in any order and with duplicates.

    Args:
        columns: the `KEY_COLUMNS`. They are removed from the dictionary as they are used, because they are large.
        time_of: returns the times of the records at some positions; it is called for few of them.
    """
    trials, trial = sorted_words(columns.pop("trial"))
    _, writer = sorted_words(columns.pop("writer"))
    kind = kind_codes(columns.pop("kind"))
    attempt, epoch = columns.pop("attempt").to_numpy(), columns.pop("epoch").to_numpy()
    pa.default_memory_pool().release_unused()
    rows = _sorted_distinct([trial, attempt, writer, epoch, kind], time_of)
    rows = rows.astype(np.int32)  # half of the memory of int64
    trial = trial[rows]  # one column after the other, to save memory
    attempt = attempt[rows]
    writer = writer[rows]
    epoch = epoch[rows]
    kind = kind[rows]

    # a group consists of the rows of one trial, attempt and writer
    group_starts = np.flatnonzero(_changes(trial) | _changes(attempt) | _changes(writer))
    begin = np.where(np.isin(kind, [RECORD_KINDS.index(name) for name in BEGINNING]), epoch, NO_EPOCH)
    begins = np.minimum.reduceat(begin, group_starts) if len(rows) else group_starts
    del begin
    limits = _min_of_later_groups(begins, trial[group_starts])
    group = np.repeat(np.arange(len(group_starts)), np.diff(np.append(group_starts, len(rows))))
    is_visible = (kind == RECORD_KINDS.index("report")) & (epoch < limits[group])

    number = len(trials)
    attempts = np.zeros(number, np.int64)
    np.maximum.at(attempts, trial[group_starts], attempt[group_starts])
    is_start = kind == RECORD_KINDS.index("start")
    ends = np.flatnonzero((kind == RECORD_KINDS.index("end")) & (attempt == attempts[trial]))
    ends = ends[np.argsort(time_of(rows[ends]), kind="stable")] if len(ends) > 1 else ends
    return VisibleRecords(
        trials=trials,
        reports=rows[is_visible],
        report_trials=trial[is_visible],
        epochs=epoch[is_visible],
        starts=last_positions(trial[is_start], rows[is_start], number),
        ends=last_positions(trial[ends], rows[ends], number),
        any_record=last_positions(trial, rows, number),
        attempts=attempts,
        distinct=rows,
        distinct_trials=trial,
    )


def sorted_words(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The distinct texts of a dictionary column, sorted, and (N,) the index of each row's text among them."""
    if len(column) == 0:
        return [], np.zeros(0, np.int32)
    joined = pa.table({"words": column}).unify_dictionaries()["words"].combine_chunks()
    words = joined.dictionary.to_pylist()
    order = sorted(range(len(words)), key=words.__getitem__)
    ranks = np.empty(len(words), np.int32)
    ranks[order] = np.arange(len(words))
    return [words[index] for index in order], ranks[joined.indices.to_numpy()]


def kind_codes(column: pa.ChunkedArray) -> np.ndarray:
    """(N,) index of each row's kind in `records.RECORD_KINDS`."""
    words, codes = sorted_words(column)
    return np.array([RECORD_KINDS.index(word) for word in words], np.int8)[codes] if words else codes


def _sorted_distinct(keys: Sequence[np.ndarray], time_of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The positions of the rows, sorted by their keys; of rows with equal keys, only the latest."""
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
        order = np.argsort(packed, kind="stable")  # a stable sort merges sorted runs, and the files are sorted
        repeats = ~_changes(packed[order])
    if not repeats.any():
        return order
    tied = np.flatnonzero(repeats | np.append(repeats[1:], False))
    group = np.cumsum(~repeats)[tied]
    order[tied] = order[tied][np.lexsort((time_of(order[tied]), group))]
    distinct: np.ndarray = order[~np.append(repeats[1:], False)]
    return distinct


def _changes(column: np.ndarray) -> np.ndarray:
    """(N,) whether each value differs from the previous one; True for the first."""
    return np.append(True, column[1:] != column[:-1]) if len(column) else np.zeros(0, bool)


def _min_of_later_groups(begins: np.ndarray, trial: np.ndarray) -> np.ndarray:
    """(G,) minimum of `begins` over the later groups of the same trial; `NO_EPOCH` for its last group."""
    if not len(begins):
        return begins
    # an offset per trial makes its values greater than those of all previous trials: one running minimum suffices
    minima = np.minimum.accumulate((begins + trial * (2 * NO_EPOCH))[::-1])[::-1] - trial * (2 * NO_EPOCH)
    limits = np.full(len(begins), NO_EPOCH)
    followed = trial[:-1] == trial[1:]
    limits[:-1][followed] = minima[1:][followed]
    return limits


def last_positions(trials: np.ndarray, positions: np.ndarray, number: int) -> np.ndarray:
    """(number,) the last of the `positions` (N,) of each trial, by `trials` (N,); -1 if a trial has none."""
    last = np.full(number, -1, np.int64)
    last[trials] = positions  # the last assignment to an index wins
    return last
