"""What a trial leaves to be looked at: its log and its TensorBoard events, in the sweep's storage.

::

    SWEEP/logs/TRIAL.log               what every attempt said, with times
          tensorboard/TRIAL/ATTEMPT/   scalars by epoch

In a folder the files grow in place. A bucket cannot append: there they are written anew after every epoch. They are for
people: where they cannot be written, the trial goes on without, and in a bucket the next epoch writes all of them.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from pathlib import Path

from semprior.board import Board, open_board
from semprior.errors import StorageError
from semprior.storage import Storage
from semprior.trainer import Report

_SHOWN = ("holdout/point_score", "holdout/iou")


class TrialFiles:
    """The log and the events of one attempt.

    Args:
        storage: of the sweep.
        trial: its id.
        attempt: that writes.
        writes: whether this worker does; the others are silent.
    """

    def __init__(self, storage: Storage, trial: str, attempt: int, writes: bool) -> None:
        self.storage, self.writes = storage, writes
        self._log, self._events = f"logs/{trial}.log", f"tensorboard/{trial}/{attempt}"
        self._before: bytes | None = None
        self._lines: list[str] = []
        self._board: Board | None = None
        self._folder: Path | None = None

    def say(self, text: str) -> None:
        """Add a line to the log."""
        if not self.writes:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n"
        self._lines.append(line)
        if self.storage.local is not None:
            path = Path(self.storage.path(self._log))
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a", encoding="utf-8") as file:
                    file.write(line)

    def epoch(self, report: Report) -> None:
        """Add an epoch to both."""
        if not self.writes:
            return
        losses = f"inner loss {report.inner_loss:.4f}"
        losses += "" if report.outer_loss is None else f", outer loss {report.outer_loss:.4f}"
        scores = "".join(f", {name} {report.scores[name]:.4f}" for name in _SHOWN if name in report.scores)
        self.say(f"epoch {report.epoch}: {losses}{scores} ({report.seconds:.1f} s){', best' if report.best else ''}")
        scalars = {"train/inner_loss": report.inner_loss, "train/rate": report.rate, "train/pool": float(report.pool)}
        if report.outer_loss is not None:
            scalars["train/outer_loss"] = report.outer_loss
        with contextlib.suppress(OSError):
            self._opened(report.epoch).scalars(scalars | report.scores, report.epoch)
        self._upload()

    def close(self) -> None:
        """Write what is not written yet."""
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()
        self._upload()

    def _opened(self, epoch: int) -> Board:
        if self._board is None:
            local = self.storage.local is not None
            self._folder = Path(self.storage.path(self._events) if local else tempfile.mkdtemp(prefix="semprior-"))
            self._folder.mkdir(parents=True, exist_ok=True)
            self._board = open_board(self._folder, epoch)
        return self._board

    def _upload(self) -> None:
        if not self.writes or self.storage.local is not None:
            return
        with contextlib.suppress(StorageError):
            if self._before is None:
                self._before = self.storage.read(self._log) if self.storage.exists(self._log) else b""
            self.storage.put(self._log, self._before + "".join(self._lines).encode())
            for path in self._folder.iterdir() if self._folder is not None else ():
                self.storage.put(f"{self._events}/{path.name}", path.read_bytes())
