"""Patience: a sweep ends when many configurations in a row have not improved on the best one.

    configurations  0     1     2     3     4     5
    value          .50   .48   .53   .60   .61   .58      each with a standard error of .02
    leader           0     0     2     3     3     3
    in a row         0     1     0     0     1     2      .61 is above .60, but not by more than .02

Where the terms of both evaluations are known image by image, the standard error is that of their difference
(`tune.comparison.paired`), over the runs that both have: one that has only had a hard fold yet is compared on that
fold. Else it is the leader's own.

The order is that of the numbers, so that the count follows from the results alone, whichever driver asks. Small gains
add up, because the leader changes only by an improvement. Failed configurations do not count: they say nothing about
the search.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tune.comparison.paired import Comparison, Runs


@dataclass(frozen=True)
class Outcome:
    """The result of a configuration that has ended.

    Attributes:
        number: number of the configuration.
        value: the first objective, which is maximised; None if it has none, or does not meet the constraints.
        error: standard error of the value; None if it is not known.
        images: the terms of the best evaluation of each run, image by image; empty if they are not known.
    """

    number: int
    value: float | None
    error: float | None = None
    images: Runs = field(default_factory=dict)


def improves(leader: Outcome, candidate: Outcome, metric: str) -> bool:
    """Whether a configuration improves on the leader by more than the standard error.

    Args:
        leader: the best configuration so far.
        candidate: a later one.
        metric: of the image terms, like ``point_score``.
    """
    if candidate.value is None or leader.value is None:
        return candidate.value is not None
    difference = Comparison([candidate.images, leader.images], metric).difference(0, 1)
    if difference is None or difference.error is None:
        return candidate.value > leader.value + (leader.error or 0.0)
    return difference.value > difference.error


def without_improvement(outcomes: Iterable[Outcome], metric: str, since: int = 0) -> tuple[Outcome | None, int]:
    """The leader, and how many configurations after it have not improved on it.

    Args:
        outcomes: the configurations that have ended and not failed, by number.
        metric: see `improves`.
        since: number of the first configuration that is counted; those before it may lead.
    """
    leader: Outcome | None = None
    count = 0
    for outcome in outcomes:
        if leader is None or improves(leader, outcome, metric):
            leader, count = outcome, 0
        elif outcome.number >= since:
            count += 1
    return leader, count
