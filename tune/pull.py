"""A trial's checkpoint out of the store: verified, with its settings, its metrics and a short model card.

::

    DIR/manifest.json ...   the checkpoint, as `semprior evaluate | predict | export DIR` take it
        config.yaml         every setting; `semprior train --config` takes it
        metrics.json        of the epoch, and where all of it comes from
        README.md           the model card
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from semprior.data.folders import appearing
from semprior.errors import UserError
from tune.catalogue import Sweep
from tune.checkpoints import StoredCheckpoint, fetch_checkpoint
from tune.summaries import TrialSummary

CITATION = (
    "Learning with Semantic Priors: Stabilizing Point-Supervised Infrared Small Target Detection via Hierarchical"
    " Knowledge Distillation. IJCAI-ECAI 2026, arXiv 2605.14346."
)
_SHOWN = ("point_score", "point_pd", "point_fa", "iou", "niou", "pd", "fa")


def pull_checkpoint(sweep: Sweep, trial: TrialSummary, out: Path) -> None:
    """Fetch the best checkpoint of a trial, or the last one of a trial that never was evaluated.

    Args:
        sweep: of the trial.
        trial: as it stands.
        out: a new folder; it appears whole or not at all, and nothing is written elsewhere.

    Raises:
        UserError: the folder exists, the trial has no checkpoint, or its checkpoint is damaged.
    """
    if out.exists() or out.is_symlink():
        raise UserError(f"{out}: exists already; choose another folder")
    if trial.checkpoint is None or trial.sha256 is None:
        raise UserError(f"{sweep.id}: trial {trial.trial} has no checkpoint yet")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder")
    with appearing(out) as folder:
        inside = folder / "checkpoint"
        fetch_checkpoint(sweep.storage, StoredCheckpoint(trial.checkpoint, trial.sha256), inside)
        for file in list(inside.iterdir()):
            file.rename(folder / file.name)
        inside.rmdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(dict(trial.config), sort_keys=False), encoding="utf-8")
        told = origin(sweep, trial)
        (folder / "metrics.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        (folder / "README.md").write_text(model_card(sweep, trial, told), encoding="utf-8")


def origin(sweep: Sweep, trial: TrialSummary) -> dict[str, Any]:
    """Where a checkpoint comes from, and how good it was there."""
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


def model_card(sweep: Sweep, trial: TrialSummary, told: dict[str, Any]) -> str:
    """What a stranger needs to know of the folder, in Markdown."""
    config = trial.config
    searched = (
        "".join(f"- `{key}`: {value}\n" for key, value in trial.params.items()) or "- nothing: the preset itself\n"
    )
    rows = []
    for name in _SHOWN:
        value, error = trial.metrics.get(f"holdout/{name}"), trial.metrics.get(f"holdout/{name}_se")
        if value is not None:
            rows.append(f"| {name} | {value:.4f} | {'' if error is None else f'{error:.4f}'} |\n")
    table = (
        f"| metric | value | standard error |\n|---|---|---|\n{''.join(rows)}" if rows else "No images were held out.\n"
    )
    versions = ", ".join(f"{name} {number}" for name, number in trial.last.versions.items())
    epoch = f"epoch {told['epoch']}" if told["epoch"] is not None else f"{trial.epochs} epochs"
    return (
        f"# {config.get('detector')}, trial {trial.trial} of {sweep.id}\n\n"
        "A detector of small infrared targets, trained by semprior from points alone, one pixel a target; no mask was\n"
        f"trained on. The epoch was chosen by `{config.get('select.by')}` on held-out training images. The student,\n"
        "`student.safetensors`, is what is deployed; teacher and state of training lie beside it.\n\n"
        f"Preset `{config.get('preset')}`, {epoch} of {config.get('epochs')}, seed {trial.seed}. Searched:\n\n"
        f"{searched}\n"
        f"## On the held-out part of the training images\n\n{table}\n"
        "Fa counts in 1e-6. These images chose the epoch and ranked the trials, so that the figures flatter; the test\n"
        "split was not looked at.\n\n"
        "## Use\n\n```sh\nsemprior evaluate . --data DIR\nsemprior predict . IMAGES --out OUT\n"
        "semprior export . --out student.onnx\n```\n\n"
        f"## Method\n\n{CITATION}\n\n"
        f"## Origin\n\nData `{sweep.spec.data}` (digest `{trial.last.data or 'unknown'}`);"
        f" {trial.last.host} ({trial.last.made_on}), {trial.wall_s:.0f} s; revision {trial.last.revision or 'unknown'};"
        f" {versions}. SHA-256 of the manifest: `{trial.sha256}`.\n"
    )
