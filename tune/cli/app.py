"""The command line: ``python -m tune submit | list | status | logs | stop | resume | extend | top | show | ...``.

Errors and exit codes are those of `semprior`. A command imports what it needs when it runs, so that ``--help`` answers
at once. The environment is read here alone, into a `Target`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semprior.errors import UserError
from semprior.reporting.terminal import command_line, console, run

if TYPE_CHECKING:
    from tune.launch.target import Target

PROGRAM = "semprior-tune"
app = command_line()

Name = Annotated[str, typer.Argument(help="Id of a sweep.", metavar="SWEEP")]
Trial = Annotated[str, typer.Argument(help="Id of a trial, like 0007 or 0007.2.", metavar="TRIAL")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        help="Folder or address of the sweeps, like s3://BUCKET/PATH; else SEMPRIOR_STORAGE, else ./runs.",
        metavar="URI",
        show_default=False,
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Job server of a cluster; else this machine.", metavar="http://HEAD:8265"),
]
ClusterFile = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        help="Launcher file that `ray up` was given; leads to head, token and storage. Else SEMPRIOR_CLUSTER.",
        metavar="FILE.yaml",
        envvar="SEMPRIOR_CLUSTER",
        show_envvar=False,
        show_default=False,
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Start it and do not wait; `status --follow` watches it.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Keep printing until the sweep ends.")]
Format = Annotated[str, typer.Option("--format", help="table, json or csv.", metavar="NAME")]


def _target(storage: str | None, cluster: Path | None, address: str | None = None) -> Target:
    """Where a command's sweeps are stored and run."""
    from tune.launch.target import read_target

    return read_target(os.environ, storage, cluster, address)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Hyperparameter sweeps over semprior, on this machine or a Ray cluster."""
    if show:
        from semprior import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        context.fail("Missing command.")


@app.command()
def submit(
    sweep: Annotated[Path, typer.Argument(help="The sweep file.", metavar="SWEEP.yaml")],
    storage: Storage = None,
    address: Address = None,
    cluster: ClusterFile = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Id of the sweep; else its name.", metavar="ID", show_default=False)
    ] = None,
    detach: Detach = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what it would cost; trains one epoch to measure it.")
    ] = False,
) -> None:
    """Start a sweep.

    Ctrl-C stops it (on a cluster: only the watching); `resume` continues it.
    """
    target = _target(storage, cluster, address)
    if dry_run:
        from tune.cli.dry_run import dry_run as print_cost

        print_cost(sweep, id_, target, console())
        return
    from tune.cli import submit as command

    with target.reached() as reached:
        command.submit(sweep, id_, reached, detach, console())


@app.command()
def resume(
    name: Name, storage: Storage = None, address: Address = None, cluster: ClusterFile = None, detach: Detach = False
) -> None:
    """Continue a sweep that was stopped or lost.

    Finished trials are not run again; a trial that was cut off continues from its last complete epoch.
    """
    from tune.cli import submit as command

    with _target(storage, cluster, address).reached() as target:
        command.resume(name, target, detach, console())


@app.command()
def extend(
    name: Name,
    trials: Annotated[
        int | None,
        typer.Option("--trials", help="Configurations to add, like +24.", metavar="+N", show_default=False),
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", help="Hours to add, like +6.", metavar="+H", show_default=False)
    ] = None,
    storage: Storage = None,
    address: Address = None,
    cluster: ClusterFile = None,
    detach: Detach = False,
) -> None:
    """Raise the budget of a sweep, and continue it.

    A running driver picks up the new budget; a sweep that is done, stopped or lost goes on as with `resume`.
    """
    from tune.cli import submit as command

    with _target(storage, cluster, address).reached() as target:
        command.extend(name, trials, hours, target, detach, console())


@app.command()
def retry(
    name: Name,
    trials: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of failed trials; else all.", metavar="[TRIAL]...", show_default=False),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All failed trials, which is also the default.")] = False,
    storage: Storage = None,
    address: Address = None,
    cluster: ClusterFile = None,
    detach: Detach = False,
) -> None:
    """Run failed trials again, also of a sweep that is done.

    Each continues from its last checkpoint, if it has one, and may fail as often as a new trial.
    """
    from tune.cli import submit as command

    if failed and trials:
        raise UserError("--failed: means all failed trials; give either it or their ids")
    with _target(storage, cluster, address).reached() as target:
        command.retry(name, trials or (), target, detach, console())


@app.command()
def stop(name: Name, storage: Storage = None, address: Address = None, cluster: ClusterFile = None) -> None:
    """Stop a sweep; `resume` continues it.

    Its trials finish their epoch and keep its checkpoint.
    """
    from tune.cli import stop_logs as command

    with _target(storage, cluster, address).reached() as target:
        command.stop(name, target, console())


@app.command(name="list")
def list_(storage: Storage = None, cluster: ClusterFile = None, format_: Format = "table") -> None:
    """List the sweeps of a storage."""
    from tune.cli import list_status as command

    command.list_sweeps(_target(storage, cluster), format_, console())


@app.command()
def status(name: Name, storage: Storage = None, cluster: ClusterFile = None, follow: Follow = False) -> None:
    """Show the progress of a sweep and its trials.

    A sweep is waiting, running, lost (its driver is silent), stopped or done.
    """
    from tune.cli import list_status as command

    command.status(name, _target(storage, cluster), follow, console())


@app.command()
def logs(
    name: Name,
    trial: Annotated[
        str | None, typer.Argument(help="Id of a trial; else the driver's log.", metavar="[TRIAL]", show_default=False)
    ] = None,
    storage: Storage = None,
    address: Address = None,
    cluster: ClusterFile = None,
    follow: Follow = False,
) -> None:
    """Print the log of a sweep's driver, or of a trial."""
    from tune.cli import stop_logs as command

    with _target(storage, cluster, address).reached() as target:
        command.logs(name, trial, target, follow)


@app.command()
def top(
    name: Name,
    storage: Storage = None,
    cluster: ClusterFile = None,
    count: Annotated[int, typer.Option("-n", help="Number of places.", min=1)] = 10,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", help="A metric, like holdout/iou; or best, last or robust.", metavar="METRIC", show_default=False
        ),
    ] = None,
    format_: Format = "table",
) -> None:
    """Rank the configurations of a sweep.

    Within one standard error, a configuration that is cheaper by a tenth comes first, unless it was stopped early. Then
    come what the search gained over trial 0, the preset itself, and which dimensions mattered.
    """
    from tune.cli import top_show as command

    command.top(name, _target(storage, cluster), count, by, format_, console())


@app.command()
def show(
    name: Name,
    trial: Trial,
    storage: Storage = None,
    cluster: ClusterFile = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Also score student and teacher on parts of the held-out images, which needs their masks:"
            " subset, size, contrast, kind or all.",
            metavar="WHAT",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show everything about a trial.

    Configuration, curve, metrics of student and teacher, cost, where it ran, why it stopped, and the `semprior train`
    command that repeats it.
    """
    from tune.cli import top_show as command

    command.show(name, trial, _target(storage, cluster), by, console())


@app.command()
def pull(
    which: Annotated[
        str, typer.Argument(help="A sweep's best, its RANK in `top`, or a TRIAL.", metavar="SWEEP[:best|:RANK|:TRIAL]")
    ],
    out: Annotated[Path, typer.Option(help="A new folder.", metavar="DIR")],
    storage: Storage = None,
    cluster: ClusterFile = None,
) -> None:
    """Fetch a checkpoint, verified.

    `semprior evaluate`, `predict` and `export` take the folder as it is.
    """
    from tune.cli import pull as command

    command.pull(which, out, _target(storage, cluster), console())


@app.command()
def report(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="The file; else SWEEP.html.", metavar="FILE.html", show_default=False)
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    top_: Annotated[int, typer.Option("--top", help="Number of configurations that stand out.", min=1)] = 5,
    data: Annotated[
        str | None,
        typer.Option(help="The data set of the pictures; else that of the sweep.", metavar="DIR", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Its images: holdout, train, val or test.", metavar="NAME")] = "holdout",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Write it again until the sweep ends.")] = False,
    storage: Storage = None,
    cluster: ClusterFile = None,
) -> None:
    """Write a page about a sweep, one file for a browser.

    Which configuration won, by how much and how sure, all curves, which dimensions mattered, pictures of detections,
    and what it cost.
    """
    from tune.pages import report as command
    from tune.pages.detections import Wanted

    request = command.Request(name, out, top_, Wanted(data, split), follow=follow, show=open_)
    command.report(request, _target(storage, cluster), console())


@app.command()
def export(
    name: Name,
    to: Annotated[
        str,
        typer.Option("--to", help="The format and the place.", metavar="mlflow:URI|csv:DIR|optuna:sqlite:///FILE"),
    ],
    storage: Storage = None,
    cluster: ClusterFile = None,
) -> None:
    """Write a sweep for other programs: MLflow, CSV files, or an Optuna study.

    Every trial with its settings, curves and artefacts. The same command again updates what it has written.
    """
    from tune.exporting import export as command

    command.export(_target(storage, cluster).sweep(name), to, console())


@app.command()
def promote(
    name: Name,
    storage: Storage = None,
    address: Address = None,
    cluster: ClusterFile = None,
    top_: Annotated[int, typer.Option("--top", help="Number of best configurations.", min=1)] = 5,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Trials of each configuration; 3 if not given. With folds, they are the folds.",
            min=1,
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, like epochs=300; can be repeated.", metavar="KEY=VALUE"),
    ] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Then train the winner on all images, with none held out.")
    ] = False,
    id_: Annotated[
        str | None,
        typer.Option("--id", help="Id of the new sweep; else SWEEP-promoted.", metavar="ID", show_default=False),
    ] = None,
) -> None:
    """Train the best configurations in full, with several seeds, or folds, each.

    They are ranked by their mean and compared with the first on the same images, with confidence intervals. The same
    command continues a promotion that was stopped.
    """
    from tune.cli import promote as command

    with _target(storage, cluster, address).reached() as target:
        request = command.PromoteRequest(name, top_, seeds, tuple(set_ or ()), final, id_)
        command.promote(request, target, console())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: arguments of the command line; None: those of the process.

    Returns:
        The exit code: 0; 1 if a bug ended the sweep; 2 for an error of the user; 130 after an interrupt.
    """
    return run(app, PROGRAM, arguments)
