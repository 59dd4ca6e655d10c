"""A race: further runs go to the configurations that may still be the best, and the others get none.

A configuration begins with one run. The **leader** is the best of the configurations with the most runs. Any other one
is compared with it image by image over the runs that both have (`tune.comparison.paired`), and **drops out** if the
test says that it is worse, with `CONFIDENCE` on one side; if a run of it was stopped early, diverged or failed; or if
it does not meet the constraints of the sweep. A run that was cut off because the sweep's hours were over says nothing
and does not count. The idea is that of irace's races and of intensification in SMAC.

The error of a first run does not contain how much it depends on its seed, so that a configuration as good as the leader
drops out more often than `CONFIDENCE` says: of 26 images and seeds that scatter by .012, a third instead of a quarter.

The next run is chosen by the first of these rules that applies:

1. A configuration that has fewer runs than the leader and has not dropped out gets one: the one whose difference from
   the leader may be the highest, given its standard error.
2. The leader gets one, as long as it has fewer than all runs, and either `PER_RUN` configurations have begun for each
   of its runs, or no further configuration is to begin.
3. A new configuration begins.

All of it follows from the results alone, so that a driver that resumes the sweep decides as the lost one would have. At
its end the leader has all runs, and so has every configuration that has not dropped out, but for runs that were cut
off. A configuration whose first run was cut off gets no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tune.comparison.paired import Comparison, Difference, Runs

CONFIDENCE = 0.75
"""Probability with which a configuration that drops out is worse than the leader, by the paired test."""
PER_RUN = 4
"""Number of configurations that begin for each run of the leader."""


@dataclass(frozen=True)
class Contender:
    """A configuration in the race.

    Attributes:
        number: number of the configuration.
        value: the first objective over its ended runs, which is maximised; None if it has none.
        runs: number of runs that have ended and count.
        running: whether a run of it lasts.
        out: whether a run was stopped early, diverged or failed, or the runs do not meet the constraints.
        images: the evaluated runs that have ended, by index; empty if their terms are not known.
        cut_off: number of runs that were cut off and do not count.
    """

    number: int
    value: float | None
    runs: int
    running: bool = False
    out: bool = False
    images: Runs = field(default_factory=dict)
    cut_off: int = 0

    @property
    def races(self) -> bool:
        """Whether it may lead or follow."""
        return not self.out and self.runs > 0 and self.value is not None


class Race:
    """Chooses the configuration that gets the next run.

    Args:
        metric: the first objective, which is maximised.
        most: number of runs that a configuration has at most.
    """

    def __init__(self, metric: str, most: int) -> None:
        self.metric, self.most = metric, most
        self._differences: dict[tuple[int, int, int, int], Difference | None] = {}

    def leader(self, contenders: Sequence[Contender]) -> Contender | None:
        """The best configuration among those with the most runs; None before any has ended.

        Where one lacks a run that was cut off, it is compared with the best value over the runs that both have.
        """
        racing = [one for one in contenders if one.races]
        most = max((one.runs for one in racing), default=0)
        first = [one for one in racing if one.runs == most]
        best = max(first, key=lambda one: (one.value or 0.0, -one.number), default=None)
        if best is None or not any(one.cut_off for one in first):
            return best

        def ahead(one: Contender) -> float:
            difference = self._difference(one, best) if one.images.keys() != best.images.keys() else None
            return (one.value or 0.0) - (best.value or 0.0) if difference is None else difference.value

        return max(first, key=lambda one: (ahead(one), -one.number))

    def next_run(self, contenders: Sequence[Contender], more: bool) -> int | None:
        """The configuration that gets another run.

        Args:
            contenders: the configurations that have begun.
            more: whether further configurations are to begin.

        Returns:
            Its number; None if a new configuration is to begin, or nothing is left to run.
        """
        leader = self.leader(contenders)
        if leader is None:
            return None
        out = self.dropped_out(contenders)
        behind = [one for one in contenders if 0 < one.runs < leader.runs and self._free(one) and one.number not in out]
        if behind:
            return max(behind, key=lambda one: (self._highest(one, leader), -one.number)).number
        due = len(contenders) >= PER_RUN * leader.runs or not more
        if not due or leader.running:
            return None
        if self._free(leader) or not leader.cut_off:
            return leader.number if self._free(leader) else None
        # All of its runs have begun, and one was cut off: the best of those with as many runs goes on.
        equals = [one for one in contenders if one.runs == leader.runs and one.number not in out and self._free(one)]
        return max(equals, key=lambda one: (self._highest(one, leader), -one.number)).number if equals else None

    def _free(self, one: Contender) -> bool:
        """Whether another run of a configuration may begin."""
        return not one.running and one.runs + one.cut_off < self.most

    def dropped_out(self, contenders: Sequence[Contender]) -> set[int]:
        """The numbers of the configurations that get no further run."""
        leader = self.leader(contenders)
        if leader is None:
            return set()
        ended = [one for one in contenders if one.runs]
        return {one.number for one in ended if not one.races or self._highest(one, leader) < 0}

    def _highest(self, one: Contender, leader: Contender) -> float:
        """The upper limit of the difference of a configuration from the leader; infinite if it is not known."""
        if one.number == leader.number:
            return 0.0
        difference = self._difference(one, leader)
        if difference is None:
            return math.inf
        half = difference.half_width(2 * CONFIDENCE - 1)  # one-sided
        return math.inf if half is None else difference.value + half

    def _difference(self, one: Contender, other: Contender) -> Difference | None:
        """How much better a configuration is over the runs that both have; computed once."""
        key = (one.number, one.runs, other.number, other.runs)
        if key not in self._differences:
            self._differences[key] = Comparison([one.images, other.images], self.metric).difference(0, 1)
        return self._differences[key]
