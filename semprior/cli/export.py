"""`semprior export`: writes a student as ONNX, in float32 or with int8 convolutions."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from semprior.config.true_masks import true_masks_remark
from semprior.data.remote_data import local_data
from semprior.deployment.load_model import load_student
from semprior.deployment.onnx_export import SUFFIX, export
from semprior.deployment.onnx_int8 import calibration_images, export_int8
from semprior.errors import UserError
from semprior.reporting.terminal import say
from semprior.runtime.device import choose_device


def export_run(checkpoint: Path, out: Path, int8: bool, calibration: str | None, console: Console) -> None:
    """Write a student and say how far it is from PyTorch.

    Args:
        checkpoint: a run or a checkpoint.
        out: the file.
        int8: whether to quantise the convolutions.
        calibration: folder or address of the data set whose training images calibrate them.
        console: to print on.

    Raises:
        UserError: the arguments, the checkpoint or the data set have a fault; nothing was written.
    """
    if int8 and calibration is None:
        raise UserError("--int8: needs --calibration DIR, a data set with training images like those of the run")
    if calibration is not None and not int8:
        raise UserError("--calibration: is for --int8 alone")
    if out.suffix.lower() != SUFFIX:
        raise UserError(f"--out {out}: its name must end in {SUFFIX}, by which evaluate and predict recognise it")
    student = load_student(checkpoint, choose_device("cpu"))
    if remark := true_masks_remark(student.info.config.labels.seed):
        say(console, remark)
    if calibration is None:
        say(console, f"{out}: agrees with PyTorch to {export(student, out):.1e} in probability")
        return
    images = calibration_images(local_data(calibration), student.info.intensity)
    gap = export_int8(student, out, images)
    say(console, f"{out}: int8, calibrated on {len(images)} training images; differs by up to {gap:.2f} in probability")
    say(console, f"measure what that costs: semprior evaluate {out} --data DIR")
