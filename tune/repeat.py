"""The `semprior train` command that repeats a trial."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from semprior.config import flatten, resolve
from tune.sweep import Resources


def repeat_command(config: Mapping[str, Any], data: str, out: str, resources: Resources) -> str:
    """The command that trains with these settings.

    Only what differs from the preset is written out. A trial of one worker comes out the same to the last bit on a CPU
    with the same instruction set, with as many threads; several workers are repeated by one, whose sums are rounded
    otherwise.

    Args:
        config: every leaf of the run, flat.
        data: of the sweep.
        out: folder to write.
        resources: of the trial.
    """
    preset = str(config["preset"])
    usual = flatten(resolve(preset, environment={}).config)
    changed = {key: value for key, value in config.items() if key in usual and usual[key] != value and key != "preset"}
    words = ["semprior", "train", "--data", data, "--out", out, "--preset", preset]
    for key, value in changed.items():
        words += ["--set", f"{key}={_as_yaml(value)}"]
    if resources.gpus:
        return shlex.join(words)
    threads = max(1, int(resources.cpus / resources.workers))
    return f"OMP_NUM_THREADS={threads} " + shlex.join([*words, "--device", "cpu"])


def _as_yaml(value: Any) -> str:  # noqa: ANN401
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
