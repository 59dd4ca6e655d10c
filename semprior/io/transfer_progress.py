"""The progress of a transfer of files: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import threading
import time

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from semprior.io.foreign_text import visible

_LINE_EVERY = 10.0  # seconds between two lines


class Transfer:
    """Shows the progress of a transfer. Threads may share it.

    Args:
        console: to write to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._lock = threading.Lock()
        self._title, self._total, self._done, self._began, self._printed = "", 0, 0, 0.0, 0.0

    def begin(self, title: str, total: int, done: int = 0) -> None:
        """Start a transfer of `total` bytes, of which `done` have arrived before."""
        self._title, self._total, self._done = visible(title), total, done
        self._began = self._printed = time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
            )
            self._bar = Progress(*columns, console=self.console, transient=True)
            self._bar.start()
            self._bar.add_task(self._title, total=total, completed=done)

    def add(self, count: int) -> None:
        """Count more bytes as transferred."""
        with self._lock:
            self._done += count
            if self._bar is not None:
                self._bar.update(TaskID(0), completed=self._done)
            elif time.monotonic() - self._printed > _LINE_EVERY:
                self._printed = time.monotonic()
                self.say(f"{self._title}: {megabytes(self._done)} of {megabytes(self._total)}")

    def end(self) -> None:
        """End the transfer."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self.say(f"{self._title}: {megabytes(self._total)} in {time.monotonic() - self._began:.1f} s")

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(visible(text), markup=False, emoji=False, highlight=False, soft_wrap=True)


def megabytes(count: int) -> str:
    """A number of bytes in megabytes, such as ``12.3 MB``."""
    return f"{count / 1e6:.1f} MB"
