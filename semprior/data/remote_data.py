"""Data sets that are pushed to an address and fetched by each machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rich.console import Console

from semprior.data.layout import all_masked, content_of, find_layout
from semprior.io.push_fetch import fetch, is_address, push, read_manifest
from semprior.io.transfer_progress import Transfer


def local_data(place: str | Path, console: Console | None = None) -> Path:
    """The folder of a data set: `place` itself, or, if it is an address, the folder that was fetched from it.

    Raises:
        UserError: as `fetch`.
    """
    if not is_address(str(place)):
        return Path(place)
    return fetch(str(place), "data", Transfer(console or Console(stderr=True)))


def data_identity(place: str | Path) -> str:
    """The SHA-256 of the content of a data set: of all its files, or of the manifest at its address.

    Raises:
        UserError: it is not there, or cannot be read.
    """
    if is_address(str(place)):
        return read_manifest(str(place), "data").digest
    content = "\n".join(content_of(find_layout(Path(place))))
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()


def push_data(folder: Path, uri: str, console: Console) -> bool:
    """Push a data set to an address and return whether anything was sent.

    Raises:
        UserError: the folder is not a data set, or as `push`.
    """
    layout = find_layout(folder)
    masks = "train" in layout.splits and all_masked(
        layout, "train"
    )  # a data set for evaluation may have only a test split
    return push(folder, uri, "data", Transfer(console), masks=masks)
