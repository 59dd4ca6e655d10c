"""The study as a file that `optuna-dashboard` opens: a copy to look at, never read back.

    optuna-dashboard runs/my-sweep/study.journal

Written with Optuna's journal storage. A sweep that goes on writes it anew from the results store. Whatever goes wrong
with it is said once and ends the copying, not the sweep.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from tune.history import History

_log = logging.getLogger(__name__)


class StudyFile:
    """A study that follows a search.

    Args:
        path: of the file; one that is there is replaced.
        name: of the study.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._study: optuna.Study | None = None
        self._trials: dict[int, optuna.Trial] = {}
        self._told: dict[int, int] = {}
        self._broken = False

    def rewrite(self, history: History) -> None:
        """All that is known, into a new file."""
        self._study = None
        self._guarded(lambda: self._create(history))

    def begin(self, history: History, number: int) -> None:
        """A configuration has begun."""

        def write() -> None:
            if self._study is None:
                self._create(history)
            else:
                self._start(self._study, history, number)

        self._guarded(write)

    def report(self, history: History, number: int) -> None:
        """A configuration has come further."""

        def write() -> None:
            if number in self._trials and len(history.directions) == 1:
                last = self._told.get(number, -1)
                for epoch, value in history.configurations[number].curve.items():
                    if epoch > last:
                        self._trials[number].report(value, epoch)
                        self._told[number] = epoch

        self._guarded(write)

    def end(self, history: History, number: int) -> None:
        """A configuration has ended."""

        def write() -> None:
            trial = self._trials.pop(number, None)
            if trial is not None and self._study is not None:
                told = history.frozen(number)
                values = told.values if told.state == TrialState.COMPLETE else None
                self._study.tell(trial, values, state=told.state)

        self._guarded(write)

    def _create(self, history: History) -> None:
        self._trials.clear()
        self._told.clear()
        scratch = self.path.with_name(f".{self.path.name}-new")
        for stale in (scratch, Path(f"{self.path}.lock"), Path(f"{scratch}.lock")):
            stale.unlink(missing_ok=True)
        self._open(scratch, history).add_trials(self._finished(history))
        os.replace(scratch, self.path)
        self._study = self._open(self.path, history)
        for number in sorted(history.configurations):
            if not history.configurations[number].ended:
                self._start(self._study, history, number)
                self.report(history, number)

    def _open(self, path: Path, history: History) -> optuna.Study:
        return optuna.create_study(
            # Its own lock is a symbolic link, which not every file system has; both kinds heed each other.
            storage=JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))),
            sampler=optuna.samplers.RandomSampler(),
            study_name=self.name,
            directions=history.directions,
            load_if_exists=True,
        )

    @staticmethod
    def _finished(history: History) -> list[FrozenTrial]:
        return [
            history.frozen(number) for number in sorted(history.configurations) if history.configurations[number].ended
        ]

    def _start(self, study: optuna.Study, history: History, number: int) -> None:
        shown = history.frozen(number)
        study.enqueue_trial(shown.params, user_attrs=shown.user_attrs)
        self._trials[number] = study.ask(shown.distributions)

    def _guarded(self, write: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                write()
        except OSError as error:
            self._broken = True
            _log.warning("%s: %s; the study is no longer written there", self.path, error.strerror or error)
