"""`report`: write the page of a sweep, once or again and again while the sweep runs."""

from __future__ import annotations

import time
import webbrowser
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from semprior.data.finding.split_lists import SPLITS
from semprior.errors import StorageError, UserError
from semprior.pages.write import write_page
from semprior.reporting.terminal import say
from tune.launch.target import Target
from tune.pages.detections import HOLDOUT, Wanted
from tune.pages.gathered import gather
from tune.pages.page import sweep_page
from tune.store.sweeps import Sweep, with_extensions

AGAIN = 15.0  # seconds between two pages of a sweep that runs, or more where making one takes long
_RUNS = ("waiting", "running")  # states of a sweep whose page may change


@dataclass(frozen=True)
class Request:
    """The arguments of `report`.

    Attributes:
        name: id of the sweep.
        out: the file to write; None for ``NAME.html`` in the current folder.
        top: number of configurations that stand out.
        wanted: the images of which pictures are wanted.
        follow: whether to write the page again until the sweep ends.
        show: whether to open the page in a browser.
    """

    name: str
    out: Path | None = None
    top: int = 5
    wanted: Wanted = field(default_factory=Wanted)
    follow: bool = False
    show: bool = False


def report(request: Request, target: Target, console: Console, pause: float = AGAIN) -> Path:
    """Write the page of a sweep and return its path.

    Args:
        request: what is asked for.
        target: where the sweep is stored.
        console: console for messages.
        pause: seconds between two pages of a sweep that runs.

    Raises:
        UserError: there is no such sweep, it cannot be read, or the page cannot be written.
    """
    sweep = target.sweep(request.name)
    out = request.out or Path(f"{sweep.id}.html")
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; name a file, like {out / f'{sweep.id}.html'}")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")
    _check(request.wanted)
    state, took = _write(sweep, request, target, out, pause)
    size = out.stat().st_size / 2**20
    say(console, f"{out}: the page of {sweep.id}, {size:.1f} MB")
    if request.show:
        webbrowser.open(out.absolute().as_uri())
    failing = False
    while request.follow and state in _RUNS:
        time.sleep(max(pause, 3 * took))
        try:
            sweep = with_extensions(sweep)
            state, took = _write(sweep, request, target, out, pause)
            failing = False
        except StorageError as error:
            if not failing:
                say(console, f"the page stays as it is, and the storage is tried again and again: {error}")
            failing = True
    if request.follow:
        say(console, f"{out}: {sweep.id} is {state}, and the page is final")
    return out


def _check(wanted: Wanted) -> None:
    """Refuse images that cannot be meant."""
    if wanted.split not in (HOLDOUT, *SPLITS):
        raise UserError(f"--split {wanted.split}: must be {HOLDOUT}, {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    if wanted.data is not None and "://" not in wanted.data and not Path(wanted.data).is_dir():
        raise UserError(f"--data {wanted.data}: no such folder")


def _write(sweep: Sweep, request: Request, target: Target, out: Path, pause: float) -> tuple[str, float]:
    """Write the page once.

    Returns:
        The state of the sweep, and the seconds that it took.
    """
    began = time.monotonic()
    data = gather(sweep)
    state = data.progress.state
    again = max(round(pause), 1) if request.follow and state in _RUNS else None
    write_page(sweep_page(data, target, request.top, request.wanted, again), out)
    return state, time.monotonic() - began
