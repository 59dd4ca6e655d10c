"""Scalars and images for TensorBoard, if tensorboardX is installed.

Events are written in the caller's thread, without tensorboardX's queue: a full disk then raises an error in the run,
and nothing waits for a writer that has died.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from semprior.data.images import encode_png
from semprior.io.atomic_files import naming


class Writer(Protocol):
    """The part of tensorboardX's `RecordWriter` that an `EventFile` uses."""

    path: str

    def write(self, data: bytes) -> None:
        """Append a serialised event."""

    def flush(self) -> None:
        """Hand buffered events to the operating system."""

    def close(self) -> None:
        """Close the file."""


class EventFile:
    """An events file, which `open_event_file` opens; without tensorboardX it does nothing.

    Args:
        writer: a tensorboardX `RecordWriter`; None to write nothing.
    """

    def __init__(self, writer: Writer | None) -> None:
        self._writer = writer

    @property
    def writes(self) -> bool:
        """Whether anything is written."""
        return self._writer is not None

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by name."""
        if self._writer is not None:
            self._write(step, value=[{"tag": tag, "simple_value": float(number)} for tag, number in values.items()])

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Add an image, (H,W,3) uint8 RGB."""
        if self._writer is not None:
            size = {"height": image.shape[0], "width": image.shape[1], "colorspace": 3}
            self._write(step, value=[{"tag": tag, "image": {**size, "encoded_image_string": encode_png(image)}}])

    def _write(self, step: int, **summary: list[dict[str, object]]) -> None:
        from tensorboardX.proto.event_pb2 import Event

        assert self._writer is not None
        with naming(Path(self._writer.path)):
            self._writer.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            with naming(Path(self._writer.path)):
                self._writer.close()


def open_event_file(folder: Path, step: int) -> EventFile:
    """Open an events file in `folder`; TensorBoard then ignores `step` and later steps of older files there."""
    try:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter
    except ModuleNotFoundError:
        return EventFile(None)
    folder.mkdir(exist_ok=True)
    now = time.time()
    path = folder / f"events.out.tfevents.{now:.0f}.{os.getpid()}.{step}"
    with naming(path):
        writer = RecordWriter(str(path))
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        start = SessionLog(status=SessionLog.START)
        writer.write(Event(wall_time=now, step=step, session_log=start).SerializeToString())
        writer.flush()
    return EventFile(writer)
