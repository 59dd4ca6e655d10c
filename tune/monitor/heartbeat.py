"""Whether a sweep runs: small files that its drivers renew, one for each driver, and requests to stop.

::

    SWEEP/heartbeat/0001.json   of the first driver; 0002.json is of the driver that the first `resume` starts
                    0001.stop   a request that the first driver stop

The drivers of a sweep are counted: the number of a driver is its *generation*. Its file says `running` while the driver
runs, and at its end `stopped` (there is more to do, which `resume` continues) or `done`. A file that says `running` and
was not renewed for `LOST_AFTER` seconds belongs to a driver that died: the sweep is *lost*. The newest generation
decides the state of the sweep.

The clocks of two machines may differ, and a clock may jump. A heartbeat that seems late, or comes from the future, is
therefore watched before anything is begun in its place (`observe`): a driver that runs renews it. The time that drivers
have run is that of their monotonic clocks.

On a full disk a new file cannot be written. A driver then overwrites its heartbeat, which has its space already, so
that its state and what it waits for are known nevertheless.

Example, in a driver::

    with HeartbeatWriter(storage, generation) as heartbeat:
        while trials_are_left and not heartbeat.stop_requested:
            ...
        heartbeat.finish("stopped" if trials_are_left else "done")
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from semprior.errors import StorageError, UserError
from semprior.io.storage import Storage
from semprior.reading.json_text import parse_json
from tune.monitor.exception_text import describe

FOLDER = "heartbeat"
INTERVAL, LOST_AFTER = 5.0, 60.0  # seconds
WATCH = 2.5 * INTERVAL  # seconds in which a driver that runs renews its heartbeat
STATES = ("running", "stopped", "done")
_SIZE = 4096  # bytes of a heartbeat's file, so that a later content needs no more space
_LOW = 64 << 20  # bytes that are left on a disk on which checkpoints will soon not fit
_OURS = re.compile(rf"{FOLDER}/(?P<number>\d{{4,9}})\.(json|stop)", re.ASCII)


@dataclass(frozen=True)
class Heartbeat:
    """The content of a driver's file.

    Attributes:
        generation: generation of the driver, counted from 1.
        state: state that the driver wrote: ``running``, ``stopped`` or ``done``.
        time: time of writing, in seconds since 1970.
        started: start of the driver, in seconds since 1970.
        host: host that the driver runs on.
        processes: identity of the process table that `pid` belongs to; a container has its own.
        pid: id of the driver's process.
        note: why the driver ended, or what it waits for; may be empty.
        active: seconds that the driver has run, by its monotonic clock.
    """

    generation: int
    state: str
    time: float
    started: float
    host: str
    processes: str
    pid: int
    note: str = ""
    active: float = 0.0

    def observed_state(self, now: float | None = None) -> str:
        """``running``, ``lost``, ``stopped`` or ``done``.

        Lost is a driver whose file is old or from the future, and at once one whose process has gone from this host.

        Args:
            now: time of observation, in seconds since 1970; None: the present.
        """
        if self.state != "running":
            return self.state
        age = (time.time() if now is None else now) - self.time
        return "lost" if abs(age) > LOST_AFTER or self.is_gone() else "running"

    def is_gone(self) -> bool:
        """Whether the driver's process is one of this host that has ended."""
        return (self.host, self.processes) == _process_table() and not _is_alive(self.pid)

    @property
    def is_damaged(self) -> bool:
        """Whether it stands for a file that cannot be read; `note` says why."""
        return not self.pid

    def is_ahead(self) -> bool:
        """Whether the clock of the driver is, or was, so far ahead of the one here that they cannot be compared."""
        return self.state == "running" and self.time - time.time() > LOST_AFTER


class HeartbeatWriter:
    """Renews the heartbeat of a driver in a thread, and notices requests to stop.

    Entering the context claims the generation. A later generation counts as a request to stop, too. Leaving the
    context without `finish` writes ``stopped``, with the exception if there is one.

    Args:
        storage: storage of the sweep.
        generation: generation of the driver.
        interval: seconds between two writes.
        on_write: called after each write.
        required: a file of the sweep, whose absence means that the sweep was removed; None: nothing is looked for.

    Attributes:
        fault: why the driver must not go on; empty as long as it may. Nothing is written any more then.
    """

    def __init__(
        self,
        storage: Storage,
        generation: int,
        interval: float = INTERVAL,
        on_write: Callable[[], None] | None = None,
        required: str | None = None,
    ) -> None:
        self.storage, self.interval, self.on_write, self.required = storage, interval, on_write, required
        self.fault = ""
        now, self._began = time.time(), time.monotonic()
        self._heartbeat = Heartbeat(generation, "running", now, now, *_process_table(), os.getpid())
        self._ended, self._stop_requested = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def stop_requested(self) -> bool:
        """Whether the driver is requested to stop."""
        return self._stop_requested.is_set()

    def request_stop(self) -> None:
        """Request from within the driver's process that the driver stop."""
        self._stop_requested.set()

    def finish(self, state: str, note: str = "") -> None:
        """Set the state that is written when the context ends."""
        if state not in STATES:
            raise ValueError(f"{state} is none of {', '.join(STATES)}")
        self._heartbeat = replace(self._heartbeat, state=state, note=note)

    def __enter__(self) -> HeartbeatWriter:
        """Claim the generation.

        Raises:
            UserError: another driver has claimed it.
        """
        number = self._heartbeat.generation
        try:
            self.storage.create(_file(number), self._content(self._heartbeat))
        except FileExistsError:
            raise UserError(
                f"{self.storage.uri}: another driver has begun, number {number} of this sweep; `status` shows it"
            ) from None
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if self._heartbeat.state == "running":
            self.finish("stopped", _note(error))
        if self._may_write():
            self._write_last(error)

    def _write_last(self, error: BaseException | None) -> None:
        try:
            self._write()
        except StorageError:
            if error is None:  # else the user needs to see that exception
                raise

    def _run(self) -> None:
        waits_for = ""
        while not self._ended.wait(self.interval):
            try:
                if not self._may_write():
                    return
                self._write(running=True, note=waits_for or _low_disk(self.storage))
                waits_for = ""
                number = self._heartbeat.generation
                if stop_requested(self.storage, number) or last_generation(self.storage) > number:
                    self._stop_requested.set()
            except StorageError as error:  # the storage may answer again at the next write
                waits_for = f"waits for its storage: {error}"
                self._overwrite(self._content(self._now("running", waits_for)))
            except (UserError, FileNotFoundError):
                continue

    def _may_write(self) -> bool:
        """Whether the sweep is still there, and its heartbeat this driver's own."""
        number = self._heartbeat.generation
        try:
            if self.required is not None and not self.storage.exists(self.required):
                self._end(f"{self.storage.uri}: the folder of the sweep was removed while it ran")
                return False
            found = _read(self.storage, number)
        except (UserError, FileNotFoundError):  # it is written anew, if the storage answers
            return True
        mine = self._heartbeat
        own = (mine.host, mine.processes, mine.pid, mine.started)
        if not found.is_damaged and (found.host, found.processes, found.pid, found.started) != own:
            self._end(f"{self.storage.uri}: another driver of the same number, {number}, runs on {found.host}")
        return not self.fault

    def _end(self, fault: str) -> None:
        self.fault = fault
        self._stop_requested.set()

    def _write(self, running: bool = False, note: str = "") -> None:
        heartbeat = self._now("running", note) if running else self._now(self._heartbeat.state, self._heartbeat.note)
        content = self._content(heartbeat)
        try:
            self.storage.put(_file(heartbeat.generation), content)
        except StorageError:
            if running or not self._overwrite(content):
                raise
        if self.on_write is not None:
            self.on_write()

    def _now(self, state: str, note: str) -> Heartbeat:
        now, active = time.time(), time.monotonic() - self._began
        return replace(self._heartbeat, time=now, active=active, state=state, note=note)

    def _overwrite(self, content: bytes) -> bool:
        """Write the heartbeat into the blocks that its file has already; whether that was possible."""
        folder = self.storage.local
        if folder is None:
            return False
        try:
            with (folder / _file(self._heartbeat.generation)).open("r+b") as file:
                if os.fstat(file.fileno()).st_size != len(content):
                    return False
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            return False
        return True

    @staticmethod
    def _content(heartbeat: Heartbeat) -> bytes:
        return json.dumps(asdict(heartbeat)).encode().ljust(_SIZE)


def _low_disk(storage: Storage) -> str:
    """What is to be said of the disk of a storage; empty unless it is almost full."""
    if storage.local is None:
        return ""
    try:
        free = shutil.disk_usage(storage.local).free
    except OSError:
        return ""
    return f"the disk of {storage.local} is full: {free / 1e6:.0f} MB are left" if free < _LOW else ""


class StopRequested:
    """Returns whether a driver is requested to stop. Ray Tune pickles it, which a `HeartbeatWriter` cannot be.

    Args:
        heartbeat: writer of the driver; None, in a pickled copy: nothing is requested.
    """

    def __init__(self, heartbeat: HeartbeatWriter | None) -> None:
        self._heartbeat = heartbeat

    def __call__(self) -> bool:
        return self._heartbeat is not None and self._heartbeat.stop_requested

    def __reduce__(self) -> tuple[type[StopRequested], tuple[None]]:
        return StopRequested, (None,)


def _note(error: BaseException | None) -> str:
    if error is None:
        return ""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    return describe(error)


@dataclass(frozen=True)
class Drivers:
    """What the folder of the heartbeats of a sweep says.

    Attributes:
        newest: heartbeat of the newest driver; None before the first.
        left_out: what is in the folder and is no heartbeat, a line each.
    """

    newest: Heartbeat | None
    left_out: tuple[str, ...]


def read_drivers(storage: Storage) -> Drivers:
    """Read the newest heartbeat of a sweep.

    Raises:
        StorageError: the storage cannot be read.
    """
    numbers, foreign = _generations(storage)
    left_out = [f"{name} is not a heartbeat" for name in foreign]
    newest = _read(storage, max(numbers)) if numbers else None
    if newest is not None and newest.is_damaged:
        left_out.append(newest.note)
    return Drivers(newest, tuple(left_out))


def last_heartbeat(storage: Storage) -> Heartbeat | None:
    """The heartbeat of a sweep's newest driver; None before the first.

    One that cannot be read says that the driver runs and was last heard of in 1970, and its note is the fault.
    """
    return read_drivers(storage).newest


def observe(
    storage: Storage, patience: float | None = None, on_wait: Callable[[Heartbeat], None] = lambda seen: None
) -> tuple[Heartbeat | None, str]:
    """The newest heartbeat of a sweep and its state: ``waiting``, ``running``, ``lost``, ``stopped`` or ``done``.

    A driver that seems to be lost is watched, because the clock of its machine may be wrong, unless its process is
    known to have ended.

    Args:
        storage: storage of the sweep.
        patience: seconds to watch it; None: `WATCH`.
        on_wait: called with the heartbeat before it is watched.
    """
    seen = last_heartbeat(storage)
    if seen is None:
        return None, "waiting"
    state = seen.observed_state()
    if state != "lost" or seen.is_gone():
        return seen, state
    on_wait(seen)
    patience = WATCH if patience is None else patience
    until = time.monotonic() + patience
    while time.monotonic() < until:
        time.sleep(min(1.0, patience / 10))
        now = last_heartbeat(storage)
        if now is not None and now != seen:
            return now, now.state
    return seen, "lost"


def last_generation(storage: Storage) -> int:
    """The newest generation of a sweep's drivers; 0 before the first."""
    return max(_generations(storage)[0], default=0)


def hours_before(storage: Storage, generation: int) -> float:
    """Hours that the drivers of a sweep before a generation have run; those whose heartbeat cannot be read count 0."""
    heartbeats = [_read(storage, number) for number in _generations(storage)[0] if number < generation]
    return sum(heartbeat.active for heartbeat in heartbeats) / 3600


def _generations(storage: Storage) -> tuple[list[int], list[str]]:
    """The numbers of the drivers, and the names of what is no file of theirs."""
    numbers, foreign = [], []
    for entry in storage.list(FOLDER):
        found = None if entry.is_folder else _OURS.fullmatch(entry.name)
        if found is None:
            foreign.append(entry.name)
        elif entry.name.endswith(".json"):
            numbers.append(int(found["number"]))
    return numbers, foreign


def _read(storage: Storage, generation: int) -> Heartbeat:
    for _ in range(2):  # it may just be overwritten, on a full disk
        try:
            return _parsed(storage.read(_file(generation)), generation)
        except (UserError, ValueError, TypeError, KeyError) as error:
            fault = str(error) if str(error).isprintable() else type(error).__name__
        time.sleep(0.05)
    note = f"{_file(generation)} is damaged ({fault[:100]})"
    return Heartbeat(generation, "running", 0.0, 0.0, "", "", 0, note)


def _parsed(content: bytes, generation: int) -> Heartbeat:
    """The heartbeat in a file; what a newer version has added to it is ignored.

    Raises:
        UserError, ValueError, TypeError, KeyError: the file is damaged.
    """
    told = parse_json(content, dict[str, Any], _file(generation))
    values = {item.name: told[item.name] for item in fields(Heartbeat)}
    for name, kind in _TYPES.items():
        if not isinstance(values[name], kind) or isinstance(values[name], bool):
            raise ValueError(f"{name} is of another type")
        if isinstance(values[name], float) and not math.isfinite(values[name]):
            raise ValueError(f"{name} is not finite")
    if values["state"] not in STATES or values["generation"] != generation:
        raise ValueError("not a state, or not of this driver")
    return Heartbeat(**values)


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("generation", "pid"), int),
    **dict.fromkeys(("time", "started", "active"), (int, float)),
    **dict.fromkeys(("state", "host", "processes", "note"), str),
}


def _file(generation: int) -> str:
    return f"{FOLDER}/{generation:04d}.json"


def request_stop(storage: Storage, generation: int) -> None:
    """Request that the driver of a generation stop."""
    storage.put(f"{FOLDER}/{generation:04d}.stop", b"")


def stop_requested(storage: Storage, generation: int) -> bool:
    """Whether `request_stop` was called for a generation."""
    return storage.exists(f"{FOLDER}/{generation:04d}.stop")


def _process_table() -> tuple[str, str]:
    """Name of this host and identity of this process's process table."""
    table = Path("/proc/self/ns/pid")
    return platform.node(), os.readlink(table) if table.is_symlink() else ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
