"""The sweeps of a storage. Each is a folder with a `sweep.json`, which never changes.

::

    STORAGE/SWEEP/sweep.json             the resolved sweep file, the id, the time of creation, provenance and digests
                  extensions/0001.json   the first raise of its budget, and so on

What a sweep is, is fixed when it is created: its sweep file, its data, and the version of the code that its numbers
depend on. `sweep.json` has the digest of each; what goes on with the sweep compares them (`require_unchanged`), as
trials of different data or settings cannot be ranked together. Its budget alone can be raised later: every raise is a
file that never changes either, with a digest of its own and that of the file before it (`extend_sweep`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import semprior
from semprior.errors import StorageError, UserError
from semprior.io.storage import Storage, open_storage
from semprior.reading.json_text import parse_json
from semprior.reading.names import is_identifier
from semprior.reading.schema import shown
from tune.spec.sweep_file import MOST_HOURS, MOST_TRIALS, SweepSpec
from tune.store.provenance import revision, versions
from tune.store.records import SCHEMA_VERSION

SWEEP_FILE, SWEEP_SCHEMA = "sweep.json", 2
EXTENSIONS, EXTENSION_SCHEMA = "extensions", 1
_EXTENSION = re.compile(rf"{EXTENSIONS}/(\d{{4}})\.json", re.ASCII)
DEFAULT_STORAGE = "./runs"
T = TypeVar("T")


@dataclass(frozen=True)
class Extension:
    """A raise of the budget of a sweep.

    Attributes:
        trials: number of configurations that it adds.
        hours: hours that it adds.
        begun: number of configurations that had begun. `budget.patience` counts anew from there.
        generation: the newest driver of the sweep at that time; 0 before the first.
    """

    trials: int
    hours: float
    begun: int
    generation: int


@dataclass(frozen=True)
class Sweep:
    """A sweep in its storage.

    Attributes:
        id: id of the sweep, which is the name of its folder.
        storage: the folder of the sweep.
        spec: the checked sweep file, with the budget as it was raised last.
        created: time of creation, in seconds since 1970.
        revision: git revision of the code that created the sweep.
        versions: package versions at the time of creation, by name.
        data: digest of the data set (`semprior.data.remote_data.data_identity`); empty for trials that read none.
        code: versions of the numbers that the code computes (`semprior.NUMERICS`) and of the records.
        digest: SHA-256 of `sweep.json`, which the file itself contains.
        extensions: the raises of its budget, in their order.
    """

    id: str
    storage: Storage
    spec: SweepSpec
    created: float
    revision: str
    versions: Mapping[str, str]
    data: str = ""
    code: tuple[int, int] = (semprior.NUMERICS, SCHEMA_VERSION)
    digest: str = ""
    extensions: tuple[Extension, ...] = ()


class SweepExistsError(UserError):
    """A sweep with this id exists already."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(f"{sweep.id}: exists already in {sweep.storage.uri}; choose another --id")
        self.sweep = sweep


class SweepRemovedError(StorageError):
    """The folder of a sweep was removed while the sweep ran. Nothing may be written, which would make it anew."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri}: the folder of the sweep was removed while it ran")


def create_sweep(storage: Storage, name: str, spec: SweepSpec, data: str = "") -> Sweep:
    """Create a sweep, which claims its id.

    Args:
        storage: the storage of the sweeps.
        name: id of the sweep.
        spec: the checked sweep file.
        data: digest of its data set (`semprior.data.remote_data.data_identity`); empty for trials that read none.

    Raises:
        SweepExistsError: the id is taken.
        UserError: the folder holds something else, such as what is left of an earlier sweep.
        UserError: the id is not a valid folder name, or the storage cannot be written.
    """
    if not is_identifier(name):
        raise UserError(f"--id {name}: must be letters, digits, dots, dashes and underscores, 64 at most")
    sweep = Sweep(name, storage.child(name), spec, time.time(), revision(), versions(), data)
    present = [entry.name for entry in sweep.storage.list()]
    if present and SWEEP_FILE not in present:
        more = f" and {len(present) - 1} more" if len(present) > 1 else ""
        raise UserError(
            f"{name}: {sweep.storage.uri} holds {present[0]}{more}, perhaps of an earlier sweep; remove the folder, or"
            " choose another --id"
        )
    content: dict[str, Any] = {
        "schema": SWEEP_SCHEMA,
        "id": name,
        "created": sweep.created,
        "revision": sweep.revision,
        "versions": dict(sweep.versions),
        "data": data,
        "code": list(sweep.code),
        "spec": spec.model_dump(mode="json", by_alias=True),
    }
    content["sha256"] = _digest(content)
    try:
        sweep.storage.create(SWEEP_FILE, json.dumps(content, indent=1).encode())
    except FileExistsError:
        raise SweepExistsError(sweep) from None
    return replace(sweep, digest=content["sha256"])


def open_sweep(uri: str) -> Sweep:
    """Open the sweep at an address.

    Raises:
        UserError: there is no sweep, or it cannot be read.
    """
    storage = open_storage(uri)
    location = f"{storage.uri}/{SWEEP_FILE}"
    try:
        content = parse_json(storage.read(SWEEP_FILE), dict[str, Any], location)
        schema = content["schema"]
        if schema > SWEEP_SCHEMA:
            raise UserError(f"{location}: was written by a newer version (schema {shown(schema)}); upgrade semprior")
        if schema < SWEEP_SCHEMA:
            raise UserError(
                f"{location}: was written before the first release (schema {schema}) and is no longer read; begin the"
                " sweep anew"
            )
        if content["sha256"] != _digest({key: value for key, value in content.items() if key != "sha256"}):
            raise UserError(f"{location}: was changed after the sweep had begun; restore it, or begin another sweep")
        sweep = Sweep(
            str(content["id"]),
            storage,
            SweepSpec.from_json(json.dumps(content["spec"]), location),
            float(content["created"]),
            str(content["revision"]),
            {str(name): str(version) for name, version in content["versions"].items()},
            str(content["data"]),
            (int(content["code"][0]), int(content["code"][1])),
            content["sha256"],
        )
    except FileNotFoundError as error:
        raise UserError(f"{storage.uri}: there is no sweep") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{location}: is damaged ({error!r})") from error
    return with_extensions(sweep)


def with_extensions(sweep: Sweep) -> Sweep:
    """The sweep with the raises of its budget that were recorded since it was opened.

    Raises:
        UserError: a raise cannot be read, was changed, or is missing.
    """
    names = sorted(entry.name for entry in sweep.storage.list(EXTENSIONS) if _EXTENSION.fullmatch(entry.name))
    if len(names) <= len(sweep.extensions):
        return sweep
    found, previous = [], sweep.digest
    for number, name in enumerate(names, 1):
        location = f"{sweep.storage.uri}/{name}"
        if name != _extension_file(number):
            raise UserError(f"{sweep.storage.uri}/{_extension_file(number)}: is missing; restore it")
        extension, previous = _read_extension(sweep.storage.read(name), location, previous)
        found.append(extension)
    spec = _raised(sweep.spec, found[len(sweep.extensions) :])
    return replace(sweep, spec=spec, extensions=tuple(found))


def extend_sweep(sweep: Sweep, trials: int, hours: float, begun: int, generation: int) -> Sweep:
    """Raise the budget of a sweep.

    Args:
        sweep: the sweep.
        trials: number of configurations to add; 0 for none.
        hours: hours to add; 0 for none.
        begun: number of its configurations that have begun.
        generation: its newest driver; 0 before the first.

    Returns:
        The sweep with the raised budget.

    Raises:
        UserError: the budget cannot be raised by these numbers, or the storage cannot be written.
    """
    _check_extension(sweep, trials, hours)
    while True:
        sweep = with_extensions(sweep)
        number = len(sweep.extensions) + 1
        previous = sweep.digest
        if sweep.extensions:
            name = _extension_file(number - 1)
            previous = parse_json(sweep.storage.read(name), dict[str, Any], f"{sweep.storage.uri}/{name}")["sha256"]
        content: dict[str, Any] = {"schema": EXTENSION_SCHEMA, "created": time.time(), "previous": previous}
        content |= {"trials": trials, "hours": hours, "begun": begun, "generation": generation}
        content["sha256"] = _digest(content)
        try:
            sweep.storage.create(_extension_file(number), json.dumps(content, indent=1).encode())
        except FileExistsError:  # another one was faster, and both count
            continue
        return with_extensions(sweep)


def _check_extension(sweep: Sweep, trials: int, hours: float) -> None:
    budget, runs = sweep.spec.budget, sweep.spec.run_count
    if trials and sweep.spec.configurations is not None:
        raise UserError(f"{sweep.id}: lists its configurations, {budget.trials}, and has no others to try")
    if (budget.trials + trials) * runs > MOST_TRIALS:
        most = MOST_TRIALS // runs - budget.trials
        raise UserError(f"--trials +{trials}: must be at most +{most}, for {MOST_TRIALS} trials in all")
    if hours and budget.hours is None:
        raise UserError(f"--hours +{hours:g}: {sweep.id} has no budget of hours, and ends by its trials alone")
    if not 0 <= hours <= MOST_HOURS - (budget.hours or 0):  # also refuses nan
        raise UserError(f"--hours {hours:+g}: must be a number above 0, for {MOST_HOURS:g} hours in all at most")


def _extension_file(number: int) -> str:
    return f"{EXTENSIONS}/{number:04d}.json"


def _read_extension(content: bytes, location: str, previous: str) -> tuple[Extension, str]:
    """A raise of the budget that follows the file with the digest `previous`, and its own digest."""
    try:
        told = parse_json(content, dict[str, Any], location)
        if told["schema"] != EXTENSION_SCHEMA:
            raise UserError(f"{location}: was written by another version (schema {shown(told['schema'])})")
        digest = _digest({key: value for key, value in told.items() if key != "sha256"})
        if (told["sha256"], told["previous"]) != (digest, previous):
            raise UserError(f"{location}: was changed, or is of another sweep; restore it")
        numbers = int(told["trials"]), float(told["hours"]), int(told["begun"]), int(told["generation"])
        if not all(0 <= number <= MOST_TRIALS for number in numbers):
            raise ValueError("a number is out of range")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{location}: is damaged ({error!r})") from error
    return Extension(*numbers), digest


def _raised(spec: SweepSpec, extensions: Sequence[Extension]) -> SweepSpec:
    budget = spec.budget
    raised: dict[str, float] = {"trials": budget.trials + sum(extension.trials for extension in extensions)}
    if budget.hours is not None:
        raised["hours"] = budget.hours + sum(extension.hours for extension in extensions)
    return spec.model_copy(update={"budget": budget.model_copy(update=raised)})


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def require_unchanged(sweep: Sweep, data: str) -> None:
    """Refuse to go on with a sweep whose data or code are not those that it began with.

    Args:
        sweep: the sweep, whose own file `open_sweep` has verified.
        data: digest of its data set as it is now.

    Raises:
        UserError: says which of them is another one.
    """
    now = (semprior.NUMERICS, SCHEMA_VERSION)
    if sweep.code != now:
        begun, here = (".".join(map(str, code)) for code in (sweep.code, now))
        raise UserError(
            f"{sweep.id}: was begun by a version of semprior that computes other numbers ({begun}, this one {here});"
            f" go on with revision {sweep.revision or 'of that time'}, or begin another sweep"
        )
    if sweep.data and sweep.data != data:
        raise UserError(
            f"{sweep.id}: its data, {sweep.spec.data}, were changed after the sweep had begun; restore them, or begin"
            " another sweep"
        )


def require_present(storage: Storage) -> None:
    """Refuse to write into the folder of a sweep that was removed.

    Raises:
        SweepRemovedError: it has no `sweep.json`.
    """
    if not storage.exists(SWEEP_FILE):
        raise SweepRemovedError(storage.uri.partition("?")[0])


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
    return [name for name in folders if is_identifier(name) and storage.exists(f"{name}/{SWEEP_FILE}")]


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
