"""Pools of images with their pseudo-masks, and the batches of crops drawn from them (method, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from semprior.config.schema import DataConfig
from semprior.data.augment import augment
from semprior.data.layout import Scene
from semprior.runtime.distributed import shard

FeatureCrops = Callable[[np.ndarray, np.ndarray, np.ndarray, int, Tensor], list[Tensor]]
"""Computes features of crops: (image indices, rows, columns, side in pixels, grey crops (B,1,S,S) uint8) -> K maps."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the grey levels, both / 255 (method, notation)."""

    mean: float
    std: float


@dataclass(frozen=True)
class Batch:
    """The crops of one training step.

    Attributes:
        images: (B,3,H,W) float32, normalised.
        masks: (B,1,H,W) float32 of 0 and 1, pseudo-masks.
        maps: K feature maps of the VFM, (B,C_k,H/16,W/16) each.
        clusters: (B,) int64.
        bare: (B,) bool, the samples that an inner step trains without modulation; None stands for no sample.
    """

    images: Tensor
    masks: Tensor
    maps: list[Tensor]
    clusters: Tensor
    bare: Tensor | None = None


@dataclass
class Pool:
    """Images that crops are drawn from, with the state of their labels.

    Attributes:
        scenes: all images, of training and validation; indices of images refer to this sequence.
        soft: the soft pseudo-mask of each image, (H,W) uint8; target pixels have a value of at least 128.
        clusters: (n,) int64, the cluster of each image.
        hard: the false alarms of each image, (H,W) bool, on which `data.hard_crops` are placed; None for no such crops.
    """

    scenes: Sequence[Scene]
    soft: Sequence[np.ndarray]
    clusters: np.ndarray
    hard: Sequence[np.ndarray] | None = None


def epoch_batches(members: Sequence[int], size: int, rng: np.random.Generator) -> list[list[int]]:
    """Shuffle `members` and cut them into full batches; an incomplete last batch is dropped."""
    order = [members[i] for i in rng.permutation(len(members))]
    return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


def draw_batch(
    pool: Pool,
    indices: Sequence[int],
    config: DataConfig,
    normalisation: Normalisation,
    features: FeatureCrops,
    device: torch.device,
    rng: np.random.Generator,
    drop: float = 0.0,
    truncate: bool = False,
) -> Batch:
    """Draw one augmented crop of each image in this worker's share of `indices`.

    Each sample has its own generator, seeded in the order of the global batch, so that W workers see the same crops as
    one worker.

    Args:
        pool: the images and their pseudo-masks.
        indices: of the images in the global batch.
        config: crop side, shares of crops placed on a target and on a false alarm, probability of augmentation.
        normalisation: of grey levels.
        features: computes the VFM's maps of the crops before augmentation.
        device: of the returned tensors.
        rng: draws one seed per sample.
        drop: probability that a sample is trained without modulation (`scam.drop`).
        truncate: as in `augment`.
    """
    seeds = rng.integers(np.iinfo(np.int64).max, size=len(indices))
    positions = shard(range(len(indices)))
    side = config.crop
    greys = np.empty((len(positions), 1, side, side), np.uint8)
    coloured: dict[int, np.ndarray] = {}  # by slot, the few images whose channels differ
    plain = np.zeros((len(positions), 1, side, side), np.uint8)
    masks = np.empty((len(positions), 1, side, side), np.uint8)
    rows, columns = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
    bare = np.zeros(len(positions), bool)
    for slot, position in enumerate(positions):
        index, sample_rng = indices[position], np.random.default_rng(seeds[position])
        image, mask = pool.scenes[index].image, pool.soft[index]
        hard = None if pool.hard is None else pool.hard[index]
        shares = config.target_crops, config.hard_crops
        row, column = crop_corner(mask, side, shares, sample_rng, 32 if config.pad_crops else 1, hard)
        rows[slot], columns[slot] = row, column
        plain[slot, 0] = crop(image, row, column, side)
        target = (crop(mask, row, column, side) >= 128).astype(np.uint8)
        image, target = augment(plain[slot, 0], target, config.augment, sample_rng, truncate)
        if image.ndim == 2:
            greys[slot, 0] = image
        else:
            coloured[slot] = image
        masks[slot, 0] = target
        bare[slot] = drop > 0 and sample_rng.random() < drop
    chosen = np.asarray([indices[position] for position in positions])
    images = normalise(torch.from_numpy(greys).to(device), normalisation).expand(-1, 3, -1, -1).contiguous()
    for slot, image in coloured.items():
        images[slot] = normalise(torch.from_numpy(image.transpose(2, 0, 1).copy()).to(device), normalisation)
    grey = torch.from_numpy(plain).to(device)
    return Batch(
        images=images,
        masks=torch.from_numpy(masks).to(device).float(),
        maps=features(chosen, rows, columns, side, grey),
        clusters=torch.from_numpy(pool.clusters[chosen]).to(device),
        bare=torch.from_numpy(bare).to(device) if drop else None,
    )


def crop_corner(
    mask: np.ndarray,
    side: int,
    shares: tuple[float, float],
    rng: np.random.Generator,
    multiple: int = 1,
    hard: np.ndarray | None = None,
) -> tuple[int, int]:
    """Draw the upper left corner (row, column) of a crop.

    Args:
        mask: (H,W) uint8; target pixels have a value of at least 128.
        side: of the crop, in pixels.
        shares: probabilities of a corner whose crop contains a random target pixel, and of one whose crop contains a
            random pixel of `hard`, which has precedence if they add up to more than 1; otherwise it is uniform.
        rng: the source of randomness.
        multiple: the image counts as padded, right and bottom, to a multiple of this. Inference pads to a multiple of
            32; a detector that has never seen the seam takes it for targets.
        hard: (H,W) bool; without any pixel in it, its share falls to 0.
    """
    target_share, hard_share = shares
    alarms = np.zeros(0, np.int64) if hard is None or not hard_share else np.flatnonzero(hard)
    hard_share = hard_share if alarms.size else 0.0
    limits = [max(-(-extent // multiple) * multiple - side, 0) for extent in mask.shape]
    drawn = rng.random()
    low, high = [0, 0], limits
    if drawn < hard_share + target_share and any(limits):
        wanted = alarms if drawn < hard_share else np.flatnonzero(mask >= 128)
        if wanted.size:
            pixel = np.unravel_index(wanted[rng.integers(wanted.size)], mask.shape)
            low = [min(max(int(p) - side + 1, 0), limit) for p, limit in zip(pixel, limits, strict=True)]
            high = [min(int(p), limit) for p, limit in zip(pixel, limits, strict=True)]
    return int(rng.integers(low[0], high[0] + 1)), int(rng.integers(low[1], high[1] + 1))


def crop(image: np.ndarray, row: int, column: int, side: int) -> np.ndarray:
    """The crop (side,side) at a corner; pixels beyond the image are 0."""
    part = image[row : row + side, column : column + side]
    if part.shape == (side, side):
        return part
    whole = np.zeros((side, side), image.dtype)
    whole[: part.shape[0], : part.shape[1]] = part
    return whole


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Normalise grey levels, uint8 -> float32 of the same shape."""
    return images.float().div_(255).sub_(normalisation.mean).div_(normalisation.std)
