"""`semprior report`: writes the page of a run."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from semprior.data.remote_data import local_data
from semprior.data.training_set import TrainingSet
from semprior.deployment.evaluate import HOLDOUT
from semprior.deployment.load_model import load_student
from semprior.errors import UserError
from semprior.io.push_fetch import is_address
from semprior.pages.run_images import SplitFindings, find_in_split, labels_of_checkpoint, run_images
from semprior.pages.run_page import run_page
from semprior.pages.run_state import RunState, read_run
from semprior.pages.write import write_page
from semprior.reporting.terminal import say
from semprior.runtime.device import choose_device, explain_out_of_memory

PAGE_FILE = "report.html"


@dataclass(frozen=True)
class Request:
    """The arguments of `semprior report`.

    Attributes:
        run: folder of a run, or a checkpoint.
        data: folder or address of the data set; None for the folder that the run recorded, if it is still there.
        split: ``holdout``, ``val``, ``test`` or ``train``, of which detections are shown.
        out: the file to write; None for `PAGE_FILE` in the folder of the run.
        show: whether to open the page in a browser.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    run: Path
    data: str | None = None
    split: str = HOLDOUT
    out: Path | None = None
    show: bool = False
    device: str = "auto"


def report(request: Request, console: Console) -> Path:
    """Write the page of a run and return its path.

    Raises:
        UserError: there is no run, it is damaged, the data that were named cannot be used, or the page cannot be
            written.
    """
    if request.out is not None:
        _check_out(request.out)
    device, state = choose_device(request.device), read_run(request.run)
    out = request.run / PAGE_FILE if request.out is None else request.out
    found, images = _look(request, state, device)
    if isinstance(images, TrainingSet) and not state.labels and state.last is not None:
        state = replace(state, labels=labels_of_checkpoint(images, state.last, state.config.labels.seed))
    write_page(run_page(state, found, images), out)
    say(console, f"{out}: the page of {request.run}, {out.stat().st_size / 1e6:.1f} MB; open it in a browser")
    if request.show:
        webbrowser.open(out.resolve().as_uri())
    return out


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: the name must end in .html")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: no folder {out.parent}")
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder")


def _look(request: Request, state: RunState, device: torch.device) -> tuple[SplitFindings | str, TrainingSet | str]:
    """What the student finds, and the images of the run; or why there is nothing, in a sentence."""
    if state.last is None or state.info is None:
        missing = "The run has no checkpoint yet."
        return missing, missing
    folder, missing = _data_folder(request, state)
    if folder is None:
        return missing, missing
    try:
        images = run_images(folder, state.info, state.last)
        if images is None and request.split == HOLDOUT:
            raise UserError(
                f"{folder}: is not the data set that the run was trained on, so that its holdout is unknown; name that"
                " data set, or another --split"
            )
        with explain_out_of_memory("use --device cpu"):
            found = find_in_split(load_student(request.run, device), folder, request.split)
    except UserError as error:
        if request.data is not None or request.split != HOLDOUT:
            raise
        return f"{error}.", f"{error}."
    return found, images if images is not None else "The data set is not the one that the run was trained on."


def _data_folder(request: Request, state: RunState) -> tuple[Path | None, str]:
    """The folder of the data; or None, and a sentence that says why there is none."""
    if request.data is not None:
        return local_data(request.data), ""
    if state.data is None:
        return None, "This needs images: give --data DIR."
    if is_address(state.data):
        return None, f"This needs images: give --data {state.data}."
    if not Path(state.data).is_dir():
        return None, f"This needs images, and the folder {state.data} is not there: give --data DIR."
    return Path(state.data), ""
