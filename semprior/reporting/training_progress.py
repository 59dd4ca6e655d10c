"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from semprior.reporting.terminal import clock, say

if TYPE_CHECKING:
    from semprior.training.crossfit import ShortEpoch
    from semprior.training.trainer import EpochReport

_RECENT = 20  # epochs that the remaining time is estimated from


class TrainingProgress:
    """Shows epoch, loss, metric and remaining time of a run, and its messages.

    Args:
        epochs: number of epochs of the run.
        done: number of epochs trained before this process.
        metric: name of the score to show, like ``holdout/point_score``.
        console: shows a bar if it is a terminal.
        short_epochs: number of epochs of short runs that come before (`semprior.training.crossfit`).
        short_cost: what one of them costs, in epochs of the run.
    """

    def __init__(
        self,
        epochs: int,
        done: int,
        metric: str,
        console: Console,
        *,
        short_epochs: int = 0,
        short_cost: float = 1.0,
    ) -> None:
        self.epochs, self.done, self.metric, self.console = epochs, done, metric, console
        self.short_epochs, self.short_cost = short_epochs, short_cost
        self.value: float | None = None
        self.best: float | None = None
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._marked = time.perf_counter()
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal:
            columns = (
                TextColumn("epoch {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self.console)
            self._bar.start()
            self._task = self._bar.add_task("", total=self.epochs, completed=self.done)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        say(self.console, text)

    def report(self, report: EpochReport) -> str:
        """Show an epoch; returns the line for the log."""
        self._mark(1.0)
        self.done = report.epoch + 1
        self.value = report.scores.get(self.metric, self.value)
        if report.best and report.scores:
            self.best = self.value
        status = "  ".join(part for part in (f"loss {report.inner_loss:.4f}", self._metric(), self._left()) if part)
        marks = [f"{report.admitted} images admitted"] if report.admitted else []
        marks += ["labels evolved"] if report.evolved else []
        marks += ["best so far"] if report.best else []
        line = f"epoch {self.done}/{self.epochs}  {status}" + (f"  ({', '.join(marks)})" if marks else "")
        if self._bar is None:
            self.say(line)
        else:
            self._bar.update(self._task, completed=self.done, description=status)
        return line

    def report_short(self, short: ShortEpoch) -> str:
        """Show an epoch of a short run; returns the line for the log."""
        self._mark(self.short_cost)
        self.short_epochs -= 1
        score = short.scores.get("holdout/teacher/point_score")
        parts = [f"loss {short.inner_loss:.4f}", f"point_score {score:.4f}" if score is not None else "", self._left()]
        place = f"short run {short.run + 1}/{short.runs}, epoch {short.epoch + 1}/{short.epochs}"
        line = "  ".join(part for part in (place, *parts) if part)
        if self._bar is None:
            self.say(line)
        else:
            self._bar.update(self._task, description=line)
        return line

    def _mark(self, cost: float) -> None:
        now = time.perf_counter()
        self._seconds.append((now - self._marked) / cost)
        self._marked = now

    def _metric(self) -> str:
        if self.value is None:
            return ""
        best = f" (best {self.best:.4f})" if self.best is not None else ""
        return f"{self.metric.rpartition('/')[2]} {self.value:.4f}{best}"

    def _left(self) -> str:
        ahead = self.short_epochs * self.short_cost + self.epochs - self.done
        seconds = sum(self._seconds) / len(self._seconds) * ahead
        return f"{clock(seconds)} left"
