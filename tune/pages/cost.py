"""What a sweep has cost, where and on what, and what has failed, for its page."""

from __future__ import annotations

import time

from semprior.pages.blocks import Block, Cell, Column, Facts, Table, Text
from semprior.reporting.terminal import clock
from tune.pages.gathered import SweepData
from tune.store.faults import log_of

_MOST_FAULTS = 200  # rows


def cost_facts(data: SweepData) -> Facts:
    """The cost in a few numbers."""
    machines = len({cost.host for cost in data.costs})
    return Facts(
        (
            ("device hours", hours(data.device_s)),
            ("hours of the sweep", hours(data.progress.elapsed) if data.progress.elapsed else "unknown"),
            ("trials begun", f"{len(data.trials):,} of {data.progress.trials:,}"),
            ("epochs trained", f"{data.epochs:,}"),
            ("machines", f"{machines:,}"),
        )
    )


def cost_blocks(data: SweepData) -> list[Block]:
    """The cost by machine and device, and the attempts that broke off."""
    columns = (
        Column("machine"),
        Column("device"),
        Column("precision"),
        Column("trials", numeric=True),
        Column("epochs", numeric=True),
        Column("device hours", numeric=True),
        Column("hours", numeric=True, hint="Hours of all attempts there, added up"),
        Column("seconds an epoch", numeric=True),
    )
    rows = []
    for cost in data.costs:
        each = cost.wall_s / cost.epochs if cost.epochs else None
        rows.append(
            (
                cost.host or "unknown",
                cost.device or "unknown",
                cost.precision or "unknown",
                Cell(f"{cost.trials:,}", cost.trials),
                Cell(f"{cost.epochs:,}", cost.epochs),
                Cell(hours(cost.device_s), cost.device_s),
                Cell(hours(cost.wall_s), cost.wall_s),
                Cell("" if each is None else f"{each:.1f}", each),
            )
        )
    return [
        cost_facts(data),
        Table(columns, tuple(rows), "Where the trials ran, and on what"),
        *_stopped(data),
        *_failures(data),
    ]


def _stopped(data: SweepData) -> list[Block]:
    """How much the trials that were stopped early have trained."""
    stopped = [trial for trial in data.trials.values() if trial.state == "stopped"]
    if not stopped:
        return []
    left = sum(max(int(trial.config.get("epochs", trial.epochs)) - trial.epochs, 0) for trial in stopped)
    trials = "1 trial was" if len(stopped) == 1 else f"{len(stopped):,} trials were"
    return [Text(f"{trials} stopped early, which saved {left:,} epoch{'s' if left != 1 else ''}.")]


def _failures(data: SweepData) -> list[Block]:
    failed = [trial for trial in data.trials.values() if trial.state in ("failed", "diverged")]
    if not data.faults and not failed:
        return [Text("No trial failed, and no attempt of one broke off.")]
    blocks: list[Block] = [Text(line[:1].upper() + line[1:] + ".") for line in data.progress.failures()]
    numbers = (Column("attempt", numeric=True), Column("epochs", numeric=True))
    columns = (Column("trial"), *numbers, Column("when"), Column("reason"), Column("log"))
    rows: list[tuple[str | Cell, ...]] = []
    uri = data.sweep.storage.uri
    for fault in data.faults[-_MOST_FAULTS:]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(fault.time))
        attempt, epochs = Cell(str(fault.attempt), fault.attempt), Cell(str(fault.epoch), fault.epoch)
        rows.append((fault.trial, attempt, epochs, when, fault.reason, log_of(uri, fault.trial)))
    for trial in failed:
        if not any(fault.trial == trial.trial for fault in data.faults):
            attempt, epochs = Cell(str(trial.attempt), trial.attempt), Cell(str(trial.epochs), trial.epochs)
            rows.append((trial.trial, attempt, epochs, "", trial.reason or trial.state, log_of(uri, trial.trial)))
    latest = f", the latest {_MOST_FAULTS} of {len(data.faults):,}" if len(data.faults) > _MOST_FAULTS else ""
    return [*blocks, Table(columns, tuple(rows), f"What attempts broke off by{latest}")]


def hours(seconds: float) -> str:
    """Hours with two digits, and as a clock where they are few."""
    return f"{seconds / 3600:,.2f}" if seconds >= 3600 else f"{seconds / 3600:.2f} ({clock(seconds)})"
