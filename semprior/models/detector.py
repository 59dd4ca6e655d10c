"""The base class of detectors, and their registry.

A detector is one file in `semprior.models.detectors`, where it is discovered; no other file lists it:

    @register("tiny", stages=(16, 32), scam_scale=0.3, learning_rate=1e-3)
    class Tiny(Detector):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = Encoder(self.stages)
            ...

        def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]: ...

        def output_layers(self) -> tuple[nn.Conv2d, ...]: ...
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from semprior.errors import UserError


class Detector(nn.Module):
    """A small segmentation network in two parts (method, section 1).

    `encode` runs the module `encoder` and nothing else, once for teacher and student. `decode` is the rest of the
    network. Height and width are multiples of 32.

    A subclass writes `encoder`, `decode` and `output_layers`. It overrides `decode_padded` if it would take padding for
    a part of the image, and `deployed` if it is trained in another form than it is deployed in. Random numbers, as of
    a dropout, come from `semprior.models.dropout`, whose state is among the weights: then a run resumes to the last
    bit, and two workers draw what one would.

    Attributes:
        stages: channels of the feature maps that `encode` returns; set by `register`.
        encoder: maps (B, 3, H, W) to one map a stage; set by the subclass.
    """

    stages: ClassVar[tuple[int, ...]]
    encoder: nn.Module

    def encode(self, x: Tensor) -> list[Tensor]:
        """Normalised float images (B, 3, H, W) to one map (B, C_l, H_l, W_l) per stage."""
        features: list[Tensor] = self.encoder(x)
        return features

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps of all stages to logits (B, 1, h, w), the first of which are the main ones, at full resolution.

        The main logits are the prediction. With deep supervision others follow, of any resolution: all have a task
        loss, and the student's are compared with the teacher's main ones (`semprior.training.losses`).
        """
        raise NotImplementedError

    def decode_padded(self, features: Sequence[Tensor], sizes: Tensor) -> tuple[Tensor, ...]:
        """`decode` for images that are padded on the right and at the bottom, as inference pads them.

        Args:
            features: maps of all stages.
            sizes: (B, 2) or (1, 2) int64, heights and widths of the images in pixels, without the padding.
        """
        del sizes  # convolutions see no more than the edge of the padding
        return self.decode(features)

    def output_layers(self) -> tuple[nn.Conv2d, ...]:
        """The convolutions whose results are the logits of `decode`, in their order."""
        raise NotImplementedError

    def fusion_layer(self) -> nn.Conv2d | None:
        """The one of `output_layers` that makes the main logits out of the others; None if features give them."""
        return None

    def deployed(self) -> Detector:
        """The form of this detector that is deployed: in evaluation the same function, up to rounding.

        It shares no weights with a detector in another form, and may lack what training needs.
        """
        return self

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) to the main logits (B, 1, H, W); `sizes` as in `decode_padded`, None without padding."""
        return self.decode_all(self.encode(x), sizes)[0]

    def decode_all(self, features: Sequence[Tensor], sizes: Tensor | None) -> tuple[Tensor, ...]:
        """`decode`, or `decode_padded` if there are sizes."""
        return self.decode(features) if sizes is None else self.decode_padded(features, sizes)


@dataclass(frozen=True)
class DetectorSpec:
    """A registered detector.

    Attributes:
        name: its name in configurations.
        stages: channels of each stage.
        scam_scale: strength `s` of its modulation (method, section 3) if the configuration sets none.
        learning_rate: learning rate if the configuration sets none.
        build: returns a detector with the published initialisation, drawn from the global random state.
    """

    name: str
    stages: tuple[int, ...]
    scam_scale: float
    learning_rate: float
    build: Callable[[], Detector]


_D = TypeVar("_D", bound=type[Detector])
_SPECS: dict[str, DetectorSpec] = {}


def register(name: str, *, stages: Sequence[int], scam_scale: float, learning_rate: float) -> Callable[[_D], _D]:
    """Class decorator that registers a `Detector` under `name` and sets its `stages`.

    Args:
        name: its name in configurations, lower case.
        stages: channels of each stage, from full resolution down.
        scam_scale: strength of the modulation if the configuration sets none.
        learning_rate: learning rate if the configuration sets none.

    Raises:
        ValueError: another class is registered under this name.
    """

    def enter(cls: _D) -> _D:
        known = _SPECS.get(name)
        if known is not None and (known.build.__module__, known.build.__qualname__) != (
            cls.__module__,
            cls.__qualname__,
        ):
            raise ValueError(f"detector '{name}' is already {known.build.__module__}.{known.build.__qualname__}")
        cls.stages = tuple(stages)
        _SPECS[name] = DetectorSpec(name, cls.stages, scam_scale, learning_rate, cls)
        return cls

    return enter


def _discover() -> None:
    package = importlib.import_module("semprior.models.detectors")
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)


def detector_names() -> tuple[str, ...]:
    """Names of all detectors, sorted."""
    _discover()
    return tuple(sorted(_SPECS))


def detector_spec(name: str) -> DetectorSpec:
    """The detector registered under `name`.

    Raises:
        UserError: there is no such detector; the message suggests the nearest name.
    """
    names = detector_names()
    if name not in _SPECS:
        close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.4)
        hint = f"did you mean '{close[0]}'?" if close else f"choose one of {', '.join(names)}"
        raise UserError(f"detector: unknown detector '{name}'; {hint}")
    return _SPECS[name]


def create_detector(name: str, *, output_bias: float | None = None) -> Detector:
    """A detector with fresh weights, drawn from the global random state.

    Args:
        name: a registered name.
        output_bias: None for the published initialisation. With a number (ours), the output layers get weights from
            N(0, 0.01) and this bias, so that initial probabilities are small everywhere, as targets are rare. A layer
            that fuses other logits begins as their mean: with small weights, it would pass on neither them nor, to
            the layers before them, its gradient, and took dozens of epochs to find its first target.

    Raises:
        UserError: the name is not registered.
    """
    detector = detector_spec(name).build()
    if output_bias is not None:
        for layer in detector.output_layers():
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, output_bias)
        if (fusion := detector.fusion_layer()) is not None:
            fill_with_mean(fusion)
    return detector


@torch.no_grad()
def fill_with_mean(conv: nn.Conv2d) -> None:
    """Make a convolution of odd size the mean of its channels at each pixel."""
    middle = [side // 2 for side in conv.kernel_size]
    conv.weight.zero_()
    conv.weight[:, :, middle[0], middle[1]] = 1 / conv.in_channels
    if conv.bias is not None:
        conv.bias.zero_()


def kaiming_fan_out(weight: Tensor) -> Tensor:
    """Fill a convolution's weight with the published initialisation: Kaiming normal for a ReLU, fan-out."""
    return nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


@torch.no_grad()
def published_init(
    module: nn.Module,
    fill: Callable[[Tensor], object] = kaiming_fan_out,
    kept: tuple[type[nn.Module], ...] = (),
) -> None:
    """Fill the weight of every convolution and linear layer in `module`, biases 0, BatchNorm 1 and 0; in place.

    Source: method, section 1. A detector calls it on the parts that are initialised this way.

    Args:
        module: of the network.
        fill: draws a weight, in place.
        kept: types of modules within which everything keeps PyTorch's initialisation.
    """
    untouched = {part for whole in module.modules() if isinstance(whole, kept) for part in whole.modules()}
    for part in module.modules():
        if part in untouched:
            continue
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
            fill(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
