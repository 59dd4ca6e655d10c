"""What the settings of a run change of its preset's, and how a command line gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from semprior.config.schema import Config, flatten, preset_names, resolve


@dataclass(frozen=True)
class Difference:
    """A setting that a run has changed.

    Attributes:
        key: of the leaf, such as ``scam.stages``.
        preset: its value in the preset.
        value: its value in the run.
    """

    key: str
    preset: Any
    value: Any


def differences(config: Config) -> list[Difference]:
    """The settings that differ from those of the preset that the config names, in the order of the tree.

    The preset of a later version may be gone; the settings are then compared with those of ``standard``.
    """
    name = config.preset if config.preset in preset_names() else "standard"
    before, now = flatten(resolve(name, environment={}).config), flatten(config)
    return [Difference(key, before[key], now[key]) for key in now if before[key] != now[key] and key != "preset"]


def setting_text(value: object) -> str:
    """A value as ``--set KEY=VALUE`` takes it: YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
