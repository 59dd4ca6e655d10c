"""Scalars and pictures for TensorBoard, where tensorboardX is installed.

Events are written in the caller's own thread, without tensorboardX's queue: a full disk is then an error of the run
that can be told, and nothing waits for a writer that has died.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from semprior.data.images import encode_png
from semprior.io.atomic_files import naming


class Board:
    """Writes one events file; does nothing where tensorboardX is missing. Make one with `open_board`.

    Args:
        writer: of tensorboardX's `RecordWriter` kind; none to write nothing.
    """

    def __init__(self, writer: Any) -> None:  # noqa: ANN401
        self._writer = writer

    @property
    def writes(self) -> bool:
        """Whether anything is written."""
        return self._writer is not None

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by name."""
        if self._writer is not None:
            self._write(step, value=[{"tag": tag, "simple_value": float(number)} for tag, number in values.items()])

    def picture(self, tag: str, picture: np.ndarray, step: int) -> None:
        """Add a picture, (H,W,3) uint8 RGB."""
        if self._writer is not None:
            size = {"height": picture.shape[0], "width": picture.shape[1], "colorspace": 3}
            self._write(step, value=[{"tag": tag, "image": {**size, "encoded_image_string": encode_png(picture)}}])

    def _write(self, step: int, **summary: Any) -> None:  # noqa: ANN401
        from tensorboardX.proto.event_pb2 import Event

        with naming(Path(self._writer.path)):
            self._writer.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            with naming(Path(self._writer.path)):
                self._writer.close()


def open_board(folder: Path, step: int) -> Board:
    """A board that writes to `folder`; of what older files there hold, `step` and later is void."""
    try:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter
    except ModuleNotFoundError:
        return Board(None)
    folder.mkdir(exist_ok=True)
    now = time.time()
    path = folder / f"events.out.tfevents.{now:.0f}.{os.getpid()}.{step}"
    with naming(path):
        writer = RecordWriter(str(path))
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        start = SessionLog(status=SessionLog.START)
        writer.write(Event(wall_time=now, step=step, session_log=start).SerializeToString())
        writer.flush()
    return Board(writer)
