"""The command line: ``python -m tune submit | list | status | logs | stop | resume | retry | top | show | ...``.

Faults and exit codes are those of `semprior`. What a command needs is imported when it runs, so that ``--help``
answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from semprior.terminal import command_line, console, run

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
        help="File that `ray up` was given: finds head, token and storage. Else SEMPRIOR_CLUSTER.",
        metavar="FILE.yaml",
        envvar="SEMPRIOR_CLUSTER",
        show_envvar=False,
        show_default=False,
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Start it and do not wait; `status --follow` watches it.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the sweep ends.")]
Format = Annotated[str, typer.Option("--format", help="table, json or csv.", metavar="NAME")]


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
        str | None, typer.Option("--id", help="Of the sweep; else its name.", metavar="ID", show_default=False)
    ] = None,
    detach: Detach = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what it would take; one epoch is trained to know.")
    ] = False,
) -> None:
    """Start a sweep.

    Ctrl-C stops it (on a cluster: only the watching); `resume` goes on where it was.
    """
    from tune.commands import submit as command

    if dry_run:
        from tune.cluster import storage_of_cluster
        from tune.commands.dry_run import dry_run as tell

        with storage_of_cluster(cluster):
            tell(command.Request(sweep, storage, address, id_, detach), console())
        return
    from tune.cluster import reached

    with reached(cluster, address) as there:
        command.submit(command.Request(sweep, storage, there, id_, detach), console())


@app.command()
def resume(
    name: Name, storage: Storage = None, address: Address = None, cluster: ClusterFile = None, detach: Detach = False
) -> None:
    """Go on with a sweep that was stopped or lost.

    What is finished is not run again; a trial that was cut off goes on from its last whole epoch.
    """
    from tune.cluster import reached
    from tune.commands import submit as command

    with reached(cluster, address) as there:
        command.resume(name, storage, there, detach, console())


@app.command()
def retry(
    name: Name,
    trials: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of failed trials; else all.", metavar="[TRIAL]...", show_default=False),
    ] = None,
    storage: Storage = None,
    address: Address = None,
    cluster: ClusterFile = None,
    detach: Detach = False,
) -> None:
    """Run failed trials again, also of a sweep that is done.

    Each goes on from its last checkpoint, if it has one, and may fail as often as a new one.
    """
    from tune.cluster import reached
    from tune.commands import submit as command

    with reached(cluster, address) as there:
        command.retry(name, trials or (), storage, there, detach, console())


@app.command()
def stop(name: Name, storage: Storage = None, address: Address = None, cluster: ClusterFile = None) -> None:
    """Stop a sweep; `resume` goes on.

    Its trials finish their epoch and keep its checkpoint.
    """
    from tune.cluster import reached
    from tune.commands import control

    with reached(cluster, address) as there:
        control.stop(name, storage, there, console())


@app.command(name="list")
def list_(storage: Storage = None, cluster: ClusterFile = None, format_: Format = "table") -> None:
    """List the sweeps of a storage."""
    from tune.cluster import storage_of_cluster
    from tune.commands import overview

    with storage_of_cluster(cluster):
        overview.list_sweeps(storage, format_, console())


@app.command()
def status(name: Name, storage: Storage = None, cluster: ClusterFile = None, follow: Follow = False) -> None:
    """Show how far a sweep is, and its trials.

    It is running, lost (its driver went silent), stopped or done.
    """
    from tune.cluster import storage_of_cluster
    from tune.commands import overview

    with storage_of_cluster(cluster):
        overview.status(name, storage, follow, console())


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
    from tune.cluster import reached
    from tune.commands import control

    with reached(cluster, address) as there:
        control.logs(name, trial, storage, there, follow)


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

    With standard errors: within one of them what is cheaper by a tenth goes first, if it was not stopped early. Then
    what the search gained over trial 0, the preset itself, and which dimensions mattered.
    """
    from tune.cluster import storage_of_cluster
    from tune.commands import ranking

    with storage_of_cluster(cluster):
        ranking.top(name, storage, count, by, format_, console())


@app.command()
def show(name: Name, trial: Trial, storage: Storage = None, cluster: ClusterFile = None) -> None:
    """Show all about a trial.

    Configuration, curve, cost, where it ran, why it stopped, and the `semprior train` command that repeats it.
    """
    from tune.cluster import storage_of_cluster
    from tune.commands import ranking

    with storage_of_cluster(cluster):
        ranking.show(name, trial, storage, console())


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
    from tune.cluster import storage_of_cluster
    from tune.commands import fetch

    with storage_of_cluster(cluster):
        fetch.pull(which, out, storage, console())


@app.command()
def promote(
    name: Name,
    storage: Storage = None,
    address: Address = None,
    cluster: ClusterFile = None,
    top_: Annotated[int, typer.Option("--top", help="Number of configurations, the best.", min=1)] = 5,
    seeds: Annotated[int, typer.Option(help="Runs of each.", min=1)] = 3,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, like epochs=300; can be repeated.", metavar="KEY=VALUE"),
    ] = None,
    final: Annotated[bool, typer.Option("--final", help="Then train the winner on all images, none held out.")] = False,
    id_: Annotated[
        str | None,
        typer.Option("--id", help="Of the new sweep; else SWEEP-promoted.", metavar="ID", show_default=False),
    ] = None,
) -> None:
    """Train the best in full, several times each.

    They are ranked by their mean, with a confidence interval. A promotion that was stopped goes on when it is asked
    for again.
    """
    from tune.cluster import reached
    from tune.commands import promote as command

    with reached(cluster, address) as there:
        request = command.Request(name, storage, there, top_, seeds, tuple(set_ or ()), final, id_)
        command.promote(request, console())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; none: the process's own.

    Returns:
        The exit code: 0, 1 where a sweep ended by a fault of ours, 2 for a fault in what was given, 130 when
        interrupted.
    """
    return run(app, PROGRAM, arguments)
