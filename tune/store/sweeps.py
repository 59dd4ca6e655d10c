"""Which sweeps a storage holds: each is a folder with a `sweep.json` that never changes.

::

    STORAGE/SWEEP/sweep.json   the whole sweep file, resolved; its id; when and by which code it was begun
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semprior.errors import UserError
from semprior.io.storage import Storage, open_storage
from tune.spec.sweep_file import SweepSpec
from tune.store.provenance import revision, versions

FILE, SCHEMA = "sweep.json", 1
DEFAULT_STORAGE = "./runs"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Sweep:
    """A sweep in its storage.

    Attributes:
        id: of the sweep; the name of its folder.
        storage: its folder.
        spec: the sweep file.
        created: seconds since 1970.
        revision: of the code that began it.
        versions: likewise, of its packages.
    """

    id: str
    storage: Storage
    spec: SweepSpec
    created: float
    revision: str
    versions: Mapping[str, str]


class SweepExistsError(UserError):
    """A sweep of this id exists already."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(f"{sweep.id}: exists already in {sweep.storage.uri}; choose another --id")
        self.sweep = sweep


def create_sweep(storage: Storage, name: str, spec: SweepSpec) -> Sweep:
    """Begin a sweep: claim its id.

    Args:
        storage: that will hold it.
        name: its id.
        spec: the sweep file.

    Raises:
        SweepExistsError: the id is taken.
        UserError: the id cannot name a folder, or the storage cannot be written.
    """
    if not _ID.fullmatch(name):
        raise UserError(f"--id {name}: must be letters, digits, dots, dashes and underscores, 64 at most")
    sweep = Sweep(name, storage.child(name), spec, time.time(), revision(), versions())
    content = {
        "schema": SCHEMA,
        "id": name,
        "created": sweep.created,
        "revision": sweep.revision,
        "versions": dict(sweep.versions),
        "spec": json.loads(spec.to_json()),
    }
    try:
        sweep.storage.create(FILE, json.dumps(content, indent=1).encode())
    except FileExistsError:
        raise SweepExistsError(sweep) from None
    return sweep


def open_sweep(uri: str) -> Sweep:
    """The sweep at an address.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    storage = open_storage(uri)
    where = f"{storage.uri}/{FILE}"
    try:
        content: dict[str, Any] = json.loads(storage.read(FILE))
        if content["schema"] > SCHEMA:
            raise UserError(f"{where}: was written by a newer version (schema {content['schema']}); update semprior")
        spec = SweepSpec.from_json(json.dumps(content["spec"]), where)
        return Sweep(content["id"], storage, spec, float(content["created"]), content["revision"], content["versions"])
    except FileNotFoundError as error:
        raise UserError(f"{storage.uri}: there is no sweep") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: is damaged ({error!r})") from error


def find_sweep(storage: Storage, name: str) -> Sweep:
    """A sweep of a storage.

    Raises:
        UserError: there is none of this id; names the nearest.
    """
    if not _ID.fullmatch(name) or not storage.child(name).exists(FILE):
        close = difflib.get_close_matches(name, sweep_ids(storage), n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else "; `semprior-tune list` names those that are there"
        raise UserError(f"{name}: no such sweep in {storage.uri}{hint}")
    return open_sweep(storage.child(name).uri)


def sweep_ids(storage: Storage) -> list[str]:
    """The sweeps of a storage, by name."""
    folders = [entry.name for entry in storage.list() if entry.is_folder]
    return [name for name in folders if storage.exists(f"{name}/{FILE}")]


def driver_log(generation: int) -> str:
    """Where a sweep keeps what the driver of a generation wrote."""
    return f"logs/driver-{generation:04d}.log"
