"""`pull`: fetch a checkpoint from the store, verified, with its settings, metrics and a model card."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from semprior.errors import UserError
from semprior.io.atomic_files import atomic_folder
from semprior.io.foreign_text import markdown_code
from semprior.io.manifest import DamagedError
from semprior.reporting.terminal import say
from tune.comparison.ranked import compare_first
from tune.launch.target import Target
from tune.monitor.tables import format_metric
from tune.store.checkpoints import StoredCheckpoint, fetch_checkpoint
from tune.store.results_store import ResultsStore
from tune.store.snapshot import left_out_in_words
from tune.store.sweeps import Sweep
from tune.store.trial_summary import TrialSummary

_TRIAL, _RANK = re.compile(r"\d{4,}(\.\d+)?"), re.compile(r"\d{1,3}")


def pull(which: str, out: Path, target: Target, console: Console) -> None:
    """Fetch a checkpoint.

    Args:
        which: ``SWEEP``, ``SWEEP:best``, ``SWEEP:RANK`` (a place in `top`) or ``SWEEP:TRIAL``.
        out: folder to create.
        target: where the sweep is stored.
        console: console for messages.

    Raises:
        UserError: there is no such sweep, place or trial, or its checkpoint cannot be fetched.
    """
    name, _, wanted = which.partition(":")
    sweep = target.sweep(name)
    store = ResultsStore(sweep.storage)
    chosen = chosen_trial(sweep, store, wanted or "best")
    trial = trial_of(sweep, store, chosen)
    try:
        pull_checkpoint(sweep, trial, out)
    except DamagedError:
        now = trial_of(sweep, store, chosen)
        if now.checkpoint == trial.checkpoint:
            raise
        trial = now  # it has found a better epoch meanwhile, and removed the checkpoint of the former one
        pull_checkpoint(sweep, trial, out)
    if store.left_out:
        say(console, left_out_in_words(store.left_out))
    metric = next(iter(sweep.spec.objective))
    value = f", {metric} {format_metric(trial.values[0])}" if trial.values else ""
    epoch = trial.epochs if trial.best_epoch is None else trial.best_epoch + 1
    say(console, f"{out}: trial {chosen} of {name} after epoch {epoch}{value}; verified, sha256 {trial.sha256}")
    say(console, f"try: semprior evaluate {shlex.quote(str(out))} --data {shlex.quote(sweep.spec.data)}")


def trial_of(sweep: Sweep, store: ResultsStore, chosen: str) -> TrialSummary:
    """A trial by its id.

    Raises:
        UserError: the sweep has no such trial.
    """
    trials = {trial.trial: trial for trial in store.trials()}
    if chosen not in trials:
        known = f"{min(trials)} to {max(trials)}" if trials else "none yet"
        raise UserError(f"{sweep.id}: no trial {chosen}; there are: {known}")
    return trials[chosen]


def chosen_trial(sweep: Sweep, store: ResultsStore, wanted: str) -> str:
    """The id of the trial that a word names: ``best``, a place in `top`, or an id (four digits or more).

    Raises:
        UserError: the word is none of these, or nothing that meets the constraints is at that place.
    """
    if _TRIAL.fullmatch(wanted):
        return wanted
    if wanted != "best" and not (_RANK.fullmatch(wanted) and int(wanted) > 0):
        raise UserError(f"{sweep.id}:{wanted}: must be best, a place in `top` like 2, or a trial like 0007")
    place = 1 if wanted == "best" else int(wanted)
    spec, minimum = sweep.spec, sweep.spec.runs_of_the_best
    ranked = compare_first(store, dict(spec.objective), limit=place, minimum=minimum, limits=spec.limits).shown
    if len(ranked) < place:
        raise UserError(f"{sweep.id}: has {len(ranked)} configurations with a value, none at place {place}")
    chosen = ranked[place - 1].entry
    if wanted == "best" and spec.races and chosen.front > 1 and not chosen.unmet:
        raise UserError(f"{sweep.id}:best: no configuration has {minimum} completed runs yet; name a place or a trial")
    if chosen.unmet:
        beyond = " and ".join(str(limit) for limit in spec.limits if limit.metric in chosen.unmet)
        raise UserError(
            f"{sweep.id}:{wanted}: trial {chosen.trial} does not meet {beyond}; to fetch it nevertheless, name it:"
            f" {sweep.id}:{chosen.trial}"
        )
    return chosen.trial


CITATION = (
    "Learning with Semantic Priors: Stabilizing Point-Supervised Infrared Small Target Detection via Hierarchical"
    " Knowledge Distillation. IJCAI-ECAI 2026, arXiv 2605.14346."
)
_CARD_METRICS = ("point_score", "point_pd", "point_fa", "iou", "niou", "pd", "fa")


def pull_checkpoint(sweep: Sweep, trial: TrialSummary, out: Path) -> None:
    """Fetch the best checkpoint of a trial, or the last one if the trial was never evaluated.

    Args:
        sweep: sweep of the trial.
        trial: summary of the trial.
        out: folder to create; it appears whole or not at all, and nothing is written elsewhere.

    Raises:
        UserError: the folder exists, the trial has no checkpoint, or its checkpoint is damaged.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists already; choose another folder")
    if trial.checkpoint is None or trial.sha256 is None:
        raise UserError(f"{sweep.id}: trial {trial.trial} has no checkpoint yet")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder")
    with atomic_folder(out) as folder:
        inside = folder / "checkpoint"
        fetch_checkpoint(sweep.storage, StoredCheckpoint(trial.checkpoint, trial.sha256), inside)
        for file in list(inside.iterdir()):
            file.rename(folder / file.name)
        inside.rmdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(trial.config), sort_keys=False), encoding="utf-8")
        about = provenance(sweep, trial)
        (folder / "metrics.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(model_card(sweep, trial, about), encoding="utf-8")


def provenance(sweep: Sweep, trial: TrialSummary) -> dict[str, Any]:
    """The content of metrics.json: which trial made a checkpoint, of what, where, and with which metrics."""
    return {
        "sweep": sweep.id,
        "trial": trial.trial,
        "epoch": None if trial.best_epoch is None else trial.best_epoch + 1,
        "objectives": dict(zip(sweep.spec.objective, trial.values, strict=False)),
        "metrics": dict(trial.metrics),
        "params": dict(trial.params),
        "seed": trial.seed,
        "data": sweep.spec.data,
        "data_sha256": trial.last.data,
        "checkpoint": trial.checkpoint,
        "sha256": trial.sha256,
        "wall_s": trial.wall_s,
        "device_s": trial.device_s,
        "host": trial.last.host,
        "device": trial.last.device,
        "precision": trial.last.precision,
        "instructions": trial.last.instructions,
        "revision": trial.last.revision,
        "versions": dict(trial.last.versions),
    }


def model_card(sweep: Sweep, trial: TrialSummary, about: dict[str, Any]) -> str:
    """A description of the folder in Markdown, for people who know neither the sweep nor semprior."""
    code, config = markdown_code, trial.config
    searched = (
        "".join(f"- {code(key)}: {code(str(value))}\n" for key, value in trial.params.items())
        or "- nothing: the preset itself\n"
    )
    rows = []
    for name in _CARD_METRICS:
        value, error = trial.metrics.get(f"holdout/{name}"), trial.metrics.get(f"holdout/{name}_se")
        if value is not None:
            rows.append(
                f"| {name} | {value:.4f} | {'' if error is None or not math.isfinite(error) else f'{error:.4f}'} |\n"
            )
    table = (
        f"| metric | value | standard error |\n|---|---|---|\n{''.join(rows)}" if rows else "No images were held out.\n"
    )
    versions = ", ".join(code(f"{name} {number}") for name, number in trial.last.versions.items())
    epoch = f"epoch {about['epoch']}" if about["epoch"] is not None else f"{trial.epochs} epochs"
    threshold = trial.metrics.get("holdout/threshold", 0.5)
    chosen = "" if threshold == 0.5 else f" They count at the threshold 0.5; the commands below use {threshold:g}."
    return (
        f"# {code(str(config.get('detector')))}, trial {code(trial.trial)} of {code(sweep.id)}\n\n"
        "A detector of small infrared targets, trained by semprior from points alone, one pixel a target; no mask was\n"
        f"trained on. The epoch was chosen by {code(str(config.get('select.by')))} on held-out training images. The\n"
        "student, `student.safetensors`, is what is deployed; teacher and state of training lie beside it.\n\n"
        f"Preset {code(str(config.get('preset')))}, {epoch} of {code(str(config.get('epochs')))}, seed {trial.seed}."
        " Searched:\n\n"
        f"{searched}\n"
        f"## On the held-out part of the training images\n\n{table}\n"
        "Fa counts in 1e-6. These images chose the epoch and ranked the trials, so that the figures flatter; the test\n"
        f"split was not looked at.{chosen}\n\n"
        "## Use\n\n```sh\nsemprior evaluate . --data DIR\nsemprior predict . IMAGES --out OUT\n"
        "semprior export . --out student.onnx\n```\n\n"
        f"## Method\n\n{CITATION}\n\n"
        f"## Origin\n\nData {code(sweep.spec.data)} (digest {code(trial.last.data or 'unknown')});"
        f" {code(trial.last.host)} ({code(trial.last.made_on)}), {trial.wall_s:.0f} s;"
        f" revision {code(trial.last.revision or 'unknown')}; {versions}."
        f" SHA-256 of the manifest: {code(str(trial.sha256))}.\n"
    )
