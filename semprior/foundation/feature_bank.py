"""The feature bank: the frozen model's maps of whole images, computed once, cropped on the token grid.

The frozen model never trains, so its features of an image never change. They are computed once per image, stored in
half precision in a memory-mapped file under a hash of model and image, and cut at the nearest token for every crop.
This is an approximation: a token depends on the whole image instead of the crop alone, the crop's offset is rounded to
the token grid (by up to 8 pixels), and the features of black images stand in beyond the image. `python -m
benchmarks.bank` measures its effect.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semprior.foundation.feature_file import Entry, FeatureStore, view
from semprior.foundation.vfm import STRIDE, VFM

_PAD = 32  # whole images are padded to a multiple of this
_BLACK = "black"  # name of the token of a black image in the file
_BLACK_SIDE = 256
_FLUSH = 32 << 20  # bytes that are collected before they are written
_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


class FeatureBank:
    """Features of a list of images; `build` makes one.

    Attributes:
        forwards: number of images, and of crops of images beyond the budget, that the model was run on.
        overflow: indices of the images that exceed the budget.

    Example:
        >>> bank = FeatureBank.build(folder, vfm, images, budget_gb=8.0)    # doctest: +SKIP
        >>> maps = bank.crop([0, 3], rows=[0, 40], cols=[16, 2], size=256)  # doctest: +SKIP
        >>> [m.shape for m in maps][:1]                                     # doctest: +SKIP
        [torch.Size([2, 16, 16, 16])]
    """

    def __init__(
        self,
        vfm: VFM,
        images: Sequence[np.ndarray],
        entries: Sequence[Entry | None],
        black: Entry,
        data: np.ndarray,
        *,
        budget_gb: float,
        forwards: int,
        saturated: int,
        device: torch.device,
    ) -> None:
        self.forwards = self._computed = forwards
        self.overflow = tuple(i for i, entry in enumerate(entries) if entry is None)
        self._vfm = vfm
        self._images = images
        self._features = [None if entry is None else view(data, entry) for entry in entries]
        self._bytes = sum({entry.name: entry.size for entry in entries if entry is not None}.values())
        self._black = np.array(view(data, black)).reshape(-1)
        self._budget_gb = budget_gb
        self._saturated = saturated
        self._device = device

    @classmethod
    def build(
        cls,
        folder: Path,
        vfm: VFM,
        images: Sequence[np.ndarray],
        budget_gb: float = 8.0,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> "FeatureBank":
        """Open the bank of `images` under `folder`, and compute the features that it lacks.

        The model runs on one image at a time, padded at the right and bottom with grey 0 to a multiple of 32, so that
        the features of an image depend on nothing else. Processes that build at the same time take turns, and the
        second finds the features that the first computed. Images are taken in order while they fit into the budget.

        Args:
            folder: cache; each model gets a folder of its own inside.
            vfm: the frozen model.
            images: uint8 (H, W) grey images, of any sizes.
            budget_gb: size limit of the images' features, in 1e9 bytes; the rest is computed per crop.
            device: of the maps that `crop` returns.
            progress: called with (images computed, images to compute), for the first time with 0 images.

        Raises:
            UserError: the folder cannot be written, or the disk is full.
        """
        store = FeatureStore(Path(folder) / vfm.key[:32])
        names = [_digest(image) for image in images]
        within_budget = _within(names, images, sum(vfm.map_channels), int(budget_gb * 1e9))
        forwards = saturated = 0
        with store.locked():
            entries, damaged = store.entries([_BLACK, *within_budget])
            if damaged:
                _log.warning("feature bank: %s: %d damaged entries are computed again", store.folder, len(damaged))
            if _BLACK not in entries:
                centre = _BLACK_SIDE // STRIDE // 2
                token, _ = _forward(vfm, np.zeros((_BLACK_SIDE, _BLACK_SIDE), np.uint8))
                entries |= store.append({_BLACK: token[centre : centre + 1, centre : centre + 1]})
            missing = {name: i for name, i in within_budget.items() if name not in entries}
            if progress and missing:
                progress(0, len(missing))
            waiting: dict[str, np.ndarray] = {}
            for name, i in missing.items():
                waiting[name], clipped = _forward(vfm, images[i])
                forwards += 1
                saturated += clipped
                if sum(array.nbytes for array in waiting.values()) >= _FLUSH or forwards == len(missing):
                    entries |= store.append(waiting)
                    waiting = {}
                if progress:
                    progress(forwards, len(missing))
            data = store.open()
        if saturated:
            _log.warning("feature bank: %d values beyond the range of float16 were cut to it", saturated)
        return cls(
            vfm,
            images,
            [entries[name] if name in within_budget else None for name in names],
            entries[_BLACK],
            data,
            budget_gb=budget_gb,
            forwards=forwards,
            saturated=saturated,
            device=torch.device(device),
        )

    def crop(
        self,
        indices: Sequence[int] | Tensor | np.ndarray,
        rows: Sequence[int] | Tensor | np.ndarray,
        cols: Sequence[int] | Tensor | np.ndarray,
        size: int | tuple[int, int],
        dtype: torch.dtype = torch.float16,
    ) -> list[Tensor]:
        """Features of crops, cut at the nearest token: the first one is `floor((offset + 8) / 16)`.

        Args:
            indices: (B,) positions in the list given to `build`.
            rows: (B,) row of each crop's first pixel, 0 or more.
            cols: (B,) column of each crop's first pixel, 0 or more.
            size: sides of the crops in pixels, (rows, columns) or one number for both, multiples of 16; a crop may
                reach beyond its image, where the token in the middle of a black image stands in.
            dtype: of the result; in float16, the stored dtype, the maps are views of one tensor.

        Returns:
            K maps (B, C_k, rows/16, columns/16) on the bank's device; the channels of a token are adjacent in memory.
        """
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) <= 0 or height % STRIDE or width % STRIDE:
            raise ValueError(f"the sides of a crop must be multiples of {STRIDE}, not {size}")
        where = [(int(i), int(r), int(c)) for i, r, c in zip(indices, rows, cols, strict=True)]
        if any(r < 0 or c < 0 for _, r, c in where):
            raise ValueError("a crop begins inside its image: offsets are 0 or more")
        cut = np.empty((len(where), height // STRIDE, width // STRIDE, self._black.size), np.float16)
        for target, (i, r, c) in zip(cut, where, strict=True):
            tokens_of_image = self._features[i]
            if tokens_of_image is not None:
                self._cut(tokens_of_image, r, c, target)
        tokens = torch.from_numpy(cut).to(self._device)  # converted on the device, so that 16 bits are transferred
        maps = [part.to(dtype).permute(0, 3, 1, 2) for part in torch.split(tokens, list(self._vfm.map_channels), dim=3)]
        beyond = [place for place, (i, _, _) in enumerate(where) if self._features[i] is None]
        if beyond:
            crops = np.stack([self._pixels(*where[place], height, width) for place in beyond])
            self.forwards += len(beyond)
            limit = torch.finfo(dtype).max
            for cropped, exact in zip(maps, self._vfm(torch.from_numpy(crops)[:, None].float() / 255), strict=True):
                cropped[beyond] = exact.clamp(-limit, limit).to(cropped)
        return maps

    def _cut(self, features: np.ndarray, row: int, col: int, target: np.ndarray) -> None:
        """Copy the tokens of one crop of an image's features into (rows, cols, C), with black beyond the image."""
        top, left = (row + STRIDE // 2) // STRIDE, (col + STRIDE // 2) // STRIDE
        rows, cols = target.shape[:2]
        part = features[top : top + rows, left : left + cols]
        high, wide = part.shape[:2]
        if high < rows or wide < cols:
            target[:] = self._black
        target[:high, :wide] = part

    def _pixels(self, index: int, row: int, col: int, height: int, width: int) -> np.ndarray:
        """The crop itself (height, width), uint8, grey 0 beyond the image."""
        pixels = np.zeros((height, width), np.uint8)
        part = self._images[index][row : row + height, col : col + width]
        pixels[: part.shape[0], : part.shape[1]] = part
        return pixels

    def describe(self) -> str:
        """One line for the log: numbers of images, bytes, images computed per crop, and values cut to the range."""
        stored = len(self._features) - len(self.overflow)
        text = f"feature bank: {stored} images in {self._bytes / 1e9:.2f} GB of float16 ({self._computed} computed now)"
        if self.overflow:
            text += f"; {len(self.overflow)} beyond vfm.bank_gb={self._budget_gb:g} are computed per crop"
        if self._saturated:
            text += f"; {self._saturated} values cut to the range of float16"
        return text


def _digest(image: np.ndarray) -> str:
    shape = f"{image.shape[0]}x{image.shape[1]}:".encode()
    return hashlib.sha256(shape + np.ascontiguousarray(image, dtype=np.uint8).tobytes()).hexdigest()


def _grid(image: np.ndarray) -> tuple[int, int]:
    rows, cols = (-(-side // _PAD) * (_PAD // STRIDE) for side in image.shape)
    return rows, cols


def _within(names: Sequence[str], images: Sequence[np.ndarray], channels: int, budget: int) -> dict[str, int]:
    """Index by digest of the images whose features fit into `budget` bytes, taken in order."""
    chosen: dict[str, int] = {}
    used = 0
    for i, (name, image) in enumerate(zip(names, images, strict=True)):
        rows, cols = _grid(image)
        size = rows * cols * channels * 2
        if name not in chosen and used + size <= budget:
            chosen[name] = i
            used += size
    return chosen


def _forward(vfm: VFM, image: np.ndarray) -> tuple[np.ndarray, int]:
    """Tokens (rows, cols, sum of C_k) in float16 of one padded image, and how many values were cut to the range."""
    rows, cols = _grid(image)
    padded = np.zeros((1, 1, rows * STRIDE, cols * STRIDE), np.uint8)
    padded[0, 0, : image.shape[0], : image.shape[1]] = image
    tokens = torch.cat([m[0] for m in vfm(torch.from_numpy(padded).float() / 255)]).permute(1, 2, 0)
    limit = torch.finfo(torch.float16).max
    clipped = int((tokens.abs() > limit).sum())
    return tokens.clamp(-limit, limit).half().contiguous().cpu().numpy(), clipped
