"""Patience: a sweep ends when many configurations in a row have not improved on the best one.

    configurations  0     1     2     3     4     5
    value          .50   .48   .53   .60   .61   .58      each with a standard error of .02
    leader           0     0     2     3     3     3
    in a row         0     1     0     0     1     2      .61 is above .60, but not by more than .02

The order is that of the numbers, so that the count follows from the results alone, whichever driver asks. Small gains
add up, because the leader changes only by an improvement. Failed configurations do not count: they say nothing about
the search.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The result of a configuration that has ended.

    Attributes:
        number: number of the configuration.
        value: the first objective, which is maximised; None if it has none, or does not meet the constraints.
        error: standard error of the value; None if it is not known.
    """

    number: int
    value: float | None
    error: float | None = None


def improves(leader: Outcome, candidate: Outcome) -> bool:
    """Whether a configuration improves on the leader by more than the leader's standard error."""
    return candidate.value is not None and (
        leader.value is None or candidate.value > leader.value + (leader.error or 0.0)
    )


def without_improvement(outcomes: Iterable[Outcome], since: int = 0) -> tuple[Outcome | None, int]:
    """The leader, and how many configurations after it have not improved on it.

    Args:
        outcomes: the configurations that have ended and not failed, by number.
        since: number of the first configuration that is counted; those before it may lead.
    """
    leader: Outcome | None = None
    count = 0
    for outcome in outcomes:
        if leader is None or improves(leader, outcome):
            leader, count = outcome, 0
        elif outcome.number >= since:
            count += 1
    return leader, count
