"""Packed masks are unpacked to the same bits."""

import numpy as np
import pytest

from semprior.data.sparse_masks import Packer, SparseMasks, pack_mask, unpack_mask

RNG = np.random.default_rng(0)


def soft(share, shape=(40, 50)):
    return np.where(RNG.random(shape) < share, RNG.integers(1, 256, shape), 0).astype(np.uint8)


@pytest.mark.parametrize("share", [0, 0.001, 0.19, 0.2, 0.21, 0.9, 1])
def test_a_mask_survives_the_round_trip_and_never_grows(share):
    mask = soft(share)
    packed = pack_mask(mask)
    restored = unpack_mask(packed, mask.shape)
    assert np.array_equal(restored, mask) and restored.dtype == np.uint8 and restored.flags.writeable
    assert packed.size == min(5 * np.count_nonzero(mask), mask.size)
    restored[:] = 7
    assert np.array_equal(unpack_mask(packed, mask.shape), mask)


@pytest.mark.parametrize("shape", [(1, 1), (0, 3), (1, 4), (5, 1)])
@pytest.mark.parametrize("value", [0, 1, 255])
def test_tiny_masks(shape, value):
    mask = np.full(shape, value, np.uint8)
    assert np.array_equal(unpack_mask(pack_mask(mask), shape), mask)


def test_a_part_of_a_larger_array_is_packed():
    wide = soft(0.05, (60, 60))[5:30, 7:40]
    assert np.array_equal(unpack_mask(pack_mask(wide), wide.shape), wide)


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_masks_are_read_replaced_stored_and_restored(dtype):
    masks = [soft(share, (20 + k, 30)).astype(dtype) for k, share in enumerate((0, 0.05, 0.5, 0, 0.01))]
    masks_packed = SparseMasks.pack(iter(masks), dtype)
    masks[1] = soft(0.02, (21, 30)).astype(dtype)
    masks_packed.packed[1] = pack_mask(masks[1])
    restored = SparseMasks.restore(masks_packed.stored("name"), "name", masks_packed.shapes, dtype)
    for found in (masks_packed, restored):
        assert len(found) == 5 and all(mask.dtype == dtype for mask in found)
        assert all(np.array_equal(a, b) for a, b in zip(found, masks, strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(found[1:3], masks[1:3], strict=True))


def test_no_masks():
    none = SparseMasks([], [])
    assert len(SparseMasks.restore(none.stored("name"), "name", [])) == 0


def test_a_packer_puts_many_masks_into_few_blocks():
    """Separate small arrays, allocated between forward passes, would fragment the heap."""
    rng = np.random.default_rng(0)
    masks = [(rng.random((64, 64)) < 0.02).astype(np.uint8) * 255 for _ in range(3000)]
    pack = Packer()
    packed = [pack(mask) for mask in masks]
    assert len({id(one.base) for one in packed}) <= 1 + sum(one.size for one in packed) // (1 << 20) + 1
    assert all(np.array_equal(one, pack_mask(mask)) for one, mask in zip(packed, masks, strict=True))
    large = pack(np.ones((2048, 2048), np.uint8))  # larger than a block
    assert large.size == 2048 * 2048
    masks_packed = SparseMasks.pack(masks)
    assert len({id(one.base) for one in masks_packed.packed}) < 10
    assert all(np.array_equal(masks_packed[i], mask) for i, mask in enumerate(masks))
