"""Targets pasted into crops: what is cut out, where it lands, and what it leaves alone."""

import cv2
import numpy as np
import pytest
import torch

from semprior.config.schema import DataConfig
from semprior.data.batches import Normalisation, Pool, draw_batch
from semprior.data.layout import Scene
from semprior.data.paste import GAP, REACH, Patch, cut_target, paste

BLOB = np.array([[0, 60, 60], [90, 120, 60], [0, 60, 0]], np.float32)


def image_with_target(row=40, column=50, level=70, size=(100, 120)):
    """A flat image with one target, and its pseudo-mask."""
    image, mask = np.full(size, level, np.uint8), np.zeros(size, np.uint8)
    image[row : row + 3, column : column + 3] += BLOB.astype(np.uint8)
    mask[row : row + 3, column : column + 3] = np.where(BLOB > 0, 200, 0)
    return image, mask


def cut(seed=0, **where):
    patch = cut_target(*image_with_target(**where), np.random.default_rng(seed))
    assert patch is not None
    return patch


def test_a_patch_is_the_target_less_the_level_around_it():
    patch = cut()
    rows, columns = np.nonzero(patch.target)
    inside = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    assert np.array_equal(patch.target[inside], BLOB > 0) and patch.target.sum() == (BLOB > 0).sum()
    assert np.allclose(patch.excess[inside], BLOB)
    assert not patch.excess[[0, -1]].any() and not patch.excess[:, [0, -1]].any()


def test_a_target_beside_another_is_not_cut_since_its_neighbour_would_come_along():
    image, mask = image_with_target()
    image[36:39, 44:60], mask[36:39, 44:60] = 250, 255
    assert all(cut_target(image, mask, np.random.default_rng(seed)) is None for seed in range(30))


def test_a_point_around_which_nothing_was_found_is_not_cut():
    image, mask = image_with_target()
    mask[:] = 0
    mask[41, 51] = 255
    assert cut_target(image, mask, np.random.default_rng(0)) is None


@pytest.mark.parametrize("where", [(2, 50), (96, 50), (40, 1), (40, 116)])
def test_a_target_at_the_border_of_its_image_is_not_cut(where):
    assert cut_target(*image_with_target(*where), np.random.default_rng(0)) is None


def test_nor_is_one_that_is_too_large_nor_what_is_not_there():
    image, mask = image_with_target()
    assert cut_target(image, np.zeros_like(mask), np.random.default_rng(0)) is None
    mask[20:22, 20 : 20 + 2 * REACH] = 255
    pixels = np.flatnonzero(mask[20:22] >= 128)
    assert pixels.size > 50  # most draws take the long one
    found = [cut_target(image, mask, np.random.default_rng(seed)) for seed in range(20)]
    assert any(patch is None for patch in found)
    assert all(patch is None or patch.target.sum() == (BLOB > 0).sum() for patch in found)


def test_a_pasted_target_adds_its_pixels_and_leaves_all_others_alone():
    patch, rng = cut(), np.random.default_rng(0)
    turns, places = set(), set()
    for _ in range(200):
        image = rng.integers(60, 64, (64, 64)).astype(np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        mask[30:34, 30:34] = 1
        before, mask_before = image.copy(), mask.copy()
        found = paste(image, mask, (64, 64), patch, rng)
        assert found is not None and np.array_equal(image, before) and np.array_equal(mask, mask_before)
        pasted, target = found
        added = (target > 0) & (mask == 0)
        assert target.dtype == np.uint8 and set(np.unique(target)) == {0, 1}
        assert np.array_equal(target[mask > 0], mask[mask > 0]) and added.sum() == (BLOB > 0).sum()
        rows, columns = np.nonzero(added)
        far = np.ones((64, 64), bool)
        far[max(rows.min() - 5, 0) : rows.max() + 6, max(columns.min() - 5, 0) : columns.max() + 6] = False
        assert np.array_equal(pasted[far], before[far])
        gained = (pasted.astype(float) - before)[added]
        factor = gained.sum() / BLOB.sum()
        assert 0.45 < factor < 1.25 and abs(np.sort(gained) - factor * np.sort(BLOB[BLOB > 0])).max() < 2
        turns.add(added[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].tobytes())
        places.add((rows.min(), columns.min()))
        assert not (cv2.dilate(mask, np.ones((3, 3), np.uint8), iterations=GAP // 2) * added).any()
    assert len(turns) > 3 and len(places) > 100


def test_a_target_is_pasted_only_where_it_is_seen():
    patch, rng, mask = cut(), np.random.default_rng(0), np.zeros((64, 64), np.uint8)
    assert paste(np.full((64, 64), 255, np.uint8), mask, (64, 64), patch, rng) is None  # white on white
    assert (
        paste(rng.integers(0, 2, (64, 64)).astype(np.uint8) * 255, mask, (64, 64), patch, rng) is None
    )  # in strong noise
    assert (
        paste(np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), (8, 8), patch, rng) is None
    )  # larger than the crop
    half = np.full((64, 64), 255, np.uint8)
    half[:, :40] = 80
    found = [paste(half, mask, (64, 64), patch, rng) for _ in range(20)]
    assert any(found) and all(one is None or not one[1][:, 40:].any() for one in found)


def test_no_target_lies_in_the_padding_of_a_crop():
    patch, rng = cut(), np.random.default_rng(0)
    image, mask = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    image[:40, :50] = 80
    found = [paste(image, mask, (40, 50), patch, rng) for _ in range(60)]
    assert all(one is not None and not one[1][40:].any() and not one[1][:, 50:].any() for one in found)
    assert paste(image, mask, (5, 50), patch, rng) is None


def test_a_target_too_faint_to_see_is_not_pasted():
    patch = cut()
    faint = Patch(patch.excess * 0.01, patch.target)
    mask = np.zeros((64, 64), np.uint8)
    assert paste(np.full((64, 64), 80, np.uint8), mask, (64, 64), faint, np.random.default_rng(0)) is None


def test_a_dark_target_stays_dark():
    image, mask = image_with_target(level=200)
    image[mask > 0] = 120
    patch = cut_target(image, mask, np.random.default_rng(0))
    pasted, target = paste(
        np.full((64, 64), 150, np.uint8), np.zeros((64, 64), np.uint8), (64, 64), patch, np.random.default_rng(0)
    )
    assert (pasted[target > 0] < 120).all() and (pasted <= 150).all()


class _Images(list):
    """Scenes of which only some may be looked at."""

    def __init__(self, scenes, allowed):
        super().__init__(scenes)
        self.allowed = allowed

    def __getitem__(self, index):
        assert index in self.allowed, "an image outside the batch was read"
        return super().__getitem__(index)


def _batch(share, indices, seed=0):
    pairs = [image_with_target(row, 50, size=(100, 120)) for row in (20, 40, 60, 70)]
    scenes = [Scene(str(i), image, np.zeros((0, 2), np.int64), None) for i, (image, _) in enumerate(pairs)]
    pool = Pool(_Images(scenes, indices), [mask for _, mask in pairs], np.zeros(4, np.int64))
    config = DataConfig(crop=96, augment=0.0, target_crops=0.0, pad_crops=False, pasted_crops=share)
    device, rng = torch.device("cpu"), np.random.default_rng(seed)
    return draw_batch(pool, indices, config, Normalisation(0.0, 1.0), lambda *a: [a[-1]], device, rng)


def test_crops_take_targets_from_images_of_their_own_batch():
    """So nothing of the images held out is ever seen, whatever the pool has."""
    pixels = int((BLOB > 0).sum())
    counts = np.array([_batch(0.5, [0, 2, 3], seed).masks.sum((1, 2, 3)).numpy() for seed in range(40)])
    assert set(np.unique(counts)) == {pixels, 2 * pixels}
    assert 0.35 < (counts == 2 * pixels).mean() < 0.65


def test_features_are_those_of_the_crop_without_it():
    plain, pasted = _batch(0.0, [0, 1], 3), _batch(1.0, [0, 1], 3)
    assert torch.equal(plain.maps[0], pasted.maps[0])
    assert not torch.equal(plain.images, pasted.images)
