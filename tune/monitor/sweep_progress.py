"""The progress of a sweep, read from its storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from semprior.config.epochs import crossfit_work
from tune.monitor.exception_text import without_variable_parts
from tune.monitor.heartbeat import Heartbeat, hours_before, observe, read_drivers
from tune.spec.constraints import unmet
from tune.store.faults import log_of
from tune.store.results_store import ResultsStore
from tune.store.sweeps import Sweep, with_extensions
from tune.store.trial_summary import TrialSummary

UNFINISHED = ("running", "waiting")  # states of trials that have epochs left to train
_IDLE = ("stopped", "lost", "done")  # states of sweeps without a driver


@dataclass(frozen=True)
class TrialProgress:
    """The progress of a trial.

    Attributes:
        trial: id of the trial.
        state: ``running``, ``completed``, ``stopped``, ``diverged`` or ``failed``; ``waiting`` if it is unfinished and
            the sweep does not run.
        epoch: number of epochs trained.
        epochs: number of epochs of the whole trial.
        seconds: mean time of an epoch; 0 before the first has ended.
        value: last value of the objective.
        best: best value of the objective so far.
        params: sampled values by dimension.
        reason: why the trial ended.
        meets_constraints: whether the best evaluation meets the constraints of the sweep.
        before: what the short runs before the trial cost, in epochs.
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
    meets_constraints: bool = True
    before: float = 0.0

    @property
    def left(self) -> float | None:
        """Seconds to the last epoch, unless the trial is stopped early; None before the first epoch has ended."""
        return self.seconds * (self.epochs - self.epoch) if self.seconds else None


@dataclass(frozen=True)
class SweepProgress:
    """The progress of a sweep.

    Attributes:
        name: id of the sweep.
        state: ``waiting`` (its driver has not begun), ``running``, ``lost``, ``stopped`` or ``done``.
        metric: name of the objective.
        maximize: whether a higher value of the objective is better.
        trials: number of trials that the sweep will have.
        rows: progress of the trials that have begun.
        note: last note of the driver: why it ended, or what it waits for.
        hours: budget of hours; None: no limit.
        elapsed: seconds that its drivers have run.
        left_out: what could not be used of the sweep's files, a line each.
    """

    name: str
    state: str
    metric: str
    maximize: bool
    trials: int
    rows: tuple[TrialProgress, ...] = ()
    note: str = ""
    hours: float | None = None
    elapsed: float = 0.0
    left_out: tuple[str, ...] = ()

    @property
    def ended(self) -> list[TrialProgress]:
        """Trials that have ended."""
        return [row for row in self.rows if row.state not in UNFINISHED]

    @property
    def running(self) -> list[TrialProgress]:
        """Trials that are training."""
        return [row for row in self.rows if row.state == "running"]

    def ranked(self) -> list[TrialProgress]:
        """Trials that have a value, best first; those that do not meet the constraints come last."""
        valued = [row for row in self.rows if row.best is not None]
        sign = -1 if self.maximize else 1
        return sorted(valued, key=lambda row: (not row.meets_constraints, sign * (row.best or 0.0), row.trial))

    def failures(self) -> list[str]:
        """A line for each reason for which trials failed, the most common first."""
        by_reason: dict[str, list[TrialProgress]] = {}
        for row in self.rows:
            if row.state == "failed":
                by_reason.setdefault(without_variable_parts(row.reason), []).append(row)
        groups = sorted(by_reason.values(), key=len, reverse=True)
        return [f"failed: {', '.join(row.trial for row in rows)}: {rows[0].reason}" for rows in groups]

    def common_reason(self) -> str:
        """The most common reason for which trials ended."""
        if not self.rows:
            return "no trial has begun"
        reasons = Counter(without_variable_parts(row.reason) for row in self.rows)
        most, count = reasons.most_common(1)[0]
        row = next(row for row in self.rows if without_variable_parts(row.reason) == most)
        return f"{row.reason or row.state} ({count} of {len(self.rows)} trials)"

    @property
    def left(self) -> float | None:
        """Estimated seconds to the end of the sweep; None before the first epoch has ended.

        Running trials go to their last epoch, and trials that have not begun take as long as those that have ended.
        No trial begins after the budgeted hours.
        """
        to_go = [row.left for row in self.running if row.left is not None]
        spent = [row.seconds * (row.epoch + row.before) for row in self.ended if row.seconds] or [
            row.seconds * (row.epochs + row.before) for row in self.running if row.seconds
        ]
        if not spent:
            return None
        slots = max(1, len(self.running))
        waiting = max(0, self.trials - len(self.rows))
        total = max([*to_go, 0.0]) if not waiting else (sum(to_go) + waiting * sum(spent) / len(spent)) / slots
        if self.hours is None:
            return total
        return min(total, max(self.hours * 3600 - self.elapsed, max([*to_go, 0.0])))


class ProgressReader:
    """Reads the progress of a sweep; can be called any number of times.

    Args:
        sweep: sweep to read.
        generation: generation of the expected driver; while the newest driver is an older one, the sweep is
            ``waiting``.
    """

    def __init__(self, sweep: Sweep, generation: int = 1) -> None:
        self.sweep, self.generation = sweep, generation
        self._seen: Heartbeat | None = None
        self._before = (0, 0.0)  # a generation, and the hours of the drivers before it
        self._values: dict[str, float] = {}  # last value by trial, as not every epoch is evaluated

    def __call__(self) -> SweepProgress:
        """The present progress."""
        self.sweep = with_extensions(self.sweep)
        spec, drivers = self.sweep.spec, read_drivers(self.sweep.storage)
        heartbeat, state = self._state(drivers.newest)
        metric, direction = next(iter(spec.objective.items()))
        store = ResultsStore(self.sweep.storage)
        return SweepProgress(
            name=self.sweep.id,
            state=state,
            metric=metric,
            maximize=direction == "max",
            trials=spec.budget.trials * spec.run_count,
            rows=tuple(self._row(summary, metric, state) for summary in store.trials()),
            note=heartbeat.note if heartbeat is not None and state != "waiting" else "",
            hours=spec.budget.hours,
            elapsed=self._elapsed(heartbeat),
            left_out=(*map(str, store.left_out), *drivers.left_out),
        )

    def _state(self, heartbeat: Heartbeat | None) -> tuple[Heartbeat | None, str]:
        """The newest heartbeat and the state of the sweep.

        A driver that has renewed its heartbeat since the last reading runs, whatever its clock says; the first reading
        waits for that where the clock is ahead.
        """
        state, seen = sweep_state(heartbeat, self.generation), self._seen
        if state == "lost" and heartbeat is not None and heartbeat.state == "running" and not heartbeat.is_gone():
            if seen is None and heartbeat.is_ahead():
                heartbeat, state = observe(self.sweep.storage)
            elif seen is not None and seen != heartbeat and not heartbeat.is_damaged:
                state = "running"
        self._seen = heartbeat
        return heartbeat, state

    def _elapsed(self, heartbeat: Heartbeat | None) -> float:
        if heartbeat is None:
            return 0.0
        if self._before[0] != heartbeat.generation:
            self._before = heartbeat.generation, hours_before(self.sweep.storage, heartbeat.generation)
        return self._before[1] * 3600 + heartbeat.active

    def _row(self, trial: TrialSummary, metric: str, sweep_state: str) -> TrialProgress:
        value = trial.last.metrics.get(metric)
        if value is not None:
            self._values[trial.trial] = value
        before = crossfit_work(trial.config)
        row = TrialProgress(
            trial=trial.trial,
            state=trial.state,
            epoch=trial.epochs,
            epochs=int(trial.config.get("epochs", trial.epochs)),
            seconds=trial.wall_s / (trial.epochs + before) if trial.epochs else 0.0,
            before=before,
            value=self._values.get(trial.trial),
            best=trial.values[0] if trial.values else None,
            params=trial.params if trial.configuration else {},
            reason=self._reason(trial),
            meets_constraints=not unmet(self.sweep.spec.limits, trial.metrics),
        )
        return replace(row, state="waiting") if row.state == "running" and sweep_state in _IDLE else row

    def _reason(self, trial: TrialSummary) -> str:
        log = f"; log: {log_of(self.sweep.storage.uri, trial.trial)}" if trial.state == "failed" else ""
        return trial.reason + log


def sweep_state(heartbeat: Heartbeat | None, generation: int = 1) -> str:
    """The state of a sweep by its newest heartbeat; ``waiting`` before the driver of a generation has begun."""
    return "waiting" if heartbeat is None or heartbeat.generation < generation else heartbeat.observed_state()
