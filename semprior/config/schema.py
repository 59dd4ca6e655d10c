"""Every setting of a run: one frozen tree of dataclasses whose leaves flat dotted keys address.

``Config().scam.stages`` and the key ``scam.stages`` are the same leaf. A run is described in full by `flatten(config)`;
`resolve` builds a config from its sources. Flags override the environment, which overrides a file, which overrides the
preset.

The defaults are the preset ``standard``. The presets in ``semprior/presets/`` list what they change; ``paper`` lists
every constant of the published protocol.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from semprior.config.leaf import Leaf
from semprior.errors import UserError
from semprior.reading.schema import shown_key
from semprior.reading.yaml_text import parse_value, parse_yaml, read_yaml

ENVIRONMENT_PREFIX = "SEMPRIOR__"
LARGEST_SEED = 2**32 - 1  # that k-means takes
MOST_EPOCHS = 100_000
MOST_FOLDS = 1000
_RENAMED = {"labels.evolve": ("labels.refine", {True: "evolve", False: "none"})}
"""Leaves of earlier versions: their names of today, and what their values are called now."""


def _leaf(default: Any, low: float, high: float) -> Any:  # noqa: ANN401 - like `field`
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True)
class DataConfig:
    """Images, crops and the holdout (method, section 7)."""

    holdout: float = _leaf(0.15, 0, 0.9)  # share of the training images held out to select the epoch on
    holdout_seed: int = _leaf(0, 0, LARGEST_SEED)
    folds: int = _leaf(0, 0, MOST_FOLDS)  # of training and validation images; one is held out instead; 0: none
    fold: int = _leaf(0, 0, MOST_FOLDS - 1)  # the one that is held out, from 0
    crop: int = _leaf(192, 32, 1024)  # pixels, a multiple of 32
    batch: int = _leaf(16, 1, 4096)  # over all workers
    target_crops: float = _leaf(0.5, 0, 1)  # share of crops that are placed on a target, if the image has one
    hard_crops: float = _leaf(
        0.0, 0, 1
    )  # share that is placed where the teacher fires away from every point, if it does
    pad_crops: bool = True  # draw crops from the image padded as in inference, so that training sees the seams
    augment: float = _leaf(0.8, 0, 1)  # probability that a crop is augmented

    @property
    def holds_out(self) -> bool:
        """Whether images are held out to select the epoch on."""
        return bool(self.folds or self.holdout)


@dataclass(frozen=True)
class VFMConfig:
    """The frozen vision foundation model (method, section 2)."""

    name: str = "vit_small_plus_patch16_dinov3"
    weights: str = "auto"  # auto | hub | offline | random | a file | an address of `semprior vfm push`
    features: Literal["bank", "exact"] = "bank"
    bank_gb: float = _leaf(8.0, 0, 1e6)
    width: int = _leaf(128, 1, 4096)  # channels that the maps of a CNN are projected to


@dataclass(frozen=True)
class SCAMConfig:
    """Placement and strength of the semantic-conditioned affine modulation (method, section 3)."""

    stages: tuple[int, ...] | Literal["all", "none"] = "all"  # stages counted from 1
    scale: float | None = _leaf(None, 0, 10)  # null: the detector's own, published or chosen by a sweep
    gate_penalty: float = _leaf(0.005, 0, 1000)
    own_statistics: bool = True  # whether the teacher's decoder has its own BatchNorm statistics
    drop: float = _leaf(0.5, 0, 1)  # share of an inner batch that trains the student without modulation


@dataclass(frozen=True)
class DistillConfig:
    """Weights of the distillation terms (method, section 4)."""

    align_weight: float = _leaf(0.1, 0, 1000)
    outer_weight: float = _leaf(1.0, 0, 1000)
    temperature: float = _leaf(4.0, 1e-3, 1000)


@dataclass(frozen=True)
class ClustersConfig:
    """Clusters of images, which the outer objective reweights (method, section 8); count 1 switches reweighting off."""

    count: int = _leaf(256, 1, 1_000_000)
    seed: int = _leaf(1, 0, LARGEST_SEED)


@dataclass(frozen=True)
class LabelsConfig:
    """First pseudo-masks, their evolution and the admission of hard images (method, section 6)."""

    seed: Literal["contrast", "edges", "generator", "masks"] = "generator"
    pool: Literal["all", "reliable"] = "all"  # images that train from the start; the others wait for admission
    refine: Literal["none", "evolve", "crossfit"] = "none"  # admission follows its schedule in any case
    crossfit_folds: int = _leaf(2, 2, MOST_FOLDS)  # of training and validation images, with a short run for each
    crossfit_epochs: float = _leaf(0.3, 0, 1)  # length of a short run as a share of the epochs, at least one epoch
    evolve_after: float = _leaf(0.2, 0, 1)  # share of the epochs before the first evolution and admission
    evolve_every: int = _leaf(5, 1, MOST_EPOCHS)
    admit_until: float = _leaf(0.8, 0, 1)  # share of the epochs after which no image is admitted


@dataclass(frozen=True)
class LossConfig:
    """The task loss (`losses.task_loss`): ``bce`` is the published one; ``iou_bce`` adds a soft IoU over the batch.

    ``iou`` and ``sls`` are the recipes of DNANet and MSHNet.
    """

    task: Literal["bce", "iou_bce", "iou", "sls"] = "iou_bce"
    bce_weight: float = _leaf(10.0, 0, 10_000)  # factor of the cross-entropy in iou_bce
    background_weight: float = _leaf(3.0, 0, 10_000)  # in iou_bce, of pixels away from every target
    output_bias: float | None = _leaf(-4.0, -100, 100)  # initial bias of the last layer; null: as published


@dataclass(frozen=True)
class OptimConfig:
    """Both optimisers (method, section 5)."""

    rate: float | None = _leaf(None, 0, 1000)  # null: the detector's own, likewise
    schedule: Literal["constant", "one_cycle"] = "one_cycle"
    weight_decay: float = _leaf(0.01, 0, 100)
    clip: float | None = _leaf(1.0, 0, 1e6)  # largest norm of the gradient; null: no clipping
    average: float = _leaf(
        0.99, 0, 0.99999
    )  # decay of the moving average of the weights, which is evaluated; 0: no averaging


@dataclass(frozen=True)
class OuterConfig:
    """Schedule of the outer problem (method, section 5)."""

    every: int = _leaf(5, 0, MOST_EPOCHS)  # epochs; 0: never
    steps: int = _leaf(4, 1, 10_000)
    shared: bool = False  # whether validation images train in inner steps, too


@dataclass(frozen=True)
class SelectConfig:
    """Selection of the best epoch."""

    by: Literal["point_score", "holdout/iou", "test/iou"] = "point_score"
    after: float = _leaf(0.3, 0, 1)  # share of the epochs before the first evaluation
    every: int = _leaf(2, 1, MOST_EPOCHS)


@dataclass(frozen=True)
class Config:
    """The configuration of a run."""

    preset: str = "standard"
    detector: str = "alclnet"
    epochs: int = _leaf(300, 1, MOST_EPOCHS)
    seed: int = _leaf(0, 0, LARGEST_SEED)
    precision: Literal["bf16", "fp32"] = "bf16"
    channels_last: bool = True
    data: DataConfig = DataConfig()
    vfm: VFMConfig = VFMConfig()
    scam: SCAMConfig = SCAMConfig()
    distill: DistillConfig = DistillConfig()
    clusters: ClustersConfig = ClustersConfig()
    labels: LabelsConfig = LabelsConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    outer: OuterConfig = OuterConfig()
    select: SelectConfig = SelectConfig()

    @property
    def follows_paper(self) -> bool:
        """Whether the run keeps to the published order of operations where ours differs and no setting says so."""
        return self.preset == "paper"


@functools.cache
def leaves(cls: type = Config, prefix: str = "") -> Mapping[str, Leaf]:
    """The leaves by their dotted keys, in the order of the tree."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Leaf] = {}
    for entry in dataclasses.fields(cls):
        key, hint = prefix + entry.name, hints[entry.name]
        if dataclasses.is_dataclass(hint):
            found |= leaves(typing.cast(type, hint), key + ".")
        else:
            found[key] = Leaf(hint, **entry.metadata)
    return types.MappingProxyType(found)


def flatten(config: Config) -> dict[str, Any]:
    """The values of `config` by dotted keys, in the order of the tree; tuples become lists, as in YAML."""
    flat: dict[str, Any] = {}
    for key in leaves():
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


def unflatten(flat: Mapping[str, Any], source: str = "configuration") -> Config:
    """The config with the leaves `flat`, which an earlier version may have stored; the others have their defaults.

    Raises:
        UserError: a key is unknown or a value does not fit; the message names `source` and the key.
    """
    tree: dict[str, Any] = {}
    for key, value in with_present_names(flat).items():
        value = check_leaf(key, value, source)
        *parents, name = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    config: Config = _build(Config, tree)
    _cross_check(config, source)
    return config


def _build(cls: type, tree: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an instance of `cls`
    hints = typing.get_type_hints(cls)
    return cls(**{k: _build(hints[k], v) if dataclasses.is_dataclass(hints[k]) else v for k, v in tree.items()})


def check_leaf(key: str, value: object, source: str) -> Any:  # noqa: ANN401 - of the leaf's type
    """Convert a value to the type of the leaf `key`.

    Raises:
        UserError: the key is unknown (the message suggests the nearest one), or the value does not fit.
    """
    if key not in leaves():
        raise UserError(f"{source}: unknown key '{shown_key(key)}'{_nearest(key[:100])}")
    return leaves()[key].check(value, f"{source}: {key}")


def with_present_names(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves that an earlier version may have stored, under their names of today."""
    found: dict[str, Any] = {}
    for key, value in flat.items():
        now, values = _RENAMED.get(key, ("", {}))
        known = isinstance(value, bool) and value in values  # any other value stays, for the message
        found |= {now: values[value]} if known else {key: value}
    return found


def _nearest(key: str) -> str:
    if key in _RENAMED:
        return f"; it is '{_RENAMED[key][0]}' now"
    close = difflib.get_close_matches(key, leaves(), n=1, cutoff=0.5)
    tails = [k for k in leaves() if k.split(".")[-1] == key.split(".")[-1]]
    guess = close or tails
    return f"; did you mean '{guess[0]}'?" if guess else "; `semprior train --help` names where the keys are listed"


def _cross_check(config: Config, source: str) -> None:
    if config.data.crop % 32:
        raise UserError(f"{source}: data.crop must be a multiple of 32, not {config.data.crop}")
    if config.data.folds == 1:
        raise UserError(f"{source}: data.folds must be 0, for none, or at least 2, not 1")
    if config.data.fold >= max(config.data.folds, 1):
        most = f"at most {config.data.folds - 1}, as data.folds is {config.data.folds}" if config.data.folds else "0"
        way_out = "" if config.data.folds else "; set data.folds as well"
        raise UserError(f"{source}: data.fold must be {most}, not {config.data.fold}{way_out}")
    if config.select.by == "test/iou" and config.preset != "paper":
        raise UserError(f"{source}: select.by=test/iou chooses on the test split; only the preset paper may")


def preset_names() -> list[str]:
    """Names of the presets in the package."""
    folder = resources.files("semprior") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def preset_leaves(name: str) -> dict[str, Any]:
    """The leaves that a preset sets, by dotted keys.

    Raises:
        UserError: there is no such preset.
    """
    if name not in preset_names():
        raise UserError(f"preset: unknown preset '{shown_key(name)}'; choose one of {', '.join(preset_names())}")
    text = (resources.files("semprior") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return {**parse_yaml(text, f"preset {name}").flat(), "preset": name}


def read_leaves(path: Path) -> dict[str, Any]:
    """The leaves that a YAML file sets, by nested or dotted keys; it may be one that an earlier version wrote.

    Raises:
        UserError: the file cannot be read or is not a mapping.
    """
    document = read_yaml(path)
    if not isinstance(document.content, dict):
        raise UserError(f"{path}: must hold keys and values, like `epochs: 60`")
    return with_present_names(document.flat())


def parse_settings(settings: typing.Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` texts, whose values are YAML (``scam.stages=[1, 3]``, ``optim.clip=null``).

    Raises:
        UserError: a text has no ``=`` or its value is not YAML.
    """
    leaves: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--set {shown_key(text)}: must look like key=value")
        leaves[key.strip()] = parse_value(value, f"--set {shown_key(text)}")
    return leaves


def environment_leaves(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Leaves set by variables like ``SEMPRIOR__SCAM__SCALE=0.3``.

    Raises:
        UserError: a value that is not YAML.
    """
    found: dict[str, Any] = {}
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX):
            found[_key_of(name)] = parse_value(
                environment[name], f"environment: {shown_key(name)}={shown_key(environment[name])}"
            )
    return found


def _key_of(variable: str) -> str:
    return variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")


def variable_of(key: str) -> str:
    """The variable that sets the leaf `key`."""
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


@dataclass(frozen=True)
class Resolved:
    """A config, and the keys that the user has set rather than a preset or a default."""

    config: Config
    chosen: frozenset[str]


def resolve(
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Resolved:
    """Build the config of a run from its sources. Precedence: flags, environment, file, preset.

    Args:
        preset: name of a preset; None takes the one that flags, environment or file name, else ``standard``.
        file: YAML file of leaves.
        flags: leaves set on the command line.
        environment: variables of the process.

    Raises:
        UserError: a key is unknown, a value does not fit, or the file cannot be read.
    """
    sources: list[tuple[str, Mapping[str, Any]]] = []
    if file is not None:
        sources.append((str(file), read_leaves(file)))
    sources.append(("environment", environment_leaves(environment)))
    sources.append(("--set", flags or {}))
    chosen: dict[str, Any] = {}
    for source, given in sources:
        # Leaves are checked here for errors that name their source; rules between leaves are checked at the end.
        for key, value in given.items():
            check_leaf(key, value, source)
        chosen |= given
    name = preset or str(chosen.get("preset", "standard"))
    config = unflatten({**preset_leaves(name), **chosen, "preset": name})
    if config.labels.seed == "masks" and config.labels.refine != "none":
        raise UserError(
            f"labels.refine={config.labels.refine} would replace the true masks of labels.seed=masks;"
            " set labels.refine=none"
        )
    return Resolved(config, frozenset(chosen) - {"preset"})
