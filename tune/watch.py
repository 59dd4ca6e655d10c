"""How far a sweep is: a live table on a terminal, plain lines where there is none.

Nothing is asked of the driver: `watch` looks at what the sweep's storage holds, so that a sweep on this machine and one
on a cluster are watched alike, from anywhere, any number of times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from semprior.progress import clock, say

POLL = 2.0  # seconds between two looks, or more where a look itself takes long
_REMIND = 60.0  # seconds after which plain lines say again how far the sweep is
_RUNNING, _OPEN = ("pending", "running"), ("pending", "running", "waiting")


@dataclass(frozen=True)
class Row:
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
class View:
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
    rows: tuple[Row, ...] = ()
    note: str = ""
    hours: float | None = None
    elapsed: float = 0.0

    @property
    def ended(self) -> list[Row]:
        """Trials that will do nothing more."""
        return [row for row in self.rows if row.state not in _OPEN]

    @property
    def running(self) -> list[Row]:
        """Trials at work."""
        return [row for row in self.rows if row.state in _RUNNING]

    def ranked(self) -> list[Row]:
        """Trials that have a value, the best first."""
        valued = [row for row in self.rows if row.best is not None]
        sign = -1 if self.maximize else 1
        return sorted(valued, key=lambda row: (sign * (row.best or 0.0), row.trial))

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


def watch(
    look: Callable[[], View], console: Console, poll: float = POLL, alive: Callable[[], bool] | None = None
) -> View:
    """Show a sweep until it is no longer running.

    Args:
        look: reads it.
        console: to show it on; a live table if it is a terminal.
        poll: seconds between two looks.
        alive: whether whoever runs the sweep is still there; asked before each look, and one more look follows its end.

    Returns:
        The last view.
    """
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            for view in _views(look, poll, alive):
                live.update(picture(view, console.width, console.height), refresh=True)
    else:
        speaker = Speaker(console)
        for view in _views(look, poll, alive):
            speaker.tell(view)
    return view


def _views(look: Callable[[], View], poll: float, alive: Callable[[], bool] | None) -> Any:  # noqa: ANN401
    while True:
        goes_on = alive is None or alive()
        began = time.monotonic()
        view = look()
        took = time.monotonic() - began
        over = not goes_on if alive is not None else view.word not in ("waiting", "running")
        yield view
        if over:
            return
        time.sleep(max(poll, 3 * took))


class Speaker:
    """Says in plain lines what changed from one view to the next: trials that begin and end, and a new best.

    Args:
        console: to say it on.
        remind: seconds of silence after which it says how far the sweep is.
    """

    def __init__(self, console: Console, remind: float = _REMIND) -> None:
        self.console, self.remind = console, remind
        self._states: dict[str, str] = {}
        self._best: float | None = None
        self._spoke = -math.inf

    def tell(self, view: View) -> None:
        """Say what is new."""
        for row in view.rows:
            before = self._states.get(row.trial)
            if before is None:
                self._say(f"trial {row.trial} began: {_params(row.params)}")
            if before != row.state and row.state not in _OPEN:
                best = f", best {number(row.best)}" if row.best is not None else ""
                reason = f": {row.reason}" if row.reason and row.state not in ("completed", "stopped") else ""
                self._say(f"trial {row.trial} {row.state} after epoch {row.epoch}/{row.epochs}{best}{reason}")
            self._states[row.trial] = row.state
        ranked = view.ranked()
        if ranked and ranked[0].best != self._best:
            self._best = ranked[0].best
            self._say(f"best so far: trial {ranked[0].trial}, {view.metric} {number(self._best)}")
        if time.monotonic() - self._spoke > self.remind:
            self._say(headline(view))

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        say(self.console, text)


def headline(view: View) -> str:
    """One line: how many trials ran, run and remain, and how long that takes."""
    counts = f"{len(view.ended)} of {view.trials} trials ended, {len(view.running)} running"
    left = view.left if view.word == "running" else None
    parts = [f"{view.name}: {view.word}", counts, f"{clock(view.elapsed)} elapsed" if view.elapsed else ""]
    parts += [f"about {clock(left)} left" if left else "", view.note]
    return ", ".join(part for part in parts if part)


def picture(view: View, width: int, height: int) -> Group:
    """A sweep in a table: what runs, then the best of what ended, as many as fit.

    Args:
        view: of the sweep.
        width: of the terminal; narrow ones get one column for all dimensions.
        height: of the terminal, in lines.
    """
    ranked, finished = view.ranked(), view.ended
    best = ranked[0] if ranked else None
    fit = max(3, height - 8)
    of_ended = [row for row in ranked if row in finished] + [row for row in finished if row.best is None]
    unfinished = [row for row in view.rows if row.state in _OPEN]
    shown = [*unfinished[: max(fit - 3, 2)], *of_ended][:fit]
    table = _table(shown, best, view.metric.rpartition("/")[2], width)
    hidden, waiting = len(view.rows) - len(shown), view.trials - len(view.rows)
    why = ": the hours are over, or nothing new is left to try" if view.word == "done" else ""
    notes = [f"{hidden} more trials" if hidden else "", f"{waiting} not begun{why}" if waiting > 0 else ""]
    notes += [f"best: trial {best.trial}, {view.metric} {number(best.best)}"] if best else []
    last = Text(", ".join(note for note in notes if note))
    return Group(Text(headline(view), style="bold"), *([table] if shown else []), last)


def _table(rows: Sequence[Row], best: Row | None, metric: str, width: int) -> Table:
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    names = short_names(keys)
    widths = {key: max(len(names[key]), *(len(text(row.params.get(key))) for row in rows)) + 3 for key in keys}
    trial, epoch = max((len(row.trial) for row in rows), default=5), max((len(_epoch(row)) for row in rows), default=5)
    free = width - (max(trial, 5) + epoch + max(len(metric), 6) + 6 + 9 + 5 * 3 + 1)  # beside the other five columns
    wide = sum(widths.values()) <= free
    table = Table()
    table.add_column("trial", no_wrap=True)
    if wide:
        for key in keys:
            table.add_column(names[key], justify="right", no_wrap=True)
    elif keys:
        table.add_column("dimensions", overflow="ellipsis", no_wrap=True, max_width=max(10, free - 3))
    for column in ("epoch", metric, "best", "left"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [text(row.params.get(key)) for key in keys] if wide else []
        if keys and not wide:
            cells = [_params({names[key]: value for key, value in row.params.items()})]
        style = "bold" if row is best else "" if row.state in _RUNNING else "dim"
        values = (_epoch(row), number(row.value), number(row.best), _left(row))
        table.add_row(row.trial, *map(Text, (*cells, *values)), style=style)
    return table


def _epoch(row: Row) -> str:
    return f"{row.epoch}/{row.epochs}"


def _left(row: Row) -> str:
    if row.state not in _RUNNING:
        return row.state
    return "starting" if row.left is None else clock(row.left)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key's shortest ending that no other shares: ``clusters.count`` is ``count`` if alone with it."""
    names: dict[str, str] = {}
    for key in keys:
        parts = key.split(".")
        for size in range(1, len(parts) + 1):
            tail = ".".join(parts[-size:])
            if sum(other == tail or other.endswith("." + tail) for other in keys) == 1:
                break
        names[key] = tail
    return names


def text(value: Any) -> str:  # noqa: ANN401
    """A value of a dimension, short; nothing where it does not apply."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def number(value: float | None) -> str:
    """A metric with four digits; nothing where there is none."""
    return "" if value is None else f"{value:.4f}" if abs(value) < 1000 else f"{value:.4g}"


def _params(params: Mapping[str, Any]) -> str:
    return (
        "  ".join(f"{key}={text(value)}" for key, value in params.items() if value is not None) or "the preset itself"
    )
