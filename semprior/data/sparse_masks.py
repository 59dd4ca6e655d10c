"""Masks that are zero nearly everywhere, held in five bytes for each pixel that is not.

Every image of a run has a pseudo-mask, and its targets cover some ten pixels of it. Held so, the masks of 20,000 images
take a few megabytes instead of more than a gigabyte, and reading one costs little more than filling it with zeros::

    masks = SparseMasks.pack(seeds)
    masks[3]                                   # a new (H,W) array, the same to the bit
    masks.packed[3] = pack_mask(evolved)

Who packs many between forward passes does so with a `Packer`. A small array that outlives them is cut out of the memory
that an activation left, which then is too small for the next one, so that a new piece is asked of the system: with
20,000 images the heap grew by gigabytes an epoch, most of it free.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import overload

import numpy as np

Shape = tuple[int, ...]
_PLACE = np.dtype("<u4")
_BLOCK = 1 << 20
_BYTES = _PLACE.itemsize + 1  # a pixel: its place in the image, row by row, and its value


def pack_mask(mask: np.ndarray) -> np.ndarray:
    """A mask (H,W), uint8 or bool, as (N,) uint8: the places of what is not zero, then the values there.

    A mask that is smaller as it is stays so.
    """
    flat = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)
    places = np.flatnonzero(flat != 0)
    if _BYTES * places.size >= flat.size:
        return flat.copy()
    return np.concatenate([places.astype(_PLACE).view(np.uint8), flat[places]])


def unpack_mask(packed: np.ndarray, shape: Shape) -> np.ndarray:
    """The mask that `pack_mask` packed: a new array (H,W) uint8."""
    size = math.prod(shape)
    if packed.size == size:
        return packed.reshape(shape).copy()
    flat = np.zeros(size, np.uint8)
    values = packed.size // _BYTES * _PLACE.itemsize
    flat[packed[:values].view(_PLACE)] = packed[values:]
    return flat.reshape(shape)


class Packer:
    """`pack_mask` into blocks of a megabyte, which many masks share; a block is freed with the last of them."""

    def __init__(self) -> None:
        self._block, self._used = np.empty(0, np.uint8), 0

    def __call__(self, mask: np.ndarray) -> np.ndarray:
        """As `pack_mask`."""
        packed = pack_mask(mask)
        if packed.size > self._block.size - self._used:
            self._block, self._used = np.empty(max(_BLOCK, packed.size), np.uint8), 0
        place = self._block[self._used : self._used + packed.size]
        place[:] = packed
        self._used += packed.size
        return place


class SparseMasks(Sequence[np.ndarray]):
    """A sequence of masks, unpacked as they are read.

    Args:
        shapes: (H,W) of each.
        packed: each by `pack_mask`; an item may be replaced.
        dtype: of the masks: uint8 or bool.
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
        """What `stored` gave under a name."""
        ends = np.cumsum(arrays[f"{name}.sizes"])
        packed = np.split(arrays[f"{name}.packed"], ends[:-1])
        return cls(shapes, packed if len(ends) else [], dtype)

    def stored(self, name: str) -> dict[str, np.ndarray]:
        """All masks in two arrays: ``NAME.packed``, one after the other, and ``NAME.sizes``, the bytes of each."""
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
