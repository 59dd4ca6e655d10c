"""What the folder of a run, or a checkpoint of one, holds for its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semprior.config.schema import Config
from semprior.deployment.load_model import CheckpointInfo, checkpoint_info
from semprior.errors import UserError
from semprior.io.checkpoint import INDEX, Snapshot, find_checkpoint, load_checkpoint
from semprior.labels.label_history import LabelWindow
from semprior.training.run_folder import CONFIG_FILE, RunFolder


@dataclass(frozen=True)
class RunState:
    """A run as its page shows it.

    Attributes:
        root: folder of the run or of the checkpoint.
        config: settings of the run.
        data: the recorded folder or address of the data; None if there is no record.
        lines: of ``metrics.jsonl``; empty for a checkpoint without its run.
        labels: pseudo-masks by epoch, as `RunFolder.labels` returns them.
        last: the last checkpoint; None before the first one.
        info: the facts that `last` records; None before the first one.
    """

    root: Path
    config: Config
    data: str | None
    lines: tuple[dict[str, Any], ...]
    labels: dict[int, list[LabelWindow]]
    last: Snapshot | None
    info: CheckpointInfo | None

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.root.resolve().name

    @property
    def best_line(self) -> dict[str, Any] | None:
        """The metrics of the best epoch; None if no epoch was evaluated."""
        return next((line for line in reversed(self.lines) if line.get("best")), None)


def read_run(root: Path) -> RunState:
    """Read a run, which may still be training, or a checkpoint without its run, as `pull` fetches it.

    Raises:
        UserError: the folder holds neither, or is damaged.
    """
    if (root / CONFIG_FILE).is_file() and (root / "checkpoints").is_dir():
        run = RunFolder(root)
        try:
            data = run.data()
        except UserError:
            data = None  # the page says that it has no images
        folder = run.checkpoints.path("last") if (root / "checkpoints" / INDEX).is_file() else None
        last = load_checkpoint(folder) if folder is not None else None
        info = checkpoint_info(folder, last) if folder is not None and last is not None else None
        return RunState(root, run.config(), data, tuple(run.lines()), run.labels(), last, info)
    folder = find_checkpoint(root)
    last = load_checkpoint(folder)
    info = checkpoint_info(folder, last)
    return RunState(root, info.config, None, (), {}, last, info)
