"""Which sweeps a storage holds: each is a folder with a `sweep.json` that never changes.

::

    STORAGE/SWEEP/sweep.json   the whole sweep file, resolved; its id; when and by which code it was begun
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semprior.errors import UserError
from semprior.storage import Storage, open_storage
from tune.jobs import CLUSTER_VARIABLE
from tune.origin import revision, versions
from tune.sweep import STORAGE_VARIABLE, SweepSpec

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


def create_sweep(storage: Storage, name: str, spec: SweepSpec) -> Sweep:
    """Begin a sweep: claim its id.

    Args:
        storage: that will hold it.
        name: its id.
        spec: the sweep file.

    Raises:
        UserError: the id cannot name a folder, or is taken; or the storage cannot be written.
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
        raise UserError(
            f"{name}: exists already in {storage.uri}; go on: `{command('resume', sweep)}`, or choose another --id"
        ) from None
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
    folders = [entry.name for entry in storage.list() if entry.folder]
    return [name for name in folders if storage.exists(f"{name}/{FILE}")]


def command(verb: str, sweep: Sweep, *more: str, which: str = "") -> str:
    """What a user types about a sweep: ``semprior-tune resume demo``, with its storage unless that is the usual one.

    Args:
        verb: the command.
        sweep: it is about.
        more: words after it.
        which: of its trials, as in ``demo:0007``.
    """
    head, mark, query = sweep.storage.uri.partition("?")
    home = head.rpartition("/")[0] + mark + query
    usual = open_storage(os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE).uri
    place = () if home == usual else ("--storage", home)
    cluster = os.environ.get(CLUSTER_VARIABLE)
    there = ("--cluster", cluster) if cluster else ()
    return shlex.join(["semprior-tune", verb, f"{sweep.id}:{which}" if which else sweep.id, *more, *place, *there])
