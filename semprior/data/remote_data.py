"""Data sets that are pushed to an address and fetched by each machine."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from semprior.data.images import SUFFIXES, decode
from semprior.data.layout import all_masked, find_layout
from semprior.io.push_fetch import fetch, files_to_push, is_address, push
from semprior.io.transfer_progress import Transfer


def local_data(place: str | Path, console: Console | None = None) -> Path:
    """The folder of a data set: `place` itself, or, if it is an address, the folder that was fetched from it.

    Raises:
        UserError: as `fetch`.
    """
    if not is_address(str(place)):
        return Path(place)
    return fetch(str(place), "data", Transfer(console or Console(stderr=True)))


def push_data(folder: Path, uri: str, console: Console) -> bool:
    """Push a data set to an address and return whether anything was sent.

    Every file that is called an image is decoded first: what is none is not sent.

    Raises:
        UserError: the folder is not a data set, an image of it cannot be read, or as `push`.
    """
    files = files_to_push(folder)
    layout, transfer = find_layout(folder), Transfer(console)
    images = [path for name, path in files.items() if name.lower().endswith(SUFFIXES)]
    transfer.begin(f"checking {folder}", sum(path.stat().st_size for path in images))
    for path in images:
        decode(path)
        transfer.add(path.stat().st_size)
    transfer.end()
    masks = "train" in layout.splits and all_masked(
        layout, "train"
    )  # a data set for evaluation may have only a test split
    return push(folder, uri, "data", transfer, masks=masks)
