"""`export`: write every trial, curve, setting and artefact of a sweep in the format of another program.

The same command again updates what it has written, and writes nothing twice. What it has not written itself it leaves
alone: a folder, file, study or experiment of another origin is refused.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from semprior.errors import UserError
from semprior.reporting.terminal import say
from tune.exporting.exported_trials import ExportedSweep
from tune.store.results_store import ResultsStore
from tune.store.snapshot import left_out_in_words
from tune.store.sweeps import Sweep

FORMS = "mlflow:URI, csv:DIR or optuna:sqlite:///FILE"


def export(sweep: Sweep, to: str, console: Console) -> None:
    """Export a sweep as it stands.

    Args:
        sweep: the sweep.
        to: value of ``--to``: the format, a colon and the place.
        console: console for messages.

    Raises:
        UserError: the place is not of the form, cannot be written, or holds something else; or the store cannot be
            read.
    """
    form, _, place = to.partition(":")
    if form not in ("mlflow", "csv", "optuna") or not place:
        raise UserError(f"--to {to}: must be {FORMS}")
    store = ResultsStore(sweep.storage)
    exported = ExportedSweep(sweep, store)
    if not exported.trials:
        raise UserError(f"{sweep.id}: no trial has begun yet, so that there is nothing to export")
    match form:
        case "csv":
            from tune.exporting.csv_folder import write_csv

            done = write_csv(exported, Path(place))
        case "optuna":
            from tune.exporting.optuna_study import write_study

            done = write_study(exported, place)
        case _:
            from tune.exporting.mlflow_runs import write_runs

            done = write_runs(exported, place)
    if store.left_out:
        say(console, left_out_in_words(store.left_out))
    say(console, done)
