"""The command line: ``semprior train | evaluate | predict | export | data ... | vfm push``.

A fault in what the user gave is one line on standard error and exit code 2; anything else is a bug and shows its
traceback. What a command needs is imported when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from semprior.terminal import command_line, complain, console, run

app = command_line()
data_app = typer.Typer(help="Look after data sets.", rich_markup_mode=None)
app.add_typer(data_app, name="data")
vfm_app = typer.Typer(help="Look after the weights of foundation models.", rich_markup_mode=None)
app.add_typer(vfm_app, name="vfm")


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Detectors of small infrared targets, trained from single points with semantic priors."""
    if show:
        from semprior import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        context.fail("Missing command.")


Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", metavar="NAME")]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run; a new one, unless --resume.", metavar="RUN")],
    data: Annotated[
        str | None,
        typer.Option(help="Folder or address of the data set; on --resume, where it lay.", metavar="DIR"),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="quick, standard (default) or paper.", metavar="NAME", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.", metavar="FILE")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, like scam.stages='[1, 3]'; can be repeated.", metavar="KEY=VALUE"),
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with RUN where it stopped.")] = False,
) -> None:
    """Train a detector from points.

    Settings: --set, then variables like SEMPRIOR__SCAM__SCALE=0.3, then --config, then --preset; the keys are listed
    in docs/configuration.md and in every RUN/config.yaml. What runs share (features, decoded images, seeds, clusters,
    fetched data, compiled kernels) is kept in SEMPRIOR_CACHE, or in the user's cache folder (~/.cache/semprior).
    OMP_NUM_THREADS sets the number of threads.
    """
    from semprior.commands import train as command
    from semprior.remote import local_data

    folder = local_data(data, console()) if data is not None else None
    request = command.Request(folder, out, preset, config, tuple(set_ or ()), device, resume)
    try:
        command.train(request, console())
    except KeyboardInterrupt:
        began = (out / "config.yaml").is_file()
        way_on = f"go on with: semprior train --out {shlex.quote(str(out))} --resume"
        complain("semprior", f"interrupted; {way_on if began else 'nothing was written'}")
        raise typer.Exit(130) from None


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run, whose best epoch is taken, or a checkpoint.", metavar="RUN")],
    data: Annotated[str, typer.Option(help="Folder or address of the data set, with masks.", metavar="DIR")],
    split: Annotated[str, typer.Option(help="test, val or train.", metavar="NAME")] = "test",
    teacher: Annotated[bool, typer.Option("--teacher", help="The teacher, with its vision model.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    device: Device = "auto",
) -> None:
    """Score a run's student, or its teacher, against masks."""
    from semprior.devices import choose_device, fallback_remark, memory_told
    from semprior.evaluate import evaluate as score
    from semprior.evaluate import show
    from semprior.load import load_student, load_teacher
    from semprior.remote import local_data

    where, folder = choose_device(device), local_data(data)
    model = load_teacher(run, where) if teacher else load_student(run, where)
    if teacher and not model.features.vfm:
        complain("semprior", "nothing is modulated in this run: its teacher is its student")
    config = model.origin.config
    used = config.vfm
    if model.origin.vfm and used.weights == "random":
        complain("semprior", f"trained beside {used.name} with RANDOM weights (vfm.weights=random)")
    if remark := fallback_remark(config.precision, where):
        complain("semprior", remark)
    with memory_told("use --device cpu"):
        evaluation = score(model, folder, split)
    if json_:
        print(json.dumps(evaluation.flat()))
        return
    origin = model.origin
    who = "teacher" if teacher else "student"
    show(evaluation, f"{who} of {origin.config.detector}, after {origin.epoch} epochs", console().print)


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or a run, whose best epoch is taken.")],
    image: Annotated[list[Path], typer.Argument(help="PNG or BMP files.", metavar="IMAGE")],
    out: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")],
    overlay: Annotated[bool, typer.Option("--overlay", help="Images with the targets outlined, too.")] = False,
    device: Device = "auto",
) -> None:
    """Find targets: a mask and a probability PNG an image, and detections.csv (image, x, y, score, area)."""
    from semprior.devices import choose_device, fallback_remark, memory_told
    from semprior.load import load_student
    from semprior.predict import predict as run
    from semprior.progress import say

    shown = console()
    student = load_student(checkpoint, choose_device(device))
    if remark := fallback_remark(student.origin.config.precision, student.device):
        say(shown, remark)
    with memory_told("use --device cpu"):
        found = run(student, image, out, overlay=overlay, say=lambda text: say(shown, text))
    say(shown, f"{found} detections in {len(image)} images; results in {out}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or a run, whose best epoch is taken.")],
    out: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE.onnx")],
) -> None:
    """Write the bare student as ONNX, for images of any size, checked against onnxruntime."""
    from semprior.devices import choose_device
    from semprior.export import export as write
    from semprior.load import load_student
    from semprior.progress import say

    gap = write(load_student(checkpoint, choose_device("cpu")), out)
    say(console(), f"{out}: agrees with PyTorch to {gap:.1e} in probability")


@data_app.command("check")
def data_check(folder: Annotated[Path, typer.Argument(help="A data set.", metavar="DIR")]) -> None:
    """List every fault of a data set."""
    from semprior.data.layout import check_dataset, find_layout

    faults = check_dataset(folder)
    for fault in faults:
        print(fault)
    if faults:
        print(f"{folder}: {len(faults)} fault{'s' if len(faults) > 1 else ''}")
        raise typer.Exit(2)
    layout = find_layout(folder)
    splits = ", ".join(f"{len(names)} {split}" for split, names in layout.splits.items())
    print(f"{folder}: sound; {splits}; {'with' if layout.has_masks else 'without'} masks")


@data_app.command("points")
def data_points(
    folder: Annotated[Path, typer.Argument(help="A data set with masks.", metavar="DIR")],
    coarse: Annotated[bool, typer.Option("--coarse", help="A random target pixel instead of the centroid.")] = False,
    seed: Annotated[int, typer.Option(help="Of the random pixels.")] = 0,
) -> None:
    """Make point labels from masks: DIR/masks_centroid, one pixel a target."""
    from semprior.data.points import write_points

    count = write_points(folder, coarse, seed)
    print(f"{folder / 'masks_centroid'}: {count} points, {'random target pixels' if coarse else 'centroids'}")


@data_app.command("synth")
def data_synth(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    count: Annotated[int, typer.Option(help="Number of images.", min=3)],
    seed: Annotated[int, typer.Option(help="Of the scenes.", min=0)] = 0,
) -> None:
    """Make a data set of synthetic infrared scenes with true masks."""
    from semprior.data.scenes import write_scenes

    write_scenes(folder, count, seed)
    print(f"{folder}: {count} scenes, seed {seed}")


Address = Annotated[str, typer.Argument(help="Shared folder or s3://BUCKET/PATH, gs://...", metavar="URI")]


@data_app.command("push")
def data_push(folder: Annotated[Path, typer.Argument(help="A data set.", metavar="DIR")], uri: Address) -> None:
    """Put a data set where the nodes of a cluster fetch it, once each: `data: URI` in a sweep.

    Stopped, it goes on where it was; a second time it sends nothing.
    """
    from semprior.progress import say
    from semprior.remote import push_data

    sent = push_data(folder, uri, console())
    say(console(), f"{uri}: {'ready' if sent else 'is there already'}; in a sweep: data: {uri}")


@vfm_app.command("push")
def vfm_push(
    name: Annotated[str, typer.Argument(help="A timm model, like vfm.name.", metavar="NAME")],
    uri: Address,
    weights: Annotated[
        str,
        typer.Option(help="Where they come from, like vfm.weights: auto, hub, offline or a file.", metavar="SOURCE"),
    ] = "auto",
) -> None:
    """Put the weights of a foundation model at URI/NAME, where machines without a hub fetch them, once each."""
    from semprior.models.vfm_weights import push_weights
    from semprior.progress import say

    address, sent = push_weights(name, uri, weights, console())
    say(console(), f"{address}: {'ready' if sent else 'is there already'}; use it with vfm.weights={address}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; none: the process's own.

    Returns:
        The exit code: 0, 2 for a fault in what was given, 130 when interrupted.
    """
    return run(app, "semprior", arguments)
