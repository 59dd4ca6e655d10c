"""Processor time and memory of a driver and of the Ray that it started, sampled while it works."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_EVERY = 2.0  # seconds between two samples
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One look.

    Attributes:
        time: seconds since 1970.
        driver_cpu: processor seconds of this process so far.
        ray_cpu: likewise of the server of the cluster's state and of the raylet.
        driver_mb: memory of this process, MiB: what is its own, and its share of what it has in common with others.
        ray_mb: likewise of the two.
        trial_mb: likewise of a trial's process on average.
    """

    time: float
    driver_cpu: float
    ray_cpu: float
    driver_mb: float
    ray_mb: float
    trial_mb: float


class Sampler:
    """Samples in a thread of its own while the context lasts."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self.samples.append(sample())
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def between(self, first: float, last: float) -> tuple[Sample, Sample]:
        """The samples next to two moments; two different ones."""
        count = len(self.samples)
        begin = min(range(count - 1), key=lambda place: abs(self.samples[place].time - first))
        end = min(range(begin + 1, count), key=lambda place: abs(self.samples[place].time - last))
        return self.samples[begin], self.samples[end]

    def _run(self) -> None:
        while not self._over.wait(_EVERY):
            self.samples.append(sample())


def sample() -> Sample:
    """Look now."""
    ray: list[int] = []
    trials: list[int] = []
    for pid, command in _descendants(os.getpid()):
        if command.startswith("ray::StandIn"):
            trials.append(pid)
        elif re.match(r"\S*/(gcs_server|raylet)\b", command):
            ray.append(pid)
    return Sample(
        time=time.time(),
        driver_cpu=time.process_time(),
        ray_cpu=sum(_cpu(pid) for pid in ray),
        driver_mb=_memory(os.getpid()),
        ray_mb=sum(_memory(pid) for pid in ray),
        trial_mb=sum(_memory(pid) for pid in trials[:4]) / max(len(trials[:4]), 1),  # they are alike
    )


def _descendants(root: int) -> list[tuple[int, str]]:
    """Process ids and command lines."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
    found, waiting = [], [root]
    while waiting:
        above = waiting.pop()
        below = [pid for pid, parent in parents.items() if parent == above and pid in commands]
        found += [(pid, commands[pid]) for pid in below]
        waiting += below
    return found


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _memory(pid: int) -> float:
    try:
        found = re.search(
            r"^Pss:\s*(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8"), re.MULTILINE
        )
    except OSError:
        return 0.0
    return int(found.group(1)) / 1024 if found else 0.0
