"""`list` and `status`: the sweeps of a storage, and the progress of one."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console

from semprior.io.storage import Storage
from semprior.reporting.terminal import say
from tune.cli.outcome import why_valueless
from tune.launch.target import Target
from tune.monitor.live_view import headline, progress_table, watch
from tune.monitor.sweep_progress import ProgressReader, SweepProgress
from tune.monitor.tables import check_format, format_metric, print_rows, print_table
from tune.store.snapshot import left_out_in_words
from tune.store.sweeps import Sweep, read_each


def list_sweeps(target: Target, form: str, console: Console) -> None:
    """Print the sweeps of a storage, newest first, as a table, JSON or CSV (`form`)."""
    check_format(form)
    storage = target.storage()
    views, unreadable = read_each(storage, lambda sweep: ProgressReader(sweep)())
    views.sort(key=lambda entry: -entry[0].created)
    if form != "table":
        entries = [_entry(sweep, view) for sweep, view in views]
        entries += [_unreadable_entry(name, reason, storage) for name, reason in unreadable.items()]
        print_rows(entries, form)
        return
    if not views and not unreadable:
        say(console, f"{storage.uri}: no sweeps")
        return
    columns = {
        "sweep": "left",
        "state": "left",
        "trials": "right",
        "best trial": "right",
        "metric": "left",
        "begun": "left",
    }
    rows = []
    for sweep, view in views:
        ranked = view.ranked()
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(sweep.created))
        best = format_metric(ranked[0].best) if ranked else ""
        rows.append((sweep.id, view.state, f"{len(view.ended)}/{view.trials}", best, view.metric, begun))
    rows += [(name, "unreadable", "", "", "", "") for name in unreadable]
    print_table(console, columns, rows)
    for sweep, view in views:
        if view.left_out:
            say(console, f"{sweep.id}: {left_out_in_words(view.left_out)}")
    for name, reason in unreadable.items():
        say(console, f"{name} cannot be read: {reason}")


def _entry(sweep: Sweep, view: SweepProgress) -> dict[str, Any]:
    ranked = view.ranked()
    return {
        "sweep": sweep.id,
        "state": view.state,
        "ended": len(view.ended),
        "running": len(view.running),
        "trials": view.trials,
        "metric": view.metric,
        "best": ranked[0].best if ranked else None,
        "created": sweep.created,
        "data": sweep.spec.data,
        "uri": sweep.storage.uri,
        "left_out": list(view.left_out),
    }


def _unreadable_entry(name: str, reason: str, storage: Storage) -> dict[str, Any]:
    unknown = dict.fromkeys(("ended", "running", "trials", "metric", "best", "created", "data"))
    return {"sweep": name, "state": "unreadable", **unknown, "uri": storage.child(name).uri, "reason": reason}


def status(name: str, target: Target, follow: bool, console: Console) -> None:
    """Print the progress of a sweep, once or until it no longer runs (`follow`), and the next command."""
    sweep = target.sweep(name)
    read = ProgressReader(sweep)
    view = watch(read, console) if follow else read()
    if not follow:
        console.print(progress_table(view, console.width, console.height if console.is_terminal else 10_000))
    elif not console.is_terminal:
        say(console, headline(view))
    for line in view.failures():
        say(console, line)
    if view.left_out:
        say(console, left_out_in_words(view.left_out))
    if view.state == "done" and (fault := why_valueless(sweep, view, target)):
        say(console, fault)
        return
    if view.state in ("stopped", "lost"):
        say(console, f"continue with: {target.command('resume', sweep)}")
    elif view.state == "done":
        say(console, f"its ranking: {target.command('top', sweep)}")
