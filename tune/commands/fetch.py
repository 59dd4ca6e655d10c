"""`pull`: a checkpoint out of the store."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from rich.console import Console

from semprior.errors import UserError
from semprior.progress import say
from tune.catalogue import Sweep
from tune.checkpoints import DamagedCheckpointError
from tune.commands.places import sweep_of
from tune.pull import pull_checkpoint
from tune.results import ResultsStore
from tune.summaries import TrialSummary
from tune.tables import number

_TRIAL, _RANK = re.compile(r"\d{4,}(\.\d+)?"), re.compile(r"\d{1,3}")


def pull(which: str, out: Path, storage: str | None, console: Console) -> None:
    """Fetch a checkpoint.

    Args:
        which: ``SWEEP``, ``SWEEP:best``, ``SWEEP:RANK`` (a place in `top`) or ``SWEEP:TRIAL``.
        out: a new folder.
        storage: of the sweep; none: the usual one.
        console: to say what was fetched on.

    Raises:
        UserError: there is no such sweep, place or trial, or its checkpoint cannot be had.
    """
    name, _, wanted = which.partition(":")
    sweep = sweep_of(name, storage)
    store = ResultsStore(sweep.storage)
    chosen = chosen_trial(sweep, store, wanted or "best")
    trial = trial_of(sweep, store, chosen)
    try:
        pull_checkpoint(sweep, trial, out)
    except DamagedCheckpointError:
        now = trial_of(sweep, store, chosen)
        if now.checkpoint == trial.checkpoint:
            raise
        trial = now  # which has found a better epoch since, and removed the checkpoint of the one before
        pull_checkpoint(sweep, trial, out)
    metric = next(iter(sweep.spec.objective))
    value = f", {metric} {number(trial.values[0])}" if trial.values else ""
    epoch = trial.epochs if trial.best_epoch is None else trial.best_epoch + 1
    say(console, f"{out}: trial {chosen} of {name} after epoch {epoch}{value}; verified, sha256 {trial.sha256}")
    say(console, f"try: semprior evaluate {shlex.quote(str(out))} --data {shlex.quote(sweep.spec.data)}")


def trial_of(sweep: Sweep, store: ResultsStore, chosen: str) -> TrialSummary:
    """A trial as it stands.

    Raises:
        UserError: there is none of this id.
    """
    trials = {trial.trial: trial for trial in store.trials()}
    if chosen not in trials:
        known = f"{min(trials)} to {max(trials)}" if trials else "none yet"
        raise UserError(f"{sweep.id}: no trial {chosen}; there are: {known}")
    return trials[chosen]


def chosen_trial(sweep: Sweep, store: ResultsStore, wanted: str) -> str:
    """The id of the trial that is meant: ``best``, a place in `top`, or an id (four digits or more).

    Raises:
        UserError: neither of these, or nothing at that place.
    """
    if _TRIAL.fullmatch(wanted):
        return wanted
    if wanted != "best" and not (_RANK.fullmatch(wanted) and int(wanted) > 0):
        raise UserError(f"{sweep.id}:{wanted}: must be best, a place in `top` like 2, or a trial like 0007")
    place = 1 if wanted == "best" else int(wanted)
    ranked = store.rank(dict(sweep.spec.objective), limit=place)
    if len(ranked) < place:
        raise UserError(f"{sweep.id}: has {len(ranked)} configurations with a value, none at place {place}")
    return ranked[place - 1].trial
