"""The page of a sweep, from what was gathered of it."""

from __future__ import annotations

import time

from semprior.pages.blocks import Block, Choice, Facts, Page, Section, Text
from tune.comparison.paired import Difference
from tune.launch.target import Target
from tune.monitor.repeat_command import repeat_command
from tune.monitor.wording import with_error
from tune.pages.cost import cost_blocks, hours
from tune.pages.curves import best_so_far_chart, curve_charts, pareto_chart
from tune.pages.detections import Wanted, detection_blocks
from tune.pages.dimensions import contour_charts, evaluated, importance_chart, parallel_chart, slice_chart
from tune.pages.gathered import MOST_RANKED, SweepData
from tune.pages.ranking import constraints_in_words, missing_in_words, ranking_table, verdict
from tune.pages.settings import differences_table, dimensions_table, listed_table, number_of
from tune.store.records import run_index


def sweep_page(data: SweepData, target: Target, top: int, wanted: Wanted, reload_seconds: int | None) -> Page:
    """The page of a sweep.

    Args:
        data: what was gathered of the sweep.
        target: where its commands find it.
        top: number of configurations that stand out.
        wanted: the images of which pictures are wanted.
        reload_seconds: as in `Page`.
    """
    sections = [
        Section("Result", tuple(_result(data))),
        Section("The winner", tuple(_winner(data, target, top))),
        Section("Ranking", tuple(_ranking(data, top))),
        Section("Curves", tuple(_curves(data, top))),
        Section("Which dimensions mattered", tuple(_dimensions(data))),
        Section("Detections", tuple(detection_blocks(data, wanted))),
        Section("Cost and failures", tuple(cost_blocks(data))),
        Section("What was searched", tuple(_searched(data))),
    ]
    return Page(f"Sweep {data.sweep.id}", _summary(data), tuple(sections), reload_seconds)


def _summary(data: SweepData) -> str:
    progress = data.progress
    counts = f"{len(progress.ended):,} of {progress.trials:,} trials ended, {len(progress.running):,} running"
    made = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return f"{(data.ended or f'{data.sweep.id}: {progress.state}').rstrip('.')}. {counts}. Written {made}."


def _result(data: SweepData) -> list[Block]:
    spec = data.sweep.spec
    gains = []
    for index, (metric, (first, base, difference)) in enumerate(data.ranking.gains.items()):
        gains.append(
            (f"gain in {_short(metric)} over trial 0", _gain(first.values[index] - base.values[index], difference))
        )
    best = data.best
    facts = [("first in the ranking", number_of(best.entry) if best else "none yet")]
    if best:
        facts += [
            (_short(metric), with_error(value, error))
            for metric, value, error in zip(spec.objective, best.entry.values, best.entry.errors, strict=True)
        ]
        facts += gains
        if len(spec.objective) == 1 and (probability := best.standings[0].probability) is not None:
            facts.append(("probability of being the best", f"{probability:.0%}"))
    facts.append(("device hours", hours(data.device_s)))
    blocks: list[Block] = [Facts(tuple(facts)), Text("\n\n".join(verdict(data)))]
    if spec.search:
        blocks.append(Text(_mattered(data)))
    if data.left_out:
        more = f" and {len(data.left_out) - 5} more" if len(data.left_out) > 5 else ""
        blocks.append(Text(f"Files that could not be used are left out: {'; '.join(data.left_out[:5])}{more}.", "note"))
    return blocks


def _gain(plain: float, difference: Difference | None) -> str:
    if difference is None:
        return with_error(plain, None, signed=True)
    return with_error(difference.value, difference.error, signed=True)


def _mattered(data: SweepData) -> str:
    """Which dimension mattered, in a sentence."""
    found = data.importance
    known = [leaf for leaf in found.shares if leaf not in found.noise]
    if not found.shares:
        return f"Which dimension mattered cannot be told yet: that is {found.summary.partition(': ')[2]}."
    if not known:
        return "No dimension can be told from noise."
    first, *others = known
    low, high = found.intervals[first]
    rest = f" Then {', '.join(f'{leaf} ({found.shares[leaf]:.0%})' for leaf in others)}." if others else ""
    noise = f" Not told from noise: {', '.join(found.noise)}." if found.noise else ""
    share = (
        f"{found.shares[first]:.0%} of the differences between configurations (90% interval {low:.0%} to {high:.0%})"
    )
    return f"The dimension that mattered most is {first}, with {share}.{rest}{noise}"


def _winner(data: SweepData, target: Target, top: int) -> list[Block]:
    if data.best is None:
        return [Text("There is no winner yet.")]
    best, sweep = data.best.entry, data.sweep
    trial = data.trials[best.trial]
    ran = {**trial.config, "precision": trial.last.precision or trial.config["precision"]}
    blocks: list[Block] = [differences_table(data, top)]
    if best.configuration == 0:
        blocks.insert(0, Text("The preset itself, as the base of the sweep changes it, is the best."))
    runs = f" of run {run_index(best.trial)}, one of {len(best.trials)}," if len(best.trials) > 1 else ""
    blocks.append(Text(f"This command repeats the training{runs} on one machine, without a sweep:"))
    blocks.append(Text(repeat_command(ran, sweep.spec.data, f"{sweep.id}-{best.trial}", sweep.spec.resources), "code"))
    if trial.checkpoint:
        blocks.append(Text("This one fetches its best checkpoint, verified:"))
        blocks.append(Text(target.command("pull", sweep, "--out", "DIR", trial=best.trial), "code"))
    else:
        blocks.append(Text("No checkpoint of it is kept.", "note"))
    return blocks


def _ranking(data: SweepData, top: int) -> list[Block]:
    if not data.ranking.shown:
        return [Text(f"No trial has a value of {data.metric} yet.")]
    ranked = len({trial.configuration for trial in data.trials.values() if trial.values})
    blocks: list[Block] = [
        Text(
            "The heads of the columns sort; a second time, in the other direction. Hover over a trial, or reach it with"
            " the tab key, for its settings. Differences are taken on the same images, ± their standard error."
        )
    ]
    if ranked > MOST_RANKED:
        blocks.append(Text(f"The first {MOST_RANKED} of {ranked:,} configurations are shown and compared.", "note"))
    if missing := missing_in_words(data):
        blocks.append(Text(missing, "note"))
    return [*blocks, ranking_table(data, top)]


def _curves(data: SweepData, top: int) -> list[Block]:
    blocks: list[Block] = [*curve_charts(data, top)]
    blocks += [chart for chart in (best_so_far_chart(data), pareto_chart(data)) if chart is not None]
    return blocks or [Text(f"No trial has a value of {data.metric} yet.")]


def _dimensions(data: SweepData) -> list[Block]:
    if not data.sweep.spec.search:
        return [Text("This sweep lists its configurations and searches no dimension.")]
    found = evaluated(data)
    blocks: list[Block] = [Text(_mattered(data))]
    blocks += [
        chart
        for chart in (importance_chart(data), parallel_chart(data, found), slice_chart(data, found))
        if chart is not None
    ]
    if len(data.drawn) < len(data.trials):
        blocks.insert(
            1,
            Text(
                f"Of {len(data.trials):,} trials, {len(data.drawn):,} count here: evenly chosen ones, and the best.",
                "note",
            ),
        )
    if contours := contour_charts(data, found):
        blocks.append(Choice("Two dimensions together:", tuple(contours.items())))
    elif len(found.axes) > 1:
        blocks.append(Text("Too few configurations have a value for a chart of two dimensions together."))
    return blocks


def _searched(data: SweepData) -> list[Block]:
    spec = data.sweep.spec
    goals = " and ".join(f"{metric} ({direction})" for metric, direction in spec.objective.items())
    runs = f"{spec.run_count} folds" if spec.runs.folds else f"{spec.run_count} seed{'s' if spec.run_count > 1 else ''}"
    budget = f"{spec.budget.trials:,} configurations"
    budget += f", {spec.budget.hours:g} hours" if spec.budget.hours is not None else ""
    budget += f", patience {spec.budget.patience}" if spec.budget.patience is not None else ""
    facts = Facts(
        (
            ("objective", goals),
            ("sampler", spec.sampler.name),
            ("early stopping", spec.scheduler.name),
            ("runs of a configuration", runs),
            ("budget", budget),
            ("data", spec.data),
            ("stored in", data.sweep.storage.uri.partition("?")[0]),
            ("revision", data.sweep.revision or "unknown"),
        )
    )
    ended = data.ended[:1].upper() + data.ended[1:] + "." if data.ended else f"The sweep is {data.progress.state}."
    texts = [Text(" ".join(part for part in (ended, constraints_in_words(spec.limits)) if part))]
    table = dimensions_table(data) if spec.search else listed_table(spec.configurations or ())
    return [*texts, facts, table]


def _short(metric: str) -> str:
    return metric.removeprefix("holdout/").replace("_", " ")
