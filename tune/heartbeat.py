"""Whether a sweep runs: small files that its driver renews, one for each of its lives, and requests to stop.

::

    SWEEP/heartbeat/0001.json   the first driver's; 0002.json is that of the first `resume`, and so on
                    0001.stop   somebody has asked that driver to stop

A life of the driver is a *generation*. Its file says `running` while it beats, and at its end `stopped` (there is more
to do, `resume` goes on) or `done`. A file that says `running` and was not renewed for `LOST_AFTER` seconds is of a
driver that died: *lost*. The newest generation speaks for the sweep.

Example, in a driver::

    with Heart(storage, generation) as heart:
        while trials_are_left and not heart.stop_requested:
            ...
        heart.finish("stopped" if trials_are_left else "done")
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
from semprior.storage import Storage
from tune.telling import told

FOLDER = "heartbeat"
BEAT_EVERY, LOST_AFTER = 5.0, 60.0  # seconds
STATES = ("running", "stopped", "done")


@dataclass(frozen=True)
class Heartbeat:
    """What a driver last said of itself.

    Attributes:
        generation: of the driver, counted from 1.
        state: ``running``, ``stopped`` or ``done``.
        time: of the beat, in seconds since 1970.
        started: likewise, of the generation.
        host: that it runs on.
        processes: which of the host's process tables (a container has its own) `pid` stands in.
        pid: of its process.
        note: why it ended, or nothing.
    """

    generation: int
    state: str
    time: float
    started: float
    host: str
    processes: str
    pid: int
    note: str = ""

    def word(self, now: float | None = None) -> str:
        """``running``, ``lost``, ``stopped`` or ``done``; a process of this host that is gone is lost at once."""
        if self.state != "running":
            return self.state
        late = (time.time() if now is None else now) - self.time > LOST_AFTER
        gone = (self.host, self.processes) == _here() and not _alive(self.pid)
        return "lost" if late or gone else "running"


class Heart:
    """Beats in a thread of its own while a driver runs, and hears requests to stop.

    Entering the block claims the generation; a later generation that begins is a request to stop, too. Leaving it
    without `finish` says ``stopped``, with the error if there is one.

    Args:
        storage: of the sweep.
        generation: of the driver.
        every: seconds between two beats.
        with_each: done with every beat.
    """

    def __init__(
        self, storage: Storage, generation: int, every: float = BEAT_EVERY, with_each: Callable[[], None] | None = None
    ) -> None:
        self.storage, self.every, self.with_each = storage, every, with_each
        now = time.time()
        self._beat = Heartbeat(generation, "running", now, now, *_here(), os.getpid())
        self._over, self._asked = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked this driver to stop."""
        return self._asked.is_set()

    def ask(self) -> None:
        """Ask this driver to stop, from within its process."""
        self._asked.set()

    def finish(self, state: str, note: str = "") -> None:
        """What the last beat will say, once the block is left."""
        if state not in STATES:
            raise ValueError(f"{state} is none of {', '.join(STATES)}")
        self._beat = replace(self._beat, state=state, note=note)

    def __enter__(self) -> Heart:
        """Claim the generation.

        Raises:
            UserError: another driver has.
        """
        number = self._beat.generation
        try:
            self.storage.create(_file(number), self._content(self._beat))
        except FileExistsError:
            raise UserError(
                f"{self.storage.uri}: another driver has begun, the {number}. of this sweep; `status` shows it"
            ) from None
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if self._beat.state == "running":
            self.finish("stopped", _told(error))
        try:
            self._write()
        except StorageError:
            if error is None:  # else that is what is to be told
                raise

    def _run(self) -> None:
        while not self._over.wait(self.every):
            try:
                self._write(running=True)
                number = self._beat.generation
                if stop_requested(self.storage, number) or last_generation(self.storage) > number:
                    self._asked.set()
            except (UserError, FileNotFoundError):  # of a storage that is away for a while; the next beat may reach it
                continue

    def _write(self, running: bool = False) -> None:
        beat = replace(self._beat, time=time.time(), state="running" if running else self._beat.state)
        self.storage.put(_file(beat.generation), self._content(beat))
        if self.with_each is not None:
            self.with_each()

    @staticmethod
    def _content(beat: Heartbeat) -> bytes:
        return json.dumps(asdict(beat)).encode()


class StopRequested:
    """Whether a driver is asked to stop, for Ray Tune, which pickles whatever it is given, as no heart can be.

    Args:
        heart: of the driver; none, in a copy: nobody asks.
    """

    def __init__(self, heart: Heart | None) -> None:
        self._heart = heart

    def __call__(self) -> bool:
        return self._heart is not None and self._heart.stop_requested

    def __reduce__(self) -> tuple[type[StopRequested], tuple[None]]:
        return StopRequested, (None,)


def _told(error: BaseException | None) -> str:
    if error is None:
        return ""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    return told(error)


def last_heartbeat(storage: Storage) -> Heartbeat | None:
    """That of a sweep's newest generation; none before its first."""
    number = last_generation(storage)
    return _read(storage, number) if number else None


def last_generation(storage: Storage) -> int:
    """The newest generation of a sweep's drivers; 0 before its first."""
    return max(_generations(storage), default=0)


def hours_before(storage: Storage, generation: int) -> float:
    """How long the drivers of a sweep have run before that of a generation."""
    beats = [_read(storage, number) for number in _generations(storage) if number < generation]
    return sum(beat.time - beat.started for beat in beats) / 3600


def _generations(storage: Storage) -> list[int]:
    names = [entry.name.removeprefix(f"{FOLDER}/") for entry in storage.list(FOLDER)]
    return [int(name.removesuffix(".json")) for name in names if name.endswith(".json")]


def _read(storage: Storage, generation: int) -> Heartbeat:
    return Heartbeat(**json.loads(storage.read(_file(generation))))


def _file(generation: int) -> str:
    return f"{FOLDER}/{generation:04d}.json"


def request_stop(storage: Storage, generation: int) -> None:
    """Ask the driver of a generation to stop."""
    storage.put(f"{FOLDER}/{generation:04d}.stop", b"")


def stop_requested(storage: Storage, generation: int) -> bool:
    """Whether `request_stop` was called for a generation."""
    return storage.exists(f"{FOLDER}/{generation:04d}.stop")


def _here() -> tuple[str, str]:
    table = Path("/proc/self/ns/pid")
    return platform.node(), os.readlink(table) if table.is_symlink() else ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
