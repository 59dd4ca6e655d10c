"""How far a sweep is: a live table on a terminal, plain lines where there is none.

Nothing is asked of the driver: `watch` looks at what the sweep's storage holds, so that a sweep on this machine and one
on a cluster are watched alike, from anywhere, any number of times.
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
from semprior.reporting.terminal import clock, say
from tune.monitor.sweep_progress import OPEN, SweepProgress, TrialProgress
from tune.monitor.tables import number, short_names, text

POLL = 2.0  # seconds between two looks, or more where a look itself takes long
_REMIND = 60.0  # seconds after which plain lines say again how far the sweep is


def watch(
    look: Callable[[], SweepProgress], console: Console, poll: float = POLL, alive: Callable[[], bool] | None = None
) -> SweepProgress:
    """Show a sweep until it is no longer running.

    Args:
        look: reads it.
        console: to show it on; a live table if it is a terminal.
        poll: seconds between two looks.
        alive: whether whoever runs the sweep is still there; asked before each look, and one more look follows its end.

    Returns:
        The last view.
    """
    views = _views(look, poll, alive, console)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            for view in views:
                live.update(picture(view, console.width, console.height), refresh=True)
    else:
        speaker = Speaker(console)
        for view in views:
            speaker.tell(view)
    return view


def _views(
    look: Callable[[], SweepProgress], poll: float, alive: Callable[[], bool] | None, console: Console
) -> Iterator[SweepProgress]:
    """Looks at a sweep that runs; what its storage does not tell for a while a later look may."""
    seen, away = False, False
    while True:
        goes_on = alive is None or alive()
        began = time.monotonic()
        try:
            view = look()
        except StorageError as error:
            if not seen or not goes_on:
                raise
            if not away:
                say(console, f"the sweep goes on, and is looked at again and again: {error}")
            away = True
            time.sleep(max(poll, time.monotonic() - began))
            continue
        seen, away = True, False
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

    def tell(self, view: SweepProgress) -> None:
        """Say what is new."""
        for row in view.rows:
            before = self._states.get(row.trial)
            if before is None:
                self._say(f"trial {row.trial} began: {_params(row.params)}")
            if before != row.state and row.state not in OPEN:
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


def headline(view: SweepProgress) -> str:
    """One line: how many trials ran, run and remain, and how long that takes."""
    counts = f"{len(view.ended)} of {view.trials} trials ended, {len(view.running)} running"
    left = view.left if view.word == "running" else None
    parts = [f"{view.name}: {view.word}", counts, f"{clock(view.elapsed)} elapsed" if view.elapsed else ""]
    parts += [f"about {clock(left)} left" if left else "", view.note]
    return ", ".join(part for part in parts if part)


def picture(view: SweepProgress, width: int, height: int) -> Group:
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
    unfinished = [row for row in view.rows if row.state in OPEN]
    shown = [*unfinished[: max(fit - 3, 2)], *of_ended][:fit]
    table = _table(shown, best, view.metric.rpartition("/")[2], width)
    hidden, waiting = len(view.rows) - len(shown), view.trials - len(view.rows)
    why = ": the hours are over, or nothing new is left to try" if view.word == "done" else ""
    notes = [f"{hidden} more trials" if hidden else "", f"{waiting} not begun{why}" if waiting > 0 else ""]
    notes += [f"best: trial {best.trial}, {view.metric} {number(best.best)}"] if best else []
    last = Text(", ".join(note for note in notes if note))
    return Group(Text(headline(view), style="bold"), *([table] if shown else []), last)


def _table(rows: Sequence[TrialProgress], best: TrialProgress | None, metric: str, width: int) -> Table:
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
        style = "bold" if row is best else "" if row.state == "running" else "dim"
        values = (_epoch(row), number(row.value), number(row.best), _left(row))
        table.add_row(row.trial, *map(Text, (*cells, *values)), style=style)
    return table


def _epoch(row: TrialProgress) -> str:
    return f"{row.epoch}/{row.epochs}"


def _left(row: TrialProgress) -> str:
    if row.state != "running":
        return row.state
    return "starting" if row.left is None else clock(row.left)


def _params(params: Mapping[str, Any]) -> str:
    return (
        "  ".join(f"{key}={text(value)}" for key, value in params.items() if value is not None) or "the preset itself"
    )
