"""How far a sweep is, at one look: what `tune.looking` reads of its storage and `tune.watch` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tune.telling import without_what_changes

OPEN = ("running", "waiting")  # states of trials that will do more


@dataclass(frozen=True)
class TrialProgress:
    """A trial as it stands.

    Attributes:
        trial: its id.
        state: ``running``, ``completed``, ``stopped``, ``diverged`` or ``failed``; ``waiting`` for the sweep to go on.
        epoch: number of epochs done.
        epochs: in full.
        seconds: an epoch takes, about; 0 where none is done.
        value: the last evaluation's, of the metric that is optimised.
        best: so far, likewise.
        params: the sampled dimensions.
        reason: why it ended.
    """

    trial: str
    state: str
    epoch: int
    epochs: int
    seconds: float = 0.0
    value: float | None = None
    best: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def left(self) -> float | None:
        """Seconds to its last epoch, if it is not stopped before; none where nothing is known yet."""
        return self.seconds * (self.epochs - self.epoch) if self.seconds else None


@dataclass(frozen=True)
class SweepProgress:
    """A sweep as it stands.

    Attributes:
        name: its id.
        word: ``waiting`` (its driver has not begun), ``running``, ``lost``, ``stopped`` or ``done``.
        metric: that is optimised.
        maximize: whether more of it is better.
        trials: number of trials that there will be.
        rows: of those that began.
        note: what the driver last said.
        hours: the budget of time; none: no limit.
        elapsed: seconds since it began.
    """

    name: str
    word: str
    metric: str
    maximize: bool
    trials: int
    rows: tuple[TrialProgress, ...] = ()
    note: str = ""
    hours: float | None = None
    elapsed: float = 0.0

    @property
    def ended(self) -> list[TrialProgress]:
        """Trials that will do nothing more."""
        return [row for row in self.rows if row.state not in OPEN]

    @property
    def running(self) -> list[TrialProgress]:
        """Trials at work."""
        return [row for row in self.rows if row.state == "running"]

    def ranked(self) -> list[TrialProgress]:
        """Trials that have a value, the best first."""
        valued = [row for row in self.rows if row.best is not None]
        sign = -1 if self.maximize else 1
        return sorted(valued, key=lambda row: (sign * (row.best or 0.0), row.trial))

    def failures(self) -> list[str]:
        """A line for each way in which trials failed, the most common first."""
        alike: dict[str, list[TrialProgress]] = {}
        for row in self.rows:
            if row.state == "failed":
                alike.setdefault(without_what_changes(row.reason), []).append(row)
        groups = sorted(alike.values(), key=len, reverse=True)
        return [f"failed: {', '.join(row.trial for row in rows)}: {rows[0].reason}" for rows in groups]

    def common_reason(self) -> str:
        """Why trials ended, in most cases."""
        if not self.rows:
            return "none was begun"
        reasons = Counter(without_what_changes(row.reason) for row in self.rows)
        most, count = reasons.most_common(1)[0]
        row = next(row for row in self.rows if without_what_changes(row.reason) == most)
        return f"{row.reason or row.state} ({count} of {len(self.rows)} trials)"

    @property
    def left(self) -> float | None:
        """Seconds to the end, about: what runs to its last epoch, the rest taking what trials took so far.

        None where no trial has done an epoch. Budgeted hours cut it short.
        """
        known = [row.left for row in self.running if row.left is not None]
        spent = [row.seconds * row.epoch for row in self.ended if row.seconds] or [
            row.seconds * row.epochs for row in self.running if row.seconds
        ]
        if not spent:
            return None
        slots = max(1, len(self.running))
        waiting = max(0, self.trials - len(self.rows))
        total = max([*known, 0.0]) if not waiting else (sum(known) + waiting * sum(spent) / len(spent)) / slots
        if self.hours is None:
            return total
        return min(total, max(self.hours * 3600 - self.elapsed, max([*known, 0.0])))
