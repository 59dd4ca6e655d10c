"""The folder of a run: its settings, its metrics, its checkpoints, its log.

::

    RUN/config.yaml      all settings, resolved; --config gives them to another run
        run.json         the folder or address of the data, and the versions of the packages at the start
        metrics.jsonl    one object per epoch
        checkpoints/     last, previous, best
        crossfit/        the same of the short runs of labels.refine=crossfit, until the run itself has a checkpoint
        pseudo-masks/    those of a few images, before the first epoch and after each evolution
        tensorboard/     scalars and figures of predictions, if tensorboardX is installed
        log.txt          messages with times

The folder appears with its settings inside or not at all. An epoch's metrics are written before its checkpoint, so that
after a kill at any moment every epoch of the last checkpoint has its line; `rewind` drops later ones.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import yaml

from semprior import __version__
from semprior.config.schema import Config, flatten, read_leaves, unflatten
from semprior.errors import UserError
from semprior.io.atomic_files import atomic_folder, locked, naming, write_atomically
from semprior.io.checkpoint import CheckpointFolder
from semprior.io.foreign_text import visible
from semprior.io.push_fetch import is_address
from semprior.labels.label_history import LabelWindow, restored_windows, stored_windows
from semprior.reading.files import only_regular, read_bytes, read_utf8
from semprior.reading.json_text import parse_json, read_json
from semprior.reading.schema import checked
from semprior.reading.tensors import parse_arrays

CONFIG_FILE, RECORD_FILE, METRICS_FILE, LOG_FILE = "config.yaml", "run.json", "metrics.jsonl", "log.txt"
LABELS_FOLDER = "pseudo-masks"
_LABELS_NAME = re.compile(r"epoch-(\d{4,6})\.npz")


class _Numbered(TypedDict):
    epoch: int


class _EpochLine(_Numbered, total=False):
    """The entries of a line of ``metrics.jsonl`` that a run reads again; it has others.

    Those whose names have a slash are scores: numbers, or null.
    """

    best: bool
    seconds: float | None


class _Record(TypedDict):
    data: str


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        root: the folder.
    """

    root: Path

    @classmethod
    def create(cls, root: Path, config: Config, data: str | Path) -> RunFolder:
        """Create the folder of a new run, with its settings.

        Args:
            root: the folder.
            config: the settings.
            data: folder or address of the data, which is recorded.

        Raises:
            UserError: the path exists already, or the folder cannot be created.
        """
        refuse_existing(root)
        with atomic_folder(root) as folder:
            (folder / CONFIG_FILE).write_text(_yaml(config), encoding="utf-8")
            (folder / RECORD_FILE).write_text(
                _json({"data": _recorded(data), "versions": _versions()}), encoding="utf-8"
            )
            (folder / "checkpoints").mkdir()
            (folder / METRICS_FILE).touch()
            (folder / LOG_FILE).touch()
        return cls(root)

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """Open the folder of an existing run.

        Raises:
            UserError: there is no run.
        """
        if not root.exists():
            raise UserError(f"{root}: there is no run to resume; leave out --resume to begin one")
        if not (root / CONFIG_FILE).is_file():
            raise UserError(f"{root}: is not the folder of a run (no {CONFIG_FILE})")
        return cls(root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run for this process.

        Raises:
            UserError: another process has locked it.
        """

        def refuse(holder: str) -> None:
            raise UserError(f"{self.root}: another process is training this run{holder and f' ({holder})'}")

        with locked(self.root / LOG_FILE, refuse):
            yield

    @property
    def checkpoints(self) -> CheckpointFolder:
        """The checkpoints of the run."""
        return CheckpointFolder(self.root / "checkpoints")

    @property
    def short_checkpoints(self) -> CheckpointFolder:
        """The checkpoints of the short runs before the run."""
        return CheckpointFolder(self.root / "crossfit")

    def remove_short_checkpoints(self) -> None:
        """Remove what the short runs left, once the run has a checkpoint of its own."""
        shutil.rmtree(self.short_checkpoints.root, ignore_errors=True)

    def config(self) -> Config:
        """The settings of the run.

        Raises:
            UserError: the file is damaged.
        """
        return unflatten(read_leaves(self.root / CONFIG_FILE), str(self.root / CONFIG_FILE))

    def set_config(self, config: Config) -> None:
        """Replace the settings of the run, atomically."""
        write_atomically(self.root / CONFIG_FILE, _yaml(config).encode())

    def set_data(self, data: str | Path) -> None:
        """Record the folder or address of the data."""
        path = self.root / RECORD_FILE
        try:
            record = read_json(path, dict[str, Any])
        except UserError:  # without the old record the new one is still right
            record = {}
        write_atomically(path, _json(record | {"data": _recorded(data)}).encode())

    def data(self) -> str:
        """The recorded folder or address of the data.

        Raises:
            UserError: the record is missing or damaged.
        """
        path = self.root / RECORD_FILE
        try:
            return read_json(path, _Record)["data"]
        except UserError as error:
            raise UserError(f"{path}: does not name the data of the run; give --data") from error

    def append(self, line: Mapping[str, Any]) -> None:
        """Append an epoch's metrics and sync them to disk; numbers that are not finite are written as null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        path = self.root / METRICS_FILE
        with naming(path), open(path, "a", encoding="utf-8", opener=only_regular) as file:
            file.write(json.dumps(clean) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """The metrics of every epoch so far, without a last line that a kill cut short.

        Raises:
            UserError: an earlier line is damaged.
        """
        path = self.root / METRICS_FILE
        texts = read_utf8(path).split("\n") if path.exists() else []  # a whole line ends, so the last text is none
        found: list[dict[str, Any]] = []
        for number, text in enumerate(texts, 1):
            if not text:
                continue
            try:
                line: dict[str, Any] = {**parse_json(text, _EpochLine, f"{path}:{number}")}
                scores = {key: value for key, value in line.items() if "/" in key}
                found.append(line | checked(scores, dict[str, float | None], f"{path}:{number}"))
            except UserError as error:
                if number < len(texts):
                    raise UserError(f"{path}:{number}: is damaged; remove the line to continue ({error})") from error
        return found

    def rewind(self, epoch: int) -> None:
        """Drop the metrics and pseudo-masks of `epoch` and later epochs, which a restored run trains again."""
        for number, path in self._label_files().items():
            if number >= epoch:
                path.unlink(missing_ok=True)
        earlier = [line for line in self.lines() if line["epoch"] < epoch]
        write_atomically(self.root / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in earlier).encode())

    def keep_labels(self, epoch: int, windows: Sequence[LabelWindow]) -> None:
        """Write the pseudo-masks that an epoch trains on; the file appears whole."""
        folder = self.root / LABELS_FOLDER
        folder.mkdir(exist_ok=True)
        packed = BytesIO()
        np.savez(packed, allow_pickle=False, **stored_windows(windows))
        write_atomically(folder / f"epoch-{epoch:04d}.npz", packed.getvalue())

    def labels(self) -> dict[int, list[LabelWindow]]:
        """The pseudo-masks that were kept, by the epoch that trained on them; empty for runs of earlier versions.

        Raises:
            UserError: a file is damaged.
        """
        found = {}
        for epoch, path in sorted(self._label_files().items()):
            try:
                found[epoch] = restored_windows(parse_arrays(read_bytes(path), str(path)))
            except ValueError as error:
                raise UserError(f"{path}: is damaged ({error}); delete it to go on without it") from error
        return found

    def _label_files(self) -> dict[int, Path]:
        folder = self.root / LABELS_FOLDER
        entries = folder.iterdir() if folder.is_dir() else ()
        named = ((_LABELS_NAME.fullmatch(path.name), path) for path in entries)
        return {int(match[1]): path for match, path in named if match}

    def log(self, text: str) -> None:
        """Append a line to the log."""
        path = self.root / LOG_FILE
        with (
            naming(path),
            open(path, "a", encoding="utf-8", errors="surrogateescape", opener=only_regular) as file,
        ):
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {visible(text)}\n")


def refuse_existing(root: Path) -> None:
    """Raise a UserError if `root` exists: a run begins in a new folder."""
    if root.exists() or root.is_symlink():
        way_out = "add --resume to resume it, or choose another --out"
        if not (root / CONFIG_FILE).is_file():
            way_out = "choose another --out"
        raise UserError(f"{root}: exists already; {way_out}")


def _yaml(config: Config) -> str:
    tree: dict[str, Any] = {}
    for key, value in flatten(config).items():
        *parents, name = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return yaml.safe_dump(tree, sort_keys=False)


def _recorded(data: str | Path) -> str:
    """An address as it is, and a folder so that it is found from any other one."""
    return str(data) if is_address(str(data)) else str(Path(data).resolve())


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "semprior": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "numpy")},
    }
