"""The folder of a run: its settings, its metrics, its checkpoints, its log.

::

    RUN/config.yaml      every leaf, resolved; can be given to another run with --config
        run.json         where the data lie, and the versions it was begun with
        metrics.jsonl    one object an epoch
        checkpoints/     last, previous, best
        tensorboard/     scalars and prediction panels, where tensorboardX is installed
        log.txt          what was said, with times

The folder appears with its settings inside or not at all. An epoch's metrics are written before its checkpoint, so
that after a kill at any moment every epoch that the last checkpoint has trained has its line; `rewind` drops the rest.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from semprior import __version__
from semprior.checkpoint import CheckpointFolder
from semprior.config import Config, flatten, read_leaves, unflatten
from semprior.data.folders import appearing
from semprior.errors import UserError
from semprior.files import locked, naming, write_atomically

CONFIG, RECORD, METRICS, LOG = "config.yaml", "run.json", "metrics.jsonl", "log.txt"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        root: the folder.
    """

    root: Path

    @classmethod
    def create(cls, root: Path, config: Config, data: Path) -> RunFolder:
        """A new folder with the settings of a run.

        Raises:
            UserError: something is there already, or the folder cannot be made.
        """
        refuse_existing(root)
        with appearing(root) as folder:
            (folder / CONFIG).write_text(_yaml(config), encoding="utf-8")
            (folder / RECORD).write_text(
                _json({"data": str(data.resolve()), "versions": _versions()}), encoding="utf-8"
            )
            (folder / "checkpoints").mkdir()
            (folder / METRICS).touch()
            (folder / LOG).touch()
        return cls(root)

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """The folder of a run that was begun.

        Raises:
            UserError: there is none.
        """
        if not root.exists():
            raise UserError(f"{root}: there is no run to resume; leave out --resume to begin one")
        if not (root / CONFIG).is_file():
            raise UserError(f"{root}: is not the folder of a run (no {CONFIG})")
        return cls(root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            UserError: another process holds it.
        """

        def refuse(holder: str) -> None:
            raise UserError(f"{self.root}: another process is training this run{holder and f' ({holder})'}")

        with locked(self.root / LOG, refuse):
            yield

    @property
    def checkpoints(self) -> CheckpointFolder:
        """Its checkpoints."""
        return CheckpointFolder(self.root / "checkpoints")

    def config(self) -> Config:
        """Its settings.

        Raises:
            UserError: the file was damaged.
        """
        return unflatten(read_leaves(self.root / CONFIG), str(self.root / CONFIG))

    def set_config(self, config: Config) -> None:
        """Replace its settings, at once."""
        write_atomically(self.root / CONFIG, _yaml(config).encode())

    def set_data(self, data: Path) -> None:
        """Remember where its data lie now."""
        path = self.root / RECORD
        try:
            record = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # lost; the data are named anew all the same
            record = {}
        write_atomically(path, _json(record | {"data": str(data.resolve())}).encode())

    def data(self) -> Path:
        """Where its data lay when it was begun, or last gone on with from elsewhere.

        Raises:
            UserError: the record is missing or damaged.
        """
        path = self.root / RECORD
        try:
            return Path(json.loads(path.read_text(encoding="utf-8"))["data"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: does not name the data of the run; give --data") from error

    def append(self, line: Mapping[str, Any]) -> None:
        """Add an epoch's metrics, on disk when this returns; what is not finite is written as null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        path = self.root / METRICS
        with naming(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """The metrics of every epoch so far; a last line that a kill cut short is left out.

        Raises:
            UserError: a line before the last is damaged.
        """
        path = self.root / METRICS
        texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        found: list[dict[str, Any]] = []
        for number, text in enumerate(texts, 1):
            try:
                found.append(json.loads(text))
            except ValueError as error:
                if number < len(texts):
                    raise UserError(f"{path}:{number}: is damaged; remove the line to go on") from error
        return found

    def rewind(self, epoch: int) -> None:
        """Drop the metrics of `epoch` and later, which a restored run will train again."""
        kept = [line for line in self.lines() if line["epoch"] < epoch]
        write_atomically(self.root / METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def log(self, text: str) -> None:
        """Add a line to the log."""
        path = self.root / LOG
        with naming(path), path.open("a", encoding="utf-8", errors="surrogateescape") as file:  # names of any bytes
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")


def refuse_existing(root: Path) -> None:
    """Raise a UserError if anything is at `root`: a run begins in a new folder."""
    if root.exists() or root.is_symlink():
        way_out = "add --resume to go on with it, or choose another --out"
        if not (root / CONFIG).is_file():
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


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "semprior": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "numpy")},
    }
