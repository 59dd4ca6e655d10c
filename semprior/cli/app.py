"""The command line: ``semprior train | evaluate | predict | export | report | cost | data ... | vfm push``.

A fault of the user's is one line on standard error and exit code 2; anything else is a bug and shows its traceback.
Imports of a command happen when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from semprior.reporting.terminal import command_line, console, print_error, run

app = command_line()
data_app = typer.Typer(help="Import, join, check, make and push data sets.", rich_markup_mode=None)
app.add_typer(data_app, name="data")
vfm_app = typer.Typer(help="Push the weights of foundation models.", rich_markup_mode=None)
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
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Of the probability; a target is above. By default as the run chose it on held-out images, else 0.5.",
        metavar="T",
        show_default=False,
    ),
]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run; a new one, unless --resume is given.", metavar="RUN")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder or address of the data set; with --resume, by default the recorded one.", metavar="DIR"
        ),
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
    resume: Annotated[bool, typer.Option("--resume", help="Resume RUN where it stopped.")] = False,
) -> None:
    """Train a detector from points.

    Settings: --set, then variables like SEMPRIOR__SCAM__SCALE=0.3, then --config, then --preset; the keys are listed
    in docs/configuration.md and in every RUN/config.yaml. Files that runs share (features, decoded images, seeds,
    clusters, fetched data, compiled kernels) lie in SEMPRIOR_CACHE, by default the user's cache folder
    (~/.cache/semprior).
    OMP_NUM_THREADS sets the number of threads.
    """
    from semprior.cli import train as command

    request = command.Request(data, out, preset, config, tuple(set_ or ()), device, resume)
    try:
        command.train(request, console())
    except KeyboardInterrupt:
        began = (out / "config.yaml").is_file()
        way_on = f"resume with: semprior train --out {shlex.quote(str(out))} --resume"
        print_error("semprior", f"interrupted; {way_on if began else 'nothing was written'}")
        raise typer.Exit(130) from None


@app.command()
def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run, whose best epoch is taken, a checkpoint, or an exported model.", metavar="RUN|MODEL.onnx"
        ),
    ],
    data: Annotated[str, typer.Option(help="Folder or address of the data set, with masks.", metavar="DIR")],
    split: Annotated[
        str, typer.Option(help="test, val, train or holdout, the training images held out.", metavar="NAME")
    ] = "test",
    teacher: Annotated[bool, typer.Option("--teacher", help="Score the teacher, with its vision model.")] = False,
    by: Annotated[
        str | None,
        typer.Option(help="Also score parts: subset, size, contrast, kind or all.", metavar="WHAT", show_default=False),
    ] = None,
    threshold: Threshold = None,
    convention: Annotated[
        str | None,
        typer.Option(
            help="Of the metrics: semprior, paper or dnanet (docs/metrics.md); by default that of the preset.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            help="Write Pd against Fa over thresholds, with a picture beside.", metavar="FILE.csv", show_default=False
        ),
    ] = None,
    per_image: Annotated[
        Path | None, typer.Option(help="Write a row for each image.", metavar="FILE.csv", show_default=False)
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
) -> None:
    """Score a run's student, or its teacher, against masks."""
    from semprior.cli import evaluate as command

    request = command.Request(
        run, data, split, teacher, by, threshold, convention, curve, per_image, as_json=json_, device=device
    )
    command.evaluate_run(request, console())


@app.command()
def predict(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A run, whose best epoch is taken, a checkpoint, or an exported model.", metavar="RUN|MODEL.onnx"
        ),
    ],
    image: Annotated[list[Path], typer.Argument(help="PNG, BMP, TIFF or JPEG files.", metavar="IMAGE")],
    out: Annotated[Path, typer.Option(help="Folder of the results.", metavar="DIR")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write the images with the targets outlined.")
    ] = False,
    threshold: Threshold = None,
    device: Device = "auto",
) -> None:
    """Find targets: a mask and a probability PNG an image, and detections.csv (image, x, y, score, area)."""
    from semprior.config.true_masks import true_masks_remark
    from semprior.deployment.onnx_model import load_exported_or_trained
    from semprior.deployment.predict import predict as run
    from semprior.evaluation.threshold import threshold_in_words
    from semprior.io.wording import plural
    from semprior.reporting.terminal import say
    from semprior.runtime.device import explain_out_of_memory, fallback_remark

    shown = console()
    student = load_exported_or_trained(checkpoint, device)
    config = student.info.config
    for remark in (true_masks_remark(config.labels.seed), fallback_remark(config.precision, student.device)):
        if remark:
            say(shown, remark)
    with explain_out_of_memory("use --device cpu"):
        found = run(student, image, out, overlay=overlay, threshold=threshold, say=lambda text: say(shown, text))
    above = threshold_in_words(student.info.threshold if threshold is None else threshold, chosen=threshold is None)
    say(shown, f"{plural(found, 'detection')} in {plural(len(image), 'image')}, {above}; results in {out}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or a run, whose best epoch is taken.")],
    out: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE.onnx")],
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the convolutions; needs --calibration.")] = False,
    calibration: Annotated[
        str | None,
        typer.Option(help="Data set whose training images calibrate --int8.", metavar="DIR", show_default=False),
    ] = None,
) -> None:
    """Write the student as ONNX, for images of any size, after comparing it with onnxruntime."""
    from semprior.cli.export import export_run

    export_run(checkpoint, out, int8, calibration, console())


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run, or a checkpoint.", metavar="RUN")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Folder or address of the data set; by default the folder that the run recorded.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Whose detections are shown: holdout, val, test or train.", metavar="NAME")
    ] = "holdout",
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write; by default RUN/report.html.", metavar="FILE.html", show_default=False),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: Device = "auto",
) -> None:
    """Write one HTML file that shows a run: settings, curves, detections, pseudo-masks, cluster weights, gates.

    The page holds everything it shows and needs no network. docs/reports.md describes it.
    """
    from semprior.cli import report as command

    command.report(command.Request(run, data, split, out, open_, device), console())


@app.command()
def cost(
    target: Annotated[
        str,
        typer.Argument(help="Name of a detector, a run or a checkpoint.", metavar="DETECTOR|RUN|CHECKPOINT"),
    ],
    size: Annotated[
        int, typer.Option(help="Height and width of the images.", metavar="PIXELS", min=32, max=4096)
    ] = 256,
    threads: Annotated[int, typer.Option(help="CPU threads.", metavar="N", min=1, max=1024)] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print parameters, GFLOP, latency, memory and file size, in PyTorch and ONNX Runtime, float32 and int8."""
    from semprior.cli.cost import print_cost

    print_cost(target, size, threads, json_, console())


@data_app.command("check")
def data_check(folder: Annotated[Path, typer.Argument(help="A data set.", metavar="DIR")]) -> None:
    """List every fault of a data set, and say how it is read: splits, targets, files that are not read."""
    from semprior.data.layout import find_layout, survey_dataset
    from semprior.reporting.terminal import say

    faults, remarks = survey_dataset(folder)
    shown = console()
    for line in (*remarks, *faults):
        say(shown, line)
    if faults:
        say(shown, f"{folder}: {len(faults)} fault{'s' if len(faults) > 1 else ''}")
        raise typer.Exit(2)
    layout = find_layout(folder)
    splits = ", ".join(f"{len(names)} {split}" for split, names in layout.splits.items())
    say(shown, f"{folder}: sound; {splits}; {'with' if layout.has_masks else 'without'} masks")


@data_app.command("import")
def data_import(
    source: Annotated[Path, typer.Argument(help="A data set as it was downloaded or annotated.", metavar="SOURCE")],
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, masks, points, voc, coco, datumaro, labelme, cvat, yolo or csv.",
            metavar="NAME",
        ),
    ] = "auto",
    link: Annotated[bool, typer.Option("--link/--copy", help="Link images and masks, or copy them.")] = False,
    skip_faulty: Annotated[
        bool, typer.Option("--skip-faulty", help="Leave images with a fault out; DIR/skipped.csv lists them.")
    ] = False,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Regular expression whose first part in parentheses is the group of a name, like '^(seq[0-9]+)_'.",
            metavar="PATTERN",
        ),
    ] = None,
) -> None:
    """Convert a data set to the layout that the other commands read, and say what was found and decided.

    Folders are found by their names; boxes and points of VOC, COCO, Datumaro, LabelMe, CVAT, YOLO and CSV by the
    content of files. docs/data.md lists what is known.
    """
    from semprior.data.importing.convert import import_dataset
    from semprior.reporting.terminal import say

    shown = console()
    for line in import_dataset(source, folder, form=form, link=link, skip_faulty=skip_faulty, groups=groups):
        say(shown, line)


@data_app.command("join")
def data_join(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    sources: Annotated[list[str], typer.Argument(help="Data sets and their names.", metavar="NAME=SOURCE")],
    prefix: Annotated[bool, typer.Option("--prefix", help="Put NAME_ before the name of each image.")] = False,
) -> None:
    """Join data sets; splits are kept, and DIR/subset.csv names the data set that each image came from."""
    from semprior.data.importing.join import join_datasets
    from semprior.reporting.terminal import say

    named = [source.partition("=")[::2] for source in sources]
    for name, place in named:
        if not name or not place:
            raise typer.BadParameter(f"{name}: write NAME=SOURCE")
    if len(dict(named)) < len(named):
        raise typer.BadParameter("two data sets have the same name")
    shown = console()
    for line in join_datasets(folder, {name: Path(place) for name, place in named}, prefix=prefix):
        say(shown, line)


@data_app.command("points")
def data_points(
    folder: Annotated[Path, typer.Argument(help="A data set with masks.", metavar="DIR")],
    coarse: Annotated[
        bool, typer.Option("--coarse", help="Take a random target pixel instead of the centroid.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the random pixels.")] = 0,
) -> None:
    """Make point labels from masks: DIR/masks_centroid, one pixel a target."""
    from semprior.data.points import write_points
    from semprior.reporting.terminal import say

    count = write_points(folder, coarse, seed)
    say(console(), f"{folder / 'masks_centroid'}: {count} points, {'random target pixels' if coarse else 'centroids'}")


@data_app.command("synth")
def data_synth(
    folder: Annotated[Path, typer.Argument(help="A new folder.", metavar="DIR")],
    count: Annotated[int, typer.Option(help="Number of images.", min=3)],
    seed: Annotated[int, typer.Option(help="Of the scenes.", min=0)] = 0,
) -> None:
    """Make a data set of synthetic infrared scenes with true masks."""
    from semprior.data.synthetic.scenes import write_scenes
    from semprior.reporting.terminal import say

    write_scenes(folder, count, seed)
    say(console(), f"{folder}: {count} scenes, seed {seed}")


Address = Annotated[str, typer.Argument(help="Shared folder or s3://BUCKET/PATH, gs://...", metavar="URI")]


@data_app.command("push")
def data_push(folder: Annotated[Path, typer.Argument(help="A data set.", metavar="DIR")], uri: Address) -> None:
    """Store a data set at an address that every node of a cluster fetches once: `data: URI` in a sweep.

    A stopped push resumes where it was; repeating a complete one sends nothing.
    """
    from semprior.data.remote_data import push_data
    from semprior.reporting.terminal import say

    sent = push_data(folder, uri, console())
    say(console(), f"{uri}: {'ready' if sent else 'exists already'}; in a sweep: data: {uri}")


@vfm_app.command("push")
def vfm_push(
    name: Annotated[str, typer.Argument(help="A timm model, like vfm.name.", metavar="NAME")],
    uri: Address,
    weights: Annotated[
        str,
        typer.Option(help="Their source, like vfm.weights: auto, hub, offline or a file.", metavar="SOURCE"),
    ] = "auto",
) -> None:
    """Store the weights of a foundation model at URI/NAME, which machines without a hub fetch once each."""
    from semprior.foundation.weights import push_weights
    from semprior.reporting.terminal import say

    address, sent = push_weights(name, uri, weights, console())
    say(console(), f"{address}: {'ready' if sent else 'exists already'}; use it with vfm.weights={address}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; None for the process's own.

    Returns:
        The exit code: 0, 2 for a fault of the user's, 130 when interrupted.
    """
    return run(app, "semprior", arguments)
