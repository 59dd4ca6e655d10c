"""The frozen vision foundation model: any timm ViT, or any timm CNN that gives features (method, section 2).

A `VFM` is a plain object around a network in eval mode. It is no `nn.Module`, so it cannot slip into a teacher's
parameters, an optimiser or a checkpoint by being assigned as an attribute.
"""

import difflib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semprior.errors import UserError, depends_on
from semprior.models.vfm_weights import StateDict, _one_line, find_weights, rename_efficientnet_lite

STRIDE = 16
"""Pixels per token of every map, in rows and in columns."""

_PROBES = ((80, 400), (336, 112))
"""Rows and columns of the images that tell whether a network takes any size: wide and high, odd numbers of tokens."""
_CHOOSE = "choose a ViT like vit_small_plus_patch16_dinov3 or a CNN like tf_efficientnet_lite2"

_KEY_VERSION = 1  # of what is computed from an image; raised when the same weights come to give other maps


class VFM:
    """A frozen network that turns a grey image into `K` maps at stride 16.

    A ViT gives the tokens that enter its first block (for DINOv3, whose positions are rotary, the patch embedding
    alone; otherwise with the absolute position embedding added) and the output of every block, raw, only the last one
    after the final norm; class and register tokens are dropped. A CNN gives its stages, raw, area-averaged or
    bilinearly enlarged to stride 16.

    A ViT with another patch size `p` than 16 keeps the token grid in step with the crop's: if `p` divides 16 the maps
    are area-averaged, otherwise the **input** is resized bilinearly by `p/16`, so that one token covers 16x16 pixels.

    Attributes:
        name: timm's model name.
        kind: `"vit"` or `"cnn"`.
        map_channels: channels of each map, shallow to deep.
        width_needed: whether the maps differ in width and need a learned projection each (a CNN's do).
        random: whether the weights are random, which every report must say.
        source: where the weights came from: `"hub"`, `"offline"`, `"random"` or a path.
        key: SHA-256 in hex over name, preprocessing and the content of the weights; two VFMs with equal keys give
            equal maps. It does not depend on timm's version.
        device: where it runs.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        kind: Literal["vit", "cnn"],
        mean: Sequence[float],
        std: Sequence[float],
        source: str,
        device: torch.device | str = "cpu",
    ) -> None:
        self.name = name
        self.kind = kind
        self.source = source
        self.random = source == "random"
        self.width_needed = kind == "cnn"
        self.device = torch.device(device)
        self.key = _content_key(name, mean, std, network.state_dict())
        self._network = network.requires_grad_(False).eval().to(self.device)
        self._mean = torch.tensor(mean, dtype=torch.float32, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32, device=self.device).view(1, 3, 1, 1)
        self.map_channels = _probed(self._network, kind, self.device)

    def __repr__(self) -> str:
        return f"VFM({self.name}, {self.kind}, {self.source}, maps {self.map_channels}, key {self.key[:12]})"

    @torch.no_grad()
    def __call__(self, grey: Tensor) -> list[Tensor]:
        """Maps of a batch, always in float32 (an autocast around the call is switched off) and without gradients.

        Args:
            grey: (B, 1, H, W) or (B, 3, H, W) in 0..1, not normalised; H and W multiples of 16. Moved to `device`.

        Returns:
            K float32 maps (B, C_k, H/16, W/16) on `device`.
        """
        if grey.ndim != 4 or grey.shape[1] not in (1, 3) or grey.shape[2] % STRIDE or grey.shape[3] % STRIDE:
            raise ValueError(f"a batch (B, 1 or 3, H, W) with sides in multiples of 16 is needed, not {grey.shape}")
        with torch.autocast(self.device.type, enabled=False):
            return _maps(self._network, self.kind, (grey.to(self.device, torch.float32) - self._mean) / self._std)


@depends_on("vfm.name", "vfm.weights")
def load_vfm(name: str, weights: str = "auto", device: torch.device | str = "cpu") -> VFM:
    """Make the VFM `name` with the weights asked for.

    Args:
        name: a timm ViT (`vit_small_plus_patch16_dinov3`) or CNN (`tf_efficientnet_lite2`), with or without a tag.
        weights: `"auto"` (the hub if it can be reached, else the package of the extra `[offline]`), `"hub"`,
            `"offline"`, `"random"` (always the same random weights) or the path of a `.safetensors` or `.pth` file,
            which must fit key by key; only the classifier, which is not used, may be missing.
        device: where it runs.

    Raises:
        UserError: unknown or unsuitable name, weights that cannot be had (with the three ways out) or do not fit.
    """
    import timm  # seconds: only where a VFM is used

    _check_name(name)
    with torch.random.fork_rng(devices=[]):  # the same random weights everywhere, and no draw from the caller's state
        torch.manual_seed(0)
        plain, network, kind = _runnable(name)
        found, source = (None, "random") if weights == "random" else find_weights(name, weights)
        if found is not None:
            network = _filled(name, plain, found, source)
            if kind == "cnn":
                overlay = {"state_dict": network.state_dict()}
                with _quiet("timm.models._builder"):  # which would warn of the classifier that is left out
                    network = timm.create_model(
                        name, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True
                    )
    cfg = plain.pretrained_cfg
    return VFM(network, name=name, kind=kind, mean=cfg["mean"], std=cfg["std"], source=source, device=device)


def _runnable(name: str) -> tuple[nn.Module, nn.Module, Literal["vit", "cnn"]]:
    """The whole network and what of it gives maps, with random weights, after it has run on images of two shapes.

    Raises:
        UserError: it gives no maps, or not of any size, which is known before weights are looked for.
    """
    import timm

    try:
        plain = _create(name)
        kind: Literal["vit", "cnn"] = "vit" if _is_vit(plain) else "cnn"
        network = plain if kind == "vit" else timm.create_model(name, features_only=True)
    except Exception as error:  # each kind of network has its own way to say that it cannot
        raise UserError(
            f"vfm.name: {name}: is neither a ViT nor does it give features ({_one_line(error)}); {_CHOOSE}"
        ) from error
    try:
        _probed(network.eval(), kind, torch.device("cpu"))
    except Exception as error:
        raise UserError(
            f"vfm.name: {name}: cannot be run on images of any size ({_one_line(error)}); {_CHOOSE}"
        ) from error
    return plain, network, kind


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    chatty = logging.getLogger(logger)
    before = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        yield
    finally:
        chatty.setLevel(before)


class _UnfitMaps(Exception):
    """The network's outputs are not maps (B, C, h, w) with the image's proportions."""


def _check_name(name: str) -> None:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=1, cutoff=0.0)
        raise UserError(f"vfm.name: {name}: timm has no such model; did you mean {near[0]}?")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = ", ".join(m.partition(".")[2] for m in timm.list_pretrained(name.split(".")[0])) or "none"
        raise UserError(f"vfm.name: {name}: timm has no such weight tag; it has: {tags}") from error


def _create(name: str, **options: object) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError as error:  # networks that take any size as they are do not know the option
        if "dynamic_img_size" not in str(error):
            raise
        return timm.create_model(name, **options)


def _filled(name: str, plain: nn.Module, weights: StateDict, source: str) -> nn.Module:
    """The whole network, `weights` loaded strictly after timm's own conversion of foreign key names."""
    weights = dict(weights)
    if "_conv_stem.weight" in weights and hasattr(plain, "blocks"):
        weights = rename_efficientnet_lite(weights, plain)
    classifier = plain.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    for key, value in plain.state_dict().items():
        if heads and key.startswith(heads):
            weights.setdefault(key, value)
    try:
        return _create(name, pretrained=True, pretrained_cfg_overlay={"state_dict": weights})
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(f"vfm.weights: {source}: does not fit {name}: {_one_line(error)}") from error


def _is_vit(network: nn.Module) -> bool:
    wanted = ("blocks", "patch_embed", "norm", "num_prefix_tokens", "forward_intermediates")
    return all(hasattr(network, part) for part in wanted) and hasattr(network.patch_embed, "patch_size")


@torch.no_grad()
def _probed(network: nn.Module, kind: Literal["vit", "cnn"], device: torch.device) -> tuple[int, ...]:
    """Channels of each map, from images of two shapes.

    Raises:
        Exception: of the network; `_UnfitMaps` if its outputs are no maps of such images.
    """
    with torch.autocast(device.type, enabled=False):
        images = (torch.zeros(1, 3, *size, device=device) for size in _PROBES)
        wide, high = (tuple(m.shape[1] for m in _maps(network, kind, image)) for image in images)
    if not wide or wide != high:
        raise _UnfitMaps(f"maps of {list(wide)} channels for a wide image, of {list(high)} for a high one")
    return wide


def _maps(network: nn.Module, kind: Literal["vit", "cnn"], pixels: Tensor) -> list[Tensor]:
    """Maps at stride 16 of normalised images (B, 3, H, W)."""
    grid = (pixels.shape[2] // STRIDE, pixels.shape[3] // STRIDE)
    maps = _vit_maps(network, pixels, grid) if kind == "vit" else network(pixels)
    return [_to_grid(m.float(), grid) for m in maps]


def _vit_maps(network: nn.Module, pixels: Tensor, grid: tuple[int, int]) -> list[Tensor]:
    """The tokens entering block 0, then every block's output, the last one after the final norm."""
    side = network.patch_embed.patch_size
    patch = (side, side) if isinstance(side, int) else side
    if any(STRIDE % side for side in patch):
        size = (grid[0] * patch[0], grid[1] * patch[1])
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
    rows, cols = pixels.shape[2] // patch[0], pixels.shape[3] // patch[1]
    entering: list[Tensor] = []
    hook = network.blocks[0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0]))
    try:
        last, outputs = network.forward_intermediates(pixels, output_fmt="NLC")
    finally:
        hook.remove()
    prefix = network.num_prefix_tokens
    tokens = [entering[0][:, prefix:], *outputs[:-1], last[:, prefix:]]
    if any(t.shape[1] != rows * cols for t in tokens):  # a hybrid: its patches are cells of a CNN, not of the image
        raise _UnfitMaps(f"{tokens[0].shape[1]} tokens are given where {rows}x{cols} patches are")
    return [t.transpose(1, 2).unflatten(2, (rows, cols)) for t in tokens]


def _to_grid(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resample a map (B, C, h, w) to `grid`: area average when it shrinks, bilinear when it grows."""
    if features.ndim != 4:
        raise _UnfitMaps(f"a map has shape {tuple(features.shape)}")
    rows, cols = features.shape[2:]
    if rows * grid[1] > 2 * cols * grid[0] or cols * grid[0] > 2 * rows * grid[1]:
        raise _UnfitMaps(f"a map of {rows}x{cols} is given for a grid of {grid[0]}x{grid[1]}")
    if (rows, cols) == grid:
        return features
    if rows >= grid[0] and cols >= grid[1]:
        return F.interpolate(features, grid, mode="area")
    return F.interpolate(features, grid, mode="bilinear", align_corners=False)


def _content_key(name: str, mean: Sequence[float], std: Sequence[float], weights: StateDict) -> str:
    digest = hashlib.sha256()
    digest.update(repr((_KEY_VERSION, name, [float(m) for m in mean], [float(s) for s in std])).encode())
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
