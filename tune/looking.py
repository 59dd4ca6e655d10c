"""A sweep as it stands, read from its storage, for whoever watches it."""

from __future__ import annotations

import time
from dataclasses import replace

from tune.catalogue import Sweep
from tune.heartbeat import Heartbeat, last_heartbeat
from tune.progress import SweepProgress, TrialProgress
from tune.results import ResultsStore
from tune.standing import log_of
from tune.summaries import TrialSummary


class Looker:
    """Reads a sweep again and again.

    Args:
        sweep: to look at.
        generation: of the driver that is waited for; a sweep whose newest driver is an older one is ``waiting``.
    """

    def __init__(self, sweep: Sweep, generation: int = 1) -> None:
        self.sweep, self.generation = sweep, generation
        self.store = ResultsStore(sweep.storage)
        self._values: dict[str, float] = {}  # of the last evaluation, which not every epoch has

    def __call__(self) -> SweepProgress:
        """The sweep now."""
        spec, beat = self.sweep.spec, last_heartbeat(self.sweep.storage)
        metric, direction = next(iter(spec.objective.items()))
        word = state_word(beat, self.generation)
        return SweepProgress(
            name=self.sweep.id,
            word=word,
            metric=metric,
            maximize=direction == "max",
            trials=spec.budget.trials * spec.seeds,
            rows=tuple(self._row(summary, metric, word) for summary in self.store.trials()),
            note=beat.note if beat is not None and word != "waiting" else "",
            hours=spec.budget.hours,
            elapsed=(beat.time if beat is not None else time.time()) - self.sweep.created,
        )

    def _row(self, trial: TrialSummary, metric: str, word: str) -> TrialProgress:
        value = trial.last.metrics.get(metric)
        if value is not None:
            self._values[trial.trial] = value
        row = TrialProgress(
            trial=trial.trial,
            state=trial.state,
            epoch=trial.epochs,
            epochs=int(trial.config.get("epochs", trial.epochs)),
            seconds=trial.wall_s / trial.epochs if trial.epochs else 0.0,
            value=self._values.get(trial.trial),
            best=trial.values[0] if trial.values else None,
            params=trial.params if trial.configuration else {},
            reason=self._reason(trial),
        )
        return replace(row, state="waiting") if row.state == "running" and word in ("stopped", "lost", "done") else row

    def _reason(self, trial: TrialSummary) -> str:
        log = f"; log: {log_of(self.sweep.storage.uri, trial.trial)}" if trial.state == "failed" else ""
        return trial.reason + log


def state_word(beat: Heartbeat | None, generation: int = 1) -> str:
    """``waiting`` for a driver of this generation, else what the newest one's heartbeat says."""
    return "waiting" if beat is None or beat.generation < generation else beat.word()
