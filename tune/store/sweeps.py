"""The sweeps of a storage. Each is a folder with a `sweep.json`, which never changes.

::

    STORAGE/SWEEP/sweep.json   the resolved sweep file, the id, the time of creation and the provenance
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

from semprior.errors import UserError
from semprior.io.storage import Storage, open_storage
from semprior.reading.json_text import parse_json
from semprior.reading.names import is_identifier
from semprior.reading.schema import shown
from tune.spec.sweep_file import SweepSpec
from tune.store.provenance import revision, versions

SWEEP_FILE, SWEEP_SCHEMA = "sweep.json", 1
DEFAULT_STORAGE = "./runs"
T = TypeVar("T")


@dataclass(frozen=True)
class Sweep:
    """A sweep in its storage.

    Attributes:
        id: id of the sweep, which is the name of its folder.
        storage: the folder of the sweep.
        spec: the checked sweep file.
        created: time of creation, in seconds since 1970.
        revision: git revision of the code that created the sweep.
        versions: package versions at the time of creation, by name.
    """

    id: str
    storage: Storage
    spec: SweepSpec
    created: float
    revision: str
    versions: Mapping[str, str]


class _Schema(TypedDict):
    schema: int


@dataclass(frozen=True)
class _Stored:
    """The content of a ``sweep.json``."""

    id: str
    created: float
    revision: str
    versions: Mapping[str, str]
    spec: dict[str, Any]


class SweepExistsError(UserError):
    """A sweep with this id exists already."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(f"{sweep.id}: exists already in {sweep.storage.uri}; choose another --id")
        self.sweep = sweep


def create_sweep(storage: Storage, name: str, spec: SweepSpec) -> Sweep:
    """Create a sweep, which claims its id.

    Args:
        storage: the storage of the sweeps.
        name: id of the sweep.
        spec: the checked sweep file.

    Raises:
        SweepExistsError: the id is taken.
        UserError: the id is not a valid folder name, or the storage cannot be written.
    """
    if not is_identifier(name):
        raise UserError(f"--id {name}: must be letters, digits, dots, dashes and underscores, 64 at most")
    sweep = Sweep(name, storage.child(name), spec, time.time(), revision(), versions())
    content = {
        "schema": SWEEP_SCHEMA,
        "id": name,
        "created": sweep.created,
        "revision": sweep.revision,
        "versions": dict(sweep.versions),
        "spec": spec.model_dump(mode="json", by_alias=True),
    }
    try:
        sweep.storage.create(SWEEP_FILE, json.dumps(content, indent=1).encode())
    except FileExistsError:
        raise SweepExistsError(sweep) from None
    return sweep


def open_sweep(uri: str) -> Sweep:
    """Open the sweep at an address.

    Raises:
        UserError: there is no sweep, or it cannot be read.
    """
    storage = open_storage(uri)
    location = f"{storage.uri}/{SWEEP_FILE}"
    try:
        content = storage.read(SWEEP_FILE)
    except FileNotFoundError as error:
        raise UserError(f"{storage.uri}: there is no sweep") from error
    schema = parse_json(content, _Schema, location)["schema"]
    if schema > SWEEP_SCHEMA:
        raise UserError(f"{location}: was written by a newer version (schema {shown(schema)}); upgrade semprior")
    stored = parse_json(content, _Stored, location)
    spec = SweepSpec.from_json(json.dumps(stored.spec), location)
    return Sweep(stored.id, storage, spec, stored.created, stored.revision, stored.versions)


def find_sweep(storage: Storage, name: str) -> Sweep:
    """Open a sweep of a storage by its id.

    Raises:
        UserError: there is no sweep with this id; the message suggests the most similar id.
    """
    if not is_identifier(name) or not storage.child(name).exists(SWEEP_FILE):
        close = difflib.get_close_matches(name, sweep_ids(storage), n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else "; `semprior-tune list` shows all sweeps"
        raise UserError(f"{name}: no such sweep in {storage.uri}{hint}")
    return open_sweep(storage.child(name).uri)


def sweep_ids(storage: Storage) -> list[str]:
    """The ids of the sweeps of a storage, sorted."""
    folders = [entry.name for entry in storage.list() if entry.is_folder]
    return [name for name in folders if storage.exists(f"{name}/{SWEEP_FILE}")]


def read_each(storage: Storage, read: Callable[[Sweep], T]) -> tuple[list[tuple[Sweep, T]], dict[str, str]]:
    """Read something of every sweep of a storage. A sweep that cannot be read does not hide the others.

    Args:
        storage: the storage of the sweeps.
        read: reads one sweep; it may raise `UserError`.

    Returns:
        The sweeps that can be read, each with the result of `read`; and by id, why each other sweep cannot.
    """
    results: list[tuple[Sweep, T]] = []
    unreadable: dict[str, str] = {}
    for name in sweep_ids(storage):
        try:
            sweep = open_sweep(storage.child(name).uri)
            results.append((sweep, read(sweep)))
        except UserError as error:
            unreadable[name] = str(error)
    return results, unreadable


def driver_log(generation: int) -> str:
    """The name of the log file of a driver, by the driver's generation."""
    return f"logs/driver-{generation:04d}.log"
