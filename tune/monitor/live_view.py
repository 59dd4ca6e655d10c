"""Shows the progress of a sweep: a live table on a terminal, plain lines elsewhere.

`watch` reads the sweep's storage and asks nothing of the driver, so that sweeps on this machine and on a cluster are
watched alike, from any machine, by any number of people.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from semprior.errors import StorageError
from semprior.io.foreign_text import visible
from semprior.reporting.terminal import cell, clock, say
from tune.monitor.sweep_progress import UNFINISHED, SweepProgress, TrialProgress
from tune.monitor.tables import format_metric, format_value, short_names

POLL = 2.0  # seconds between two readings, or more where reading takes long
_REMIND = 60.0  # seconds of silence after which plain lines repeat the headline


def watch(
    read: Callable[[], SweepProgress], console: Console, poll: float = POLL, alive: Callable[[], bool] | None = None
) -> SweepProgress:
    """Show a sweep until it no longer runs.

    Args:
        read: reads the progress of the sweep.
        console: console to show it on; a live table if that is a terminal.
        poll: seconds between two readings.
        alive: whether the process that runs the sweep is alive; called before each reading, and the last reading
            follows its end. None: the state of the sweep decides.

    Returns:
        The last progress.
    """
    views = _views(read, poll, alive, console)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            for view in views:
                live.update(progress_table(view, console.width, console.height), refresh=True)
    else:
        lines = ProgressLines(console)
        for view in views:
            lines.update(view)
    return view


def _views(
    read: Callable[[], SweepProgress], poll: float, alive: Callable[[], bool] | None, console: Console
) -> Iterator[SweepProgress]:
    """Progress of a running sweep, reading after reading; a storage that fails later than the first is tried again."""
    read_before, failing = False, False
    while True:
        runs = alive is None or alive()
        began = time.monotonic()
        try:
            view = read()
        except StorageError as error:
            if not read_before or not runs:
                raise
            if not failing:
                say(console, f"the sweep continues, and its storage is tried again and again: {error}")
            failing = True
            time.sleep(max(poll, time.monotonic() - began))
            continue
        read_before, failing = True, False
        took = time.monotonic() - began
        over = not runs if alive is not None else view.state not in ("waiting", "running")
        yield view
        if over:
            return
        time.sleep(max(poll, 3 * took))


class ProgressLines:
    """Prints a line for each change of a sweep: trials that begin and end, and a new best value.

    Args:
        console: console to print on.
        remind: seconds of silence after which the headline is repeated.
    """

    def __init__(self, console: Console, remind: float = _REMIND) -> None:
        self.console, self.remind = console, remind
        self._states: dict[str, str] = {}
        self._best: float | None = None
        self._last_line = -math.inf

    def update(self, view: SweepProgress) -> None:
        """Print what has changed since the last call."""
        for row in view.rows:
            before = self._states.get(row.trial)
            if before is None:
                self._say(f"trial {row.trial} began: {_params(row.params)}")
            if before != row.state and row.state not in UNFINISHED:
                best = f", best {format_metric(row.best)}" if row.best is not None else ""
                reason = f": {row.reason}" if row.reason and row.state not in ("completed", "stopped") else ""
                self._say(f"trial {row.trial} {row.state} after epoch {row.epoch}/{row.epochs}{best}{reason}")
            self._states[row.trial] = row.state
        ranked = view.ranked()
        if ranked and ranked[0].best != self._best:
            self._best = ranked[0].best
            self._say(f"best so far: trial {ranked[0].trial}, {view.metric} {format_metric(self._best)}")
        if time.monotonic() - self._last_line > self.remind:
            self._say(headline(view))

    def _say(self, text: str) -> None:
        self._last_line = time.monotonic()
        say(self.console, text)


def headline(view: SweepProgress) -> str:
    """One line: the state of the sweep, how many trials ended and run, the time elapsed and left."""
    state = "stopped on request" if view.state == "stopped" and not view.note else view.state
    counts = f"{len(view.ended)} of {view.trials} trials ended, {len(view.running)} running"
    left = view.left if view.state == "running" else None
    parts = [f"{view.name}: {state}", counts, f"{clock(view.elapsed)} elapsed" if view.elapsed else ""]
    parts += [f"about {clock(left)} left" if left else "", view.note]
    return ", ".join(part for part in parts if part)


def progress_table(view: SweepProgress, width: int, height: int) -> Group:
    """A table of a sweep: running trials, then the best of those that ended, as many as fit.

    Args:
        view: progress of the sweep.
        width: width of the terminal in columns; a narrow one gets one column for all dimensions.
        height: height of the terminal in lines.
    """
    ranked, finished = view.ranked(), view.ended
    best = ranked[0] if ranked else None
    fit = max(3, height - 8)
    ended = [row for row in ranked if row in finished] + [row for row in finished if row.best is None]
    unfinished = [row for row in view.rows if row.state in UNFINISHED]
    shown = [*unfinished[: max(fit - 3, 2)], *ended][:fit]
    table = _table(shown, best, view.metric.rpartition("/")[2], width)
    hidden, waiting = len(view.rows) - len(shown), view.trials - len(view.rows)
    notes = [f"{hidden} more trials" if hidden else "", f"{waiting} not begun" if waiting > 0 else ""]
    notes += [f"best: trial {best.trial}, {view.metric} {format_metric(best.best)}"] if best else []
    last = cell(", ".join(note for note in notes if note))
    return Group(Text(visible(headline(view)), style="bold"), *([table] if shown else []), last)


def _table(rows: Sequence[TrialProgress], best: TrialProgress | None, metric: str, width: int) -> Table:
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    names = short_names(keys)
    widths = {key: max(len(names[key]), *(len(format_value(row.params.get(key))) for row in rows)) + 3 for key in keys}
    trial, epoch = max((len(row.trial) for row in rows), default=5), max((len(_epoch(row)) for row in rows), default=5)
    free = width - (max(trial, 5) + epoch + max(len(metric), 6) + 6 + 9 + 5 * 3 + 1)  # beside the other five columns
    wide = sum(widths.values()) <= free
    table = Table()
    table.add_column("trial", no_wrap=True)
    if wide:
        for key in keys:
            table.add_column(cell(names[key]), justify="right", no_wrap=True)
    elif keys:
        table.add_column("dimensions", overflow="ellipsis", no_wrap=True, max_width=max(10, free - 3))
    for column in ("epoch", metric, "best", "left"):
        table.add_column(cell(column), justify="right", no_wrap=True)
    for row in rows:
        cells = [format_value(row.params.get(key)) for key in keys] if wide else []
        if keys and not wide:
            cells = [_params({names[key]: value for key, value in row.params.items()})]
        style = "bold" if row is best else "" if row.state == "running" else "dim"
        values = (_epoch(row), format_metric(row.value), format_metric(row.best), _left(row))
        table.add_row(*map(cell, (row.trial, *cells, *values)), style=style)
    return table


def _epoch(row: TrialProgress) -> str:
    return f"{row.epoch}/{row.epochs}"


def _left(row: TrialProgress) -> str:
    if row.state != "running":
        return row.state
    return "starting" if row.left is None else clock(row.left)


def _params(params: Mapping[str, Any]) -> str:
    return (
        "  ".join(f"{key}={format_value(value)}" for key, value in params.items() if value is not None)
        or "the preset itself"
    )
