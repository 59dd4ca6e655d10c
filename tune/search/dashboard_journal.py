"""Writes the search as an Optuna journal, which `optuna-dashboard` displays. It is never read back.

    optuna-dashboard runs/my-sweep/study.journal

A sweep that is resumed rewrites the journal from the results store. If the journal cannot be written, one warning is
logged and the sweep continues without it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from semprior.io.atomic_files import atomic_file
from tune.search.history import History

_log = logging.getLogger(__name__)


class DashboardJournal:
    """A journal of a search.

    Args:
        path: path of the journal; an existing file is replaced.
        name: name of the study.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._study: optuna.Study | None = None
        self._trials: dict[int, optuna.Trial] = {}
        self._reported: dict[int, int] = {}
        self._failed = False

    def rewrite(self, history: History) -> None:
        """Replace the journal by one with the whole history."""
        self._study = None
        self._write_or_give_up(lambda: self._create(history))

    def begin(self, history: History, number: int) -> None:
        """Record that a configuration has started."""

        def write() -> None:
            if self._study is None:
                self._create(history)
            else:
                self._start(self._study, history, number)

        self._write_or_give_up(write)

    def report(self, history: History, number: int) -> None:
        """Record the new epochs of a configuration."""

        def write() -> None:
            if number in self._trials and len(history.directions) == 1:
                last = self._reported.get(number, -1)
                for epoch, value in history.configurations[number].curve.items():
                    if epoch > last:
                        self._trials[number].report(value, epoch)
                        self._reported[number] = epoch

        self._write_or_give_up(write)

    def end(self, history: History, number: int) -> None:
        """Record that a configuration has ended."""

        def write() -> None:
            trial = self._trials.pop(number, None)
            if trial is not None and self._study is not None:
                ended = history.frozen(number)
                values = ended.values if ended.state == TrialState.COMPLETE else None
                self._study.tell(trial, values, state=ended.state)

        self._write_or_give_up(write)

    def _create(self, history: History) -> None:
        self._trials.clear()
        self._reported.clear()
        Path(f"{self.path}.lock").unlink(missing_ok=True)  # left behind by a process that was killed
        with atomic_file(self.path) as scratch:
            self._open(scratch, history).add_trials(self._finished(history))
        self._study = self._open(self.path, history)
        for number in sorted(history.configurations):
            if not history.configurations[number].so_far().ended:
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
            history.frozen(number)
            for number in sorted(history.configurations)
            if history.configurations[number].so_far().ended
        ]

    def _start(self, study: optuna.Study, history: History, number: int) -> None:
        frozen = history.frozen(number)
        study.enqueue_trial(frozen.params, user_attrs=frozen.user_attrs)
        self._trials[number] = study.ask(frozen.distributions)

    def _write_or_give_up(self, write: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                write()
        except OSError as error:
            self._failed = True
            _log.warning("%s: %s; the journal is not written any more", self.path, error.strerror or error)
