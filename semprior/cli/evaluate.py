"""`semprior evaluate`: scores a student or its teacher against masks, whole and in parts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from semprior.config.true_masks import true_masks_remark
from semprior.data.annotations import POINT_TABLE
from semprior.data.image_tables import GROUP_TABLE, SUBSET_TABLE
from semprior.data.remote_data import local_data
from semprior.deployment.evaluate import HOLDOUT, check_breakdown, evaluate, flat_part
from semprior.deployment.load_model import LoadedTeacher, load_teacher
from semprior.deployment.onnx_model import is_onnx, load_exported_or_trained
from semprior.errors import UserError
from semprior.evaluation.conventions import find_convention
from semprior.io.wording import plural
from semprior.reporting.evaluation_files import check_file, write_curve, write_images
from semprior.reporting.evaluation_tables import show_evaluation
from semprior.reporting.terminal import print_error, say
from semprior.runtime.device import choose_device, explain_out_of_memory, fallback_remark


@dataclass(frozen=True)
class Request:
    """The arguments of `semprior evaluate`.

    Attributes:
        run: a run, a checkpoint or an exported model.
        data: folder or address of the data set.
        split: ``test``, ``val``, ``train`` or ``holdout``.
        teacher: whether to score the teacher.
        by: what to break the split down by, or None.
        threshold: of the probability; None for the one that the run chose on the images it held out.
        convention: of the metrics; None for that of the run's preset.
        curve: table to write the curve to, or None.
        per_image: table to write a row for each image to, or None.
        as_json: whether to print one JSON object.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    run: Path
    data: str
    split: str = "test"
    teacher: bool = False
    by: str | None = None
    threshold: float | None = None
    convention: str | None = None
    curve: Path | None = None
    per_image: Path | None = None
    as_json: bool = False
    device: str = "auto"


def evaluate_run(request: Request, console: Console) -> None:
    """Score a student or a teacher, print its metrics and write the files that are asked for.

    Raises:
        UserError: the arguments, the checkpoint or the data set have a fault; nothing was written.
    """
    if request.convention is not None:
        find_convention(request.convention)
    outputs = {"--curve": request.curve, "--per-image": request.per_image}
    for option, path in outputs.items():
        if path is not None:
            check_file(path, option)
    files = {option: path.resolve() for option, path in outputs.items() if path is not None}
    if len(set(files.values())) < len(files):
        raise UserError(f"--curve and --per-image: both name {request.curve}; give each its own file")
    if request.teacher and is_onnx(request.run):
        raise UserError(f"--teacher: {request.run} holds the student alone; name the run that it was exported from")
    where, folder = choose_device(request.device), local_data(request.data)
    for option, file in files.items():
        if file.parent == folder.resolve() and file.name in (POINT_TABLE, GROUP_TABLE, SUBSET_TABLE):
            raise UserError(f"{option} {outputs[option]}: is a table of the data set; choose another name")
    if request.by is not None:
        check_breakdown(request.by, folder)
    model = (
        load_teacher(request.run, where) if request.teacher else load_exported_or_trained(request.run, request.device)
    )
    info = model.info
    if isinstance(model, LoadedTeacher) and not model.features.vfm:
        print_error("semprior", "no stage is modulated in this run: its teacher is its student")
    if info.vfm and info.config.vfm.weights == "random":
        print_error("semprior", f"trained with {info.config.vfm.name} with RANDOM weights (vfm.weights=random)")
    for remark in (true_masks_remark(info.config.labels.seed), fallback_remark(info.config.precision, model.device)):
        if remark:
            print_error("semprior", remark)
    with explain_out_of_memory("use --device cpu"):
        evaluation = evaluate(
            model,
            folder,
            request.split,
            threshold=request.threshold,
            convention=request.convention,
            curve=request.curve is not None,
        )
    who, epochs = "teacher" if request.teacher else "student", plural(info.epoch, "epoch")
    title = f"{who} of {info.config.detector}, after {epochs}"
    if request.as_json:
        printed: dict[str, Any] = dict(evaluation.flat())
        if request.by is not None:
            printed["by"] = {
                by: [{"part": part.name, **flat_part(part)} for part in parts]
                for by, parts in evaluation.breakdowns(request.by).items()
            }
        print(json.dumps(printed))
    else:
        show_evaluation(evaluation, title, request.by, console)
    written = []
    if request.curve is not None:
        picture = write_curve(evaluation, request.curve, f"{title}; {request.split}")
        written += [f"{request.curve} and {picture}: Pd against Fa over {len(evaluation.curve)} thresholds"]
        if request.split == "test":
            written += [f"choose a threshold on --split {HOLDOUT} or val: one chosen on the test split flatters"]
    if request.per_image is not None:
        write_images(evaluation.images, request.per_image)
        written += [f"{request.per_image}: {plural(len(evaluation.images), 'image')}"]
    if not request.as_json:
        for line in written:
            say(console, line)
