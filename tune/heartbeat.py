"""Whether a sweep runs: small files that its driver renews, one for each of its lives, and requests to stop.

::

    SWEEP/heartbeat/0001.json   the first driver's; 0002.json is that of the first `resume`, and so on
                    0001.stop   somebody has asked that driver to stop

A life of the driver is a *generation*. Its file says `running` while it beats, and at its end `stopped` (there is more
to do, `resume` goes on) or `done`. A file that says `running` and was not renewed for `LOST_AFTER` seconds is of a
driver that died: *lost*. The newest generation speaks for the sweep.

Example, in a driver::

    with Heart(filesystem, root, generation) as heart:
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType

from pyarrow import fs

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

    Leaving the block without `finish` says ``stopped``, with the error if there is one.

    Args:
        filesystem: of the sweep.
        root: of the sweep in it.
        generation: of the driver.
        every: seconds between two beats.
    """

    def __init__(self, filesystem: fs.FileSystem, root: str, generation: int, every: float = BEAT_EVERY) -> None:
        self.filesystem, self.root, self.every = filesystem, root, every
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
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        if self._beat.state == "running":
            self.finish("stopped", " ".join(f"{kind.__name__}: {error}".split()) if kind else "")
        self._write()

    def _run(self) -> None:
        while not self._over.wait(self.every):
            try:
                self._write(running=True)
                if stop_requested(self.filesystem, self.root, self._beat.generation):
                    self._asked.set()
            except OSError:  # of a storage that is away for a while; the next beat may reach it
                continue

    def _write(self, running: bool = False) -> None:
        beat = replace(self._beat, time=time.time(), state="running" if running else self._beat.state)
        folder = f"{self.root}/heartbeat"
        self.filesystem.create_dir(folder, recursive=True)
        put(self.filesystem, f"{folder}/{beat.generation:04d}.json", json.dumps(asdict(beat)).encode())


def last_heartbeat(filesystem: fs.FileSystem, root: str) -> Heartbeat | None:
    """That of a sweep's newest generation; none before its first."""
    files = _files(filesystem, root, "json")
    if not files:
        return None
    with filesystem.open_input_stream(max(files)) as stream:
        return Heartbeat(**json.loads(stream.read()))


def request_stop(filesystem: fs.FileSystem, root: str, generation: int) -> None:
    """Ask the driver of a generation to stop."""
    put(filesystem, f"{root}/heartbeat/{generation:04d}.stop", b"")


def stop_requested(filesystem: fs.FileSystem, root: str, generation: int) -> bool:
    """Whether `request_stop` was called for a generation."""
    return filesystem.get_file_info(f"{root}/heartbeat/{generation:04d}.stop").type == fs.FileType.File


def put(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    """Write a file whole: where the storage has renaming, beside its place first; an object store's put is whole."""
    local = isinstance(filesystem, fs.LocalFileSystem)
    scratch = f"{path}.{os.getpid()}.tmp" if local else path
    with filesystem.open_output_stream(scratch) as stream:
        stream.write(content)
    if local:
        filesystem.move(scratch, path)


def _files(filesystem: fs.FileSystem, root: str, suffix: str) -> list[str]:
    selector = fs.FileSelector(f"{root}/heartbeat", allow_not_found=True)
    return [info.path for info in filesystem.get_file_info(selector) if info.extension == suffix]


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
