"""`list` and `status`."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from semprior.progress import say
from tune.catalogue import Sweep, command, open_sweep, sweep_ids
from tune.commands.outcome import valueless
from tune.commands.places import storage_of, sweep_of
from tune.looking import Looker
from tune.progress import SweepProgress
from tune.tables import check_format, number, print_rows, print_table
from tune.watch import headline, picture, watch


def list_sweeps(storage: str | None, form: str, console: Console) -> None:
    """The sweeps of a storage, the newest first."""
    check_format(form)
    place = storage_of(storage)
    sweeps = [open_sweep(place.child(name).uri) for name in sweep_ids(place)]
    views = [(sweep, Looker(sweep)()) for sweep in sorted(sweeps, key=lambda sweep: -sweep.created)]
    if form != "table":
        print_rows([_entry(sweep, view) for sweep, view in views], form)
        return
    if not views:
        say(console, f"{place.uri}: no sweeps")
        return
    columns = {"sweep": "left", "state": "left", "trials": "right", "best": "right", "metric": "left", "begun": "left"}
    rows = []
    for sweep, view in views:
        ranked = view.ranked()
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.created))
        best = number(ranked[0].best) if ranked else ""
        rows.append((sweep.id, view.word, f"{len(view.ended)}/{view.trials}", best, view.metric, begun))
    print_table(console, columns, rows)


def _entry(sweep: Sweep, view: SweepProgress) -> dict[str, Any]:
    ranked = view.ranked()
    return {
        "sweep": sweep.id,
        "state": view.word,
        "ended": len(view.ended),
        "running": len(view.running),
        "trials": view.trials,
        "metric": view.metric,
        "best": ranked[0].best if ranked else None,
        "created": sweep.created,
        "data": sweep.spec.data,
        "uri": sweep.storage.uri,
    }


def status(name: str, storage: str | None, follow: bool, console: Console) -> None:
    """How far a sweep is."""
    sweep = sweep_of(name, storage)
    look = Looker(sweep)
    view = watch(look, console) if follow else look()
    if not follow:
        console.print(picture(view, console.width, console.height if console.is_terminal else 10_000))
    elif not console.is_terminal:
        say(console, headline(view))
    for line in view.failures():
        say(console, line)
    if view.word == "done" and (fault := valueless(sweep, view)):
        say(console, fault)
        return
    if view.word in ("stopped", "lost"):
        say(console, f"go on with: {command('resume', sweep)}")
    elif view.word == "done":
        say(console, f"its ranking: {command('top', sweep)}")
