"""`list` and `status`."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from semprior.io.storage import Storage
from semprior.reporting.terminal import say
from tune.cli.lookup import storage_of, sweep_of
from tune.cli.outcome import valueless
from tune.launch.next_command import command
from tune.monitor.live_view import headline, picture, watch
from tune.monitor.sweep_progress import Looker, SweepProgress
from tune.monitor.tables import check_format, number, print_rows, print_table
from tune.store.sweeps import Sweep, read_each


def list_sweeps(storage: str | None, form: str, console: Console) -> None:
    """The sweeps of a storage, the newest first."""
    check_format(form)
    place = storage_of(storage)
    views, unreadable = read_each(place, lambda sweep: Looker(sweep)())
    views.sort(key=lambda entry: -entry[0].created)
    if form != "table":
        entries = [_entry(sweep, view) for sweep, view in views]
        entries += [_unreadable_entry(name, reason, place) for name, reason in unreadable.items()]
        print_rows(entries, form)
        return
    if not views and not unreadable:
        say(console, f"{place.uri}: no sweeps")
        return
    columns = {"sweep": "left", "state": "left", "trials": "right", "best": "right", "metric": "left", "begun": "left"}
    rows = []
    for sweep, view in views:
        ranked = view.ranked()
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.created))
        best = number(ranked[0].best) if ranked else ""
        rows.append((sweep.id, view.word, f"{len(view.ended)}/{view.trials}", best, view.metric, begun))
    rows += [(name, "unreadable", "", "", "", "") for name in unreadable]
    print_table(console, columns, rows)
    for name, reason in unreadable.items():
        say(console, f"{name} cannot be read: {reason}")


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


def _unreadable_entry(name: str, reason: str, storage: Storage) -> dict[str, Any]:
    unknown = dict.fromkeys(("ended", "running", "trials", "metric", "best", "created", "data"))
    return {"sweep": name, "state": "unreadable", **unknown, "uri": storage.child(name).uri, "reason": reason}


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
