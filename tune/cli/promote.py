"""`promote`: train the best configurations in full with several seeds and rank them; then the winner on all images."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from semprior.config.schema import parse_settings
from semprior.data.remote_data import data_identity
from semprior.errors import UserError
from semprior.reporting.terminal import clock, say
from tune.cli.submit import check_data, run
from tune.comparison.ranked import compare_first, read_images
from tune.launch.ray_jobs import Jobs
from tune.launch.target import Target
from tune.monitor.heartbeat import observe
from tune.monitor.tables import format_metric, format_value, print_table, short_names
from tune.search.promotion import CONFIDENCE, PromotionResult, final, promotion, rank_promotion
from tune.spec.sweep_file import SweepSpec
from tune.store.results_store import ResultsStore
from tune.store.snapshot import left_out_in_words
from tune.store.sweeps import SWEEP_FILE, Sweep, create_sweep, open_sweep, require_unchanged


@dataclass(frozen=True)
class PromoteRequest:
    """The arguments of `promote`.

    Attributes:
        name: id of the sweep.
        top: number of configurations.
        seeds: number of trials of each configuration; None for the usual number, or the folds of the sweep.
        settings: settings of the new trials, as ``key=value`` texts.
        final: whether to train the winner on all images afterwards.
        id: id of the new sweep; None: ``SWEEP-promoted``.
    """

    name: str
    top: int
    seeds: int | None
    settings: tuple[str, ...]
    final: bool
    id: str | None


def promote(request: PromoteRequest, target: Target, console: Console) -> None:
    """Train the best configurations in full and rank them; a promotion that was stopped is continued.

    Raises:
        UserError: there is nothing to promote, a setting does not fit, or the id belongs to another promotion.
    """
    sweep, jobs = target.sweep(request.name), target.connect()
    check_data(sweep.spec)
    store = ResultsStore(sweep.storage)
    spec = sweep.spec
    compared = compare_first(
        store, dict(spec.objective), limit=request.top, minimum=spec.runs_of_the_best, limits=spec.limits
    )
    chosen = [one.entry for one in compared.shown if not one.entry.unmet]
    if store.left_out:
        say(console, left_out_in_words(store.left_out))
    if not chosen:
        which = " that meets its constraints" if compared.shown else ""
        raise UserError(f"{sweep.id}: has no trial with a value{which} to promote")
    spec = promotion(sweep.spec, chosen, request.seeds, parse_settings(request.settings))
    name, last = request.id or f"{sweep.id}-promoted", f"{request.id or sweep.id}-final"
    storage = target.storage()
    if request.final and storage.child(last).exists(SWEEP_FILE) and not storage.child(name).exists(SWEEP_FILE):
        raise UserError(f"{last}: exists already and belongs to another promotion; choose another --id")
    promoted = _run(name, spec, target, jobs, console)
    if promoted is None:
        return
    trials, (metric, direction) = ResultsStore(promoted.storage).trials(), next(iter(spec.objective.items()))
    images = read_images(promoted.storage, {trial.trial: trial.images for trial in trials})
    ranked = rank_promotion(trials, direction == "max", metric, images, spec.limits)
    if not ranked:
        raise UserError(f"{promoted.id}: no trial has a value; see `{target.command('status', promoted)}`")
    _print_ranking(ranked, next(iter(spec.objective)), console)
    if not request.final:
        say(console, f"fetch the first: {target.command('pull', promoted, '--out', 'DIR')}")
        return
    say(console, f"configuration {ranked[0].configuration:04d} is trained on all images, none held out")
    done = _run(last, final(spec, ranked[0]), target, jobs, console)
    if done is not None:
        say(console, f"fetch it: {target.command('pull', done, '--out', 'DIR', trial='0000')}")


def _run(name: str, spec: SweepSpec, target: Target, jobs: Jobs | None, console: Console) -> Sweep | None:
    """Start or continue a sweep and wait for its end; None if it was stopped before it was done."""
    storage = target.storage()
    if not storage.child(name).exists(SWEEP_FILE):
        named = spec.model_copy(update={"name": name, "storage": storage.uri})
        sweep = create_sweep(storage, name, named, data_identity(spec.data))
    else:
        sweep = open_sweep(storage.child(name).uri)
        if _without_names(sweep.spec) != _without_names(spec):
            raise UserError(f"{name}: exists already and is another promotion; choose another --id")
        require_unchanged(sweep, data_identity(spec.data))
    heartbeat, state = observe(sweep.storage)
    if heartbeat is not None and state == "running":
        raise UserError(
            f"{name}: is running on {heartbeat.host}; wait for it, or stop it: `{target.command('stop', sweep)}`"
        )
    if state == "done":
        return sweep
    trials = spec.budget.trials * spec.run_count
    say(console, f"{name}: {trials} trial{'s' if trials > 1 else ''}, stored in {sweep.storage.uri}")
    view = run(sweep, heartbeat.generation + 1 if heartbeat is not None else 1, target, jobs, False, console)
    return sweep if view is not None and view.state == "done" else None


def _without_names(spec: SweepSpec) -> SweepSpec:
    """A sweep file without the keys that do not change its trials."""
    return spec.model_copy(update={"name": "", "storage": ""})


def _print_ranking(ranked: list[PromotionResult], metric: str, console: Console) -> None:
    keys = list(dict.fromkeys(key for result in ranked for key in result.params))
    names = short_names(keys)
    level = f"{CONFIDENCE:.0%} interval"
    columns = {"": "right", "configuration": "left", metric.rpartition("/")[2]: "right", level: "right"}
    columns |= {"from the first": "right", f"its {level}": "right", "P(best)": "right"}
    columns |= {"runs": "right"} | {names[key]: "right" for key in keys} | {"time": "right"}
    rows = []
    for place, result in enumerate(ranked, 1):
        width = result.confidence_half_width
        spread = "none for one seed" if width is None else f"± {format_metric(width)}"
        runs = f"{len(result.values)}"
        runs += f" of {len(result.values) + result.missing}" if result.missing else ""
        cells = [str(place), f"{result.configuration:04d}", format_metric(result.mean), spread]
        cells += [*_difference_cells(result), runs]
        rows.append([*cells, *(format_value(result.params.get(key)) for key in keys), clock(result.seconds)])
    print_table(console, columns, rows, title=f"{metric}, mean over runs")


def _difference_cells(result: PromotionResult) -> list[str]:
    """The difference from the first, its interval over images and runs, and the probability of being the best."""
    difference, probability = result.from_first, result.probability
    width = difference.half_width(CONFIDENCE) if difference else None
    return [
        format_metric(difference.value) if difference else "",
        f"± {format_metric(width)}" if width is not None else "",
        "" if probability is None else f"{probability:.2f}",
    ]
