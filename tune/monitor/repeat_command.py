"""The command that repeats a trial without the service, and the settings in which it differs from the preset."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from semprior.config.schema import flatten, resolve
from tune.spec.sweep_file import Resources


def repeat_command(config: Mapping[str, Any], data: str, out: str, resources: Resources) -> str:
    """The `semprior train` command that repeats a trial.

    It gives only the settings that differ from the preset. On a CPU with the same instruction set, and with as many
    threads, a trial of one worker is repeated to the last bit. Several workers are repeated by one, which rounds sums
    differently.

    Args:
        config: flat configuration of the trial.
        data: data of the sweep.
        out: folder to write.
        resources: resources of the trial.
    """
    preset = str(config["preset"])
    changed = differences_from_preset(config)
    words = ["semprior", "train", "--data", data, "--out", out, "--preset", preset]
    for key, (value, _) in changed.items():
        words += ["--set", f"{key}={_as_yaml(value)}"]
    if resources.gpus:
        return shlex.join(words)
    threads = max(1, int(resources.cpus / resources.workers))
    return f"OMP_NUM_THREADS={threads} " + shlex.join([*words, "--device", "cpu"])


def differences_from_preset(config: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ from those of the preset: by flat key, the own value and that of the preset.

    Args:
        config: flat configuration.
    """
    preset = flatten(resolve(str(config["preset"]), environment={}).config)
    return {
        key: (value, preset[key])
        for key, value in config.items()
        if key in preset and preset[key] != value and key != "preset"
    }


def _as_yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
