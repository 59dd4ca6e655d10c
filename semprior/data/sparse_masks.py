"""Masks that are zero nearly everywhere, packed into five bytes per non-zero pixel.

Every image of a run has a pseudo-mask, of which targets cover some ten pixels. Packed, the masks of 20,000 images take
a few megabytes instead of more than a gigabyte, and unpacking one costs little more than filling it with zeros::

    masks = SparseMasks.pack(seeds)
    masks[3]                                   # a new (H,W) array, equal to seeds[3]
    masks.packed[3] = pack_mask(evolved)

Code that packs many masks between forward passes should use a `Packer`. A small array that outlives the passes would be
allocated inside the memory that an activation has freed, which is then too small for the next activation: with 20,000
images the heap grew by gigabytes per epoch, most of them free.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import overload

import numpy as np

Shape = tuple[int, ...]
_POSITION = np.dtype("<u4")
_BLOCK = 1 << 20  # bytes
_BYTES = _POSITION.itemsize + 1  # of a pixel: its position in row-major order, and its value


def pack_mask(mask: np.ndarray) -> np.ndarray:
    """Pack a mask (H,W), uint8 or bool, into (N,) uint8: the positions of its non-zero pixels, then their values.

    A mask that would grow when packed is stored unpacked.
    """
    flat = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)
    positions = np.flatnonzero(flat != 0)
    if _BYTES * positions.size >= flat.size:
        return flat.copy()
    return np.concatenate([positions.astype(_POSITION).view(np.uint8), flat[positions]])


def unpack_mask(packed: np.ndarray, shape: Shape) -> np.ndarray:
    """Unpack the result of `pack_mask` into a new array (H,W) uint8."""
    size = math.prod(shape)
    if packed.size == size:
        return packed.reshape(shape).copy()
    flat = np.zeros(size, np.uint8)
    values = packed.size // _BYTES * _POSITION.itemsize
    flat[packed[:values].view(_POSITION)] = packed[values:]
    return flat.reshape(shape)


class Packer:
    """Packs masks into blocks of a megabyte that many masks share; a block is freed with the last of them."""

    def __init__(self) -> None:
        self._block, self._used = np.empty(0, np.uint8), 0

    def __call__(self, mask: np.ndarray) -> np.ndarray:
        """Pack a mask, see `pack_mask`."""
        packed = pack_mask(mask)
        if packed.size > self._block.size - self._used:
            self._block, self._used = np.empty(max(_BLOCK, packed.size), np.uint8), 0
        target = self._block[self._used : self._used + packed.size]
        target[:] = packed
        self._used += packed.size
        return target


class SparseMasks(Sequence[np.ndarray]):
    """A sequence of masks that are unpacked when they are read.

    Args:
        shapes: (H,W) of each mask.
        packed: each mask as packed by `pack_mask`; items may be replaced.
        dtype: of the masks, uint8 or bool.
    """

    def __init__(self, shapes: Sequence[Shape], packed: Sequence[np.ndarray], dtype: type = np.uint8) -> None:
        self.shapes = list(shapes)
        self.packed = list(packed)
        self.dtype = dtype

    @classmethod
    def pack(cls, masks: Iterable[np.ndarray], dtype: type = np.uint8) -> SparseMasks:
        """Pack masks, one at a time."""
        pack = Packer()
        pairs = [(mask.shape, pack(mask)) for mask in masks]
        return cls([shape for shape, _ in pairs], [packed for _, packed in pairs], dtype)

    @classmethod
    def restore(
        cls, arrays: Mapping[str, np.ndarray], name: str, shapes: Sequence[Shape], dtype: type = np.uint8
    ) -> SparseMasks:
        """The masks that `stored` returned under a name."""
        ends = np.cumsum(arrays[f"{name}.sizes"])
        packed = np.split(arrays[f"{name}.packed"], ends[:-1])
        return cls(shapes, packed if len(ends) else [], dtype)

    def stored(self, name: str) -> dict[str, np.ndarray]:
        """All masks in two arrays: ``NAME.packed``, the masks end to end, and ``NAME.sizes``, the bytes of each."""
        sizes = np.array([packed.size for packed in self.packed], np.int64)
        return {f"{name}.packed": np.concatenate([np.zeros(0, np.uint8), *self.packed]), f"{name}.sizes": sizes}

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> SparseMasks: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | SparseMasks:
        if isinstance(index, slice):
            return SparseMasks(self.shapes[index], self.packed[index], self.dtype)
        return unpack_mask(self.packed[index], self.shapes[index]).view(self.dtype)
