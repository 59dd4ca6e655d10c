"""`promote`: the best configurations in full, several seeds each, ranked by their mean; the winner on all images."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from semprior.config.schema import parse_settings
from semprior.errors import UserError
from semprior.reporting.terminal import clock, say
from tune.cli.lookup import jobs_of, storage_of, sweep_of
from tune.cli.submit import check_data, run
from tune.launch.next_command import command
from tune.launch.ray_jobs import Jobs
from tune.monitor.heartbeat import last_heartbeat
from tune.monitor.tables import number, print_table, short_names, text
from tune.search.promotion import CONFIDENCE, PromotionResult, final, promotion, rank_promotion
from tune.spec.sweep_file import SweepSpec
from tune.store.results_store import ResultsStore
from tune.store.sweeps import SWEEP_FILE, Sweep, create_sweep, open_sweep


@dataclass(frozen=True)
class Request:
    """What `promote` is given.

    Attributes:
        name: of the sweep.
        storage: of it and of what comes of it; none: the usual one.
        address: of a job server; none: this machine.
        top: number of configurations.
        seeds: runs of each.
        settings: ``key=value`` texts.
        final: whether the winner is trained on all images then.
        id: of the new sweep; none: ``SWEEP-promoted``.
    """

    name: str
    storage: str | None
    address: str | None
    top: int
    seeds: int
    settings: tuple[str, ...]
    final: bool
    id: str | None


def promote(request: Request, console: Console) -> None:
    """Train the best configurations in full and rank them; a promotion that was stopped goes on.

    Raises:
        UserError: nothing to promote, a setting that does not fit, or another promotion of this id.
    """
    sweep, jobs = sweep_of(request.name, request.storage), jobs_of(request.address)
    check_data(sweep.spec)
    chosen = ResultsStore(sweep.storage).rank(dict(sweep.spec.objective), limit=request.top)
    if not chosen:
        raise UserError(f"{sweep.id}: has no trial with a value to promote")
    spec = promotion(sweep.spec, chosen, request.seeds, parse_settings(request.settings))
    name, last = request.id or f"{sweep.id}-promoted", f"{request.id or sweep.id}-final"
    place = storage_of(request.storage)
    if request.final and place.child(last).exists(SWEEP_FILE) and not place.child(name).exists(SWEEP_FILE):
        raise UserError(f"{last}: exists already and is of another promotion; choose another --id")
    promoted = _run(request, name, spec, jobs, console)
    if promoted is None:
        return
    ranked = rank_promotion(ResultsStore(promoted.storage).trials(), next(iter(spec.objective.values())) == "max")
    if not ranked:
        raise UserError(f"{promoted.id}: no trial has a value; see `{command('status', promoted)}`")
    _show(ranked, next(iter(spec.objective)), console)
    if not request.final:
        say(console, f"fetch the first: {command('pull', promoted, '--out', 'DIR')}")
        return
    say(console, f"configuration {ranked[0].configuration:04d} is trained on all images, none held out")
    done = _run(request, last, final(spec, ranked[0]), jobs, console)
    if done is not None:
        say(console, f"fetch it: {command('pull', done, '--out', 'DIR', which='0000')}")


def _run(request: Request, name: str, spec: SweepSpec, jobs: Jobs | None, console: Console) -> Sweep | None:
    """Begin a sweep, or go on with it, and wait for its end; none where it was stopped before."""
    place = storage_of(request.storage)
    if not place.child(name).exists(SWEEP_FILE):
        sweep = create_sweep(place, name, spec.model_copy(update={"name": name, "storage": place.uri}))
    else:
        sweep = open_sweep(place.child(name).uri)
        if _kept(sweep.spec) != _kept(spec):
            raise UserError(f"{name}: exists already and is another promotion; choose another --id")
    beat = last_heartbeat(sweep.storage)
    word = beat.word() if beat is not None else "waiting"
    if beat is not None and word == "running":
        raise UserError(f"{name}: is running on {beat.host}; wait for it, or stop it: `{command('stop', sweep)}`")
    if word == "done":
        return sweep
    trials = spec.budget.trials * spec.seeds
    say(console, f"{name}: {trials} trial{'s' if trials > 1 else ''}, stored in {sweep.storage.uri}")
    view = run(sweep, beat.generation + 1 if beat is not None else 1, jobs, False, console)
    return sweep if view is not None and view.word == "done" else None


def _kept(spec: SweepSpec) -> SweepSpec:
    """A sweep without what does not change its trials."""
    return spec.model_copy(update={"name": "", "storage": ""})


def _show(ranked: list[PromotionResult], metric: str, console: Console) -> None:
    keys = list(dict.fromkeys(key for standing in ranked for key in standing.params))
    names = short_names(keys)
    level = f"{CONFIDENCE:.0%} interval"
    columns = {"": "right", "configuration": "left", metric.rpartition("/")[2]: "right", level: "right"}
    columns |= {"seeds": "right"} | {names[key]: "right" for key in keys} | {"time": "right"}
    rows = []
    for place, standing in enumerate(ranked, 1):
        width = standing.confidence_half_width
        spread = "one seed: none" if width is None else f"± {number(width)}"
        runs = f"{len(standing.values)}"
        runs += f" of {len(standing.values) + standing.missing}" if standing.missing else ""
        cells = [str(place), f"{standing.configuration:04d}", number(standing.mean), spread, runs]
        rows.append([*cells, *(text(standing.params.get(key)) for key in keys), clock(standing.seconds)])
    print_table(console, columns, rows, title=f"{metric}, mean over seeds")
