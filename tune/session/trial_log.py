"""The log and the TensorBoard events of a trial, in the storage of the sweep.

::

    SWEEP/logs/TRIAL.log               messages of all attempts, with times
          tensorboard/TRIAL/ATTEMPT/   scalars by epoch

In a folder the files grow in place. Objects in a bucket cannot be appended to, and are written anew after each epoch.
A trial does not depend on these files: it continues where they cannot be written, and the next epoch tries again.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from semprior.errors import StorageError
from semprior.io.foreign_text import visible
from semprior.io.storage import Storage
from semprior.io.temporary_folders import temporary_folder
from semprior.reading.files import only_regular
from semprior.reporting.tensorboard import EventFile, open_event_file
from semprior.training.crossfit import ShortEpoch
from semprior.training.trainer import EpochReport

_SHOWN = ("holdout/point_score", "holdout/iou")


class TrialLog:
    """The log and the TensorBoard events of one attempt.

    Args:
        storage: the storage of the sweep.
        trial: id of the trial.
        attempt: number of the attempt.
        enabled: whether to write anything. The first worker of an attempt does.
    """

    def __init__(self, storage: Storage, trial: str, attempt: int, enabled: bool) -> None:
        self.storage, self.enabled = storage, enabled
        self._log, self._events = f"logs/{trial}.log", f"tensorboard/{trial}/{attempt}"
        self._earlier: bytes | None = None
        self._lines: list[str] = []
        self._board: EventFile | None = None
        self._folder: Path | None = None
        self._open = contextlib.ExitStack()

    def line(self, text: str) -> None:
        """Add a line to the log."""
        if not self.enabled:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {visible(text)}\n"
        self._lines.append(line)
        if self.storage.local is not None:
            path = Path(self.storage.path(self._log))
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "a", encoding="utf-8", opener=only_regular) as file:
                    file.write(line)

    def short_epoch(self, short: ShortEpoch) -> None:
        """Add an epoch of a short run to the log."""
        place = f"short run {short.run + 1} of {short.runs}, epoch {short.epoch} of {short.epochs}"
        scores = "".join(f", {name} {short.scores[name]:.4f}" for name in _SHOWN if name in short.scores)
        self.line(f"{place}: inner loss {short.inner_loss:.4f}{scores} ({short.seconds:.1f} s)")
        self._upload()

    def epoch(self, report: EpochReport) -> None:
        """Add an epoch to the log and the events."""
        if not self.enabled:
            return
        losses = f"inner loss {report.inner_loss:.4f}"
        losses += "" if report.outer_loss is None else f", outer loss {report.outer_loss:.4f}"
        scores = "".join(f", {name} {report.scores[name]:.4f}" for name in _SHOWN if name in report.scores)
        self.line(f"epoch {report.epoch}: {losses}{scores} ({report.seconds:.1f} s){', best' if report.best else ''}")
        scalars = {"train/inner_loss": report.inner_loss, "train/rate": report.rate, "train/pool": float(report.pool)}
        if report.outer_loss is not None:
            scalars["train/outer_loss"] = report.outer_loss
        with contextlib.suppress(OSError):
            self._opened(report.epoch).add_scalars(scalars | report.labels | report.scores, report.epoch)
        self._upload()

    def close(self) -> None:
        """Write what has not been written yet."""
        if self._board is not None:
            with contextlib.suppress(OSError):
                self._board.close()
        self._upload()
        self._open.close()

    def _opened(self, epoch: int) -> EventFile:
        if self._board is None:
            local = self.storage.local is not None
            self._folder = Path(
                self.storage.path(self._events) if local else self._open.enter_context(temporary_folder("semprior-"))
            )
            self._folder.mkdir(parents=True, exist_ok=True)
            self._board = open_event_file(self._folder, epoch)
        return self._board

    def _upload(self) -> None:
        if not self.enabled or self.storage.local is not None:
            return
        with contextlib.suppress(StorageError):
            if self._earlier is None:
                self._earlier = self.storage.read(self._log) if self.storage.exists(self._log) else b""
            self.storage.put(self._log, self._earlier + "".join(self._lines).encode())
            for path in self._folder.iterdir() if self._folder is not None else ():
                self.storage.put(f"{self._events}/{path.name}", path.read_bytes())
