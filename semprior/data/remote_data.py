"""Data sets at an address: pushed once, fetched once by each machine."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from semprior.data.layout import all_masked, find_layout
from semprior.io.push_fetch import fetch, is_address, push
from semprior.io.transfer_progress import Transfer


def local_data(place: str | Path, console: Console | None = None) -> Path:
    """The folder of a data set: the place itself, or what was fetched from an address.

    Raises:
        UserError: as `fetch`.
    """
    if not is_address(str(place)):
        return Path(place)
    return fetch(str(place), "data", Transfer(console or Console(stderr=True)))


def push_data(folder: Path, uri: str, console: Console) -> bool:
    """Put a data set at an address; whether anything was sent.

    Raises:
        UserError: it is no data set, or as `push`.
    """
    layout = find_layout(folder)
    masks = "train" in layout.splits and all_masked(layout, "train")  # one to evaluate on may have a test split alone
    return push(folder, uri, "data", Transfer(console), masks=masks)
