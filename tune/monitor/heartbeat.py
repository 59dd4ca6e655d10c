"""Whether a sweep runs: small files that its drivers renew, one for each driver, and requests to stop.

::

    SWEEP/heartbeat/0001.json   of the first driver; 0002.json is of the driver that the first `resume` starts
                    0001.stop   a request that the first driver stop

The drivers of a sweep are counted: the number of a driver is its *generation*. Its file says `running` while the driver
runs, and at its end `stopped` (there is more to do, which `resume` continues) or `done`. A file that says `running` and
was not renewed for `LOST_AFTER` seconds belongs to a driver that died: the sweep is *lost*. The newest generation
decides the state of the sweep.

Example, in a driver::

    with HeartbeatWriter(storage, generation) as heartbeat:
        while trials_are_left and not heartbeat.stop_requested:
            ...
        heartbeat.finish("stopped" if trials_are_left else "done")
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from semprior.errors import StorageError, UserError
from semprior.io.storage import Storage
from semprior.reading.json_text import parse_json
from tune.monitor.exception_text import describe

FOLDER = "heartbeat"
INTERVAL, LOST_AFTER = 5.0, 60.0  # seconds
STATES = ("running", "stopped", "done")


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
        note: why the driver ended; may be empty.
    """

    generation: int
    state: str
    time: float
    started: float
    host: str
    processes: str
    pid: int
    note: str = ""

    def observed_state(self, now: float | None = None) -> str:
        """``running``, ``lost``, ``stopped`` or ``done``.

        Lost is a driver whose file is old, and at once one whose process has gone from this host.

        Args:
            now: time of observation, in seconds since 1970; None: the present.
        """
        if self.state != "running":
            return self.state
        late = (time.time() if now is None else now) - self.time > LOST_AFTER
        gone = (self.host, self.processes) == _process_table() and not _is_alive(self.pid)
        return "lost" if late or gone else "running"


class HeartbeatWriter:
    """Renews the heartbeat of a driver in a thread, and notices requests to stop.

    Entering the context claims the generation. A later generation counts as a request to stop, too. Leaving the
    context without `finish` writes ``stopped``, with the exception if there is one.

    Args:
        storage: storage of the sweep.
        generation: generation of the driver.
        interval: seconds between two writes.
        on_write: called after each write.
    """

    def __init__(
        self,
        storage: Storage,
        generation: int,
        interval: float = INTERVAL,
        on_write: Callable[[], None] | None = None,
    ) -> None:
        self.storage, self.interval, self.on_write = storage, interval, on_write
        now = time.time()
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
        try:
            self._write()
        except StorageError:
            if error is None:  # else the user needs to see that exception
                raise

    def _run(self) -> None:
        while not self._ended.wait(self.interval):
            try:
                self._write(running=True)
                number = self._heartbeat.generation
                if stop_requested(self.storage, number) or last_generation(self.storage) > number:
                    self._stop_requested.set()
            except (UserError, FileNotFoundError):  # the storage may answer again at the next write
                continue

    def _write(self, running: bool = False) -> None:
        state = "running" if running else self._heartbeat.state
        heartbeat = replace(self._heartbeat, time=time.time(), state=state)
        self.storage.put(_file(heartbeat.generation), self._content(heartbeat))
        if self.on_write is not None:
            self.on_write()

    @staticmethod
    def _content(heartbeat: Heartbeat) -> bytes:
        return json.dumps(asdict(heartbeat)).encode()


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


def last_heartbeat(storage: Storage) -> Heartbeat | None:
    """The heartbeat of a sweep's newest driver; None before the first."""
    number = last_generation(storage)
    return _read(storage, number) if number else None


def last_generation(storage: Storage) -> int:
    """The newest generation of a sweep's drivers; 0 before the first."""
    return max(_generations(storage), default=0)


def hours_before(storage: Storage, generation: int) -> float:
    """Hours that the drivers of a sweep before a generation have run."""
    heartbeats = [_read(storage, number) for number in _generations(storage) if number < generation]
    return sum(heartbeat.time - heartbeat.started for heartbeat in heartbeats) / 3600


def _generations(storage: Storage) -> list[int]:
    names = [entry.name.removeprefix(f"{FOLDER}/") for entry in storage.list(FOLDER)]
    return [int(name.removesuffix(".json")) for name in names if name.endswith(".json")]


def _read(storage: Storage, generation: int) -> Heartbeat:
    return parse_json(storage.read(_file(generation)), Heartbeat, f"{storage.uri}/{_file(generation)}")


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
