"""Batches: crops, padding, placement on targets, full batches only, the same crops for any number of workers."""

import numpy as np
import pytest
import torch

from semprior.config.schema import DataConfig
from semprior.data import batches
from semprior.data.batches import Normalisation, Pool, crop, crop_corner, draw_batch, epoch_batches
from semprior.data.layout import Scene

PLAIN = Normalisation(0.0, 1.0)


def pool(sizes=((70, 90), (120, 100), (40, 200))):
    rng = np.random.default_rng(0)
    scenes, soft = [], []
    for index, size in enumerate(sizes):
        image = rng.integers(1, 256, size).astype(np.uint8)
        mask = np.zeros(size, np.uint8)
        mask[size[0] - 6 : size[0] - 3, size[1] - 9 : size[1] - 5] = 200
        mask[2, 3] = 127
        scenes.append(Scene(f"s{index}", image, np.array([[size[0] - 5, size[1] - 7]]), None))
        soft.append(mask)
    return Pool(scenes, soft, np.array([4, 2, 0]))


def no_features(indices, rows, columns, side, grey):
    return [torch.from_numpy(np.stack([indices, rows, columns], 1)), grey]


def test_an_epoch_visits_each_image_once_in_full_batches():
    members = [3, 5, 8, 9, 11, 12, 40]
    cut_up = epoch_batches(members, 3, np.random.default_rng(0))
    assert [len(batch) for batch in cut_up] == [3, 3]
    flat = [index for batch in cut_up for index in batch]
    assert len(set(flat)) == 6 and set(flat) <= set(members)
    assert epoch_batches(members, 3, np.random.default_rng(1)) != cut_up


def test_crops_are_those_of_the_image_padded_with_black_and_binary_at_128():
    drawn = pool()
    config = DataConfig(crop=64, augment=0.0, target_crops=0.5)
    batch = draw_batch(drawn, [0, 2, 1], config, PLAIN, no_features, torch.device("cpu"), np.random.default_rng(3))
    assert batch.images.shape == (3, 3, 64, 64) and batch.masks.shape == (3, 1, 64, 64)
    assert batch.clusters.tolist() == [4, 0, 2]
    places, grey = batch.maps
    for slot, (index, row, column) in enumerate(places.tolist()):
        image = np.pad(drawn.scenes[index].image, ((0, 64), (0, 64)))[row : row + 64, column : column + 64]
        mask = np.pad(drawn.soft[index], ((0, 64), (0, 64)))[row : row + 64, column : column + 64] >= 128
        for channel in batch.images[slot]:
            assert np.allclose(channel.numpy() * 255, image, atol=1e-3)
        assert np.array_equal(batch.masks[slot, 0].numpy(), mask)
        assert np.array_equal(grey[slot, 0].numpy(), image)


def test_features_see_the_crop_before_augmentation():
    config = DataConfig(crop=64, augment=1.0)
    seen = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        batch = draw_batch(pool(), [1], config, PLAIN, no_features, torch.device("cpu"), rng)
        (_, row, column), grey = batch.maps[0][0].tolist(), batch.maps[1]
        plain = crop(pool().scenes[1].image, row, column, 64)
        assert np.array_equal(grey[0, 0].numpy(), plain)
        seen.append(np.allclose(batch.images[0, 0].numpy() * 255, plain, atol=1e-3))
    assert not all(seen)


def test_uniform_corners_cover_all_offsets_and_small_images_start_at_zero():
    rng = np.random.default_rng(0)
    corners = {crop_corner(np.zeros((66, 67), np.uint8), 64, (0.0, 0.0), rng) for _ in range(400)}
    assert corners == {(r, c) for r in range(3) for c in range(4)}
    assert crop_corner(np.zeros((30, 64), np.uint8), 64, (1.0, 0.0), rng) == (0, 0)


def test_target_crops_contain_a_target_pixel():
    rng = np.random.default_rng(0)
    mask = np.zeros((300, 400), np.uint8)
    mask[250, 13] = 255
    corners = [crop_corner(mask, 64, (1.0, 0.0), rng) for _ in range(200)]
    assert all(row <= 250 < row + 64 and column <= 13 < column + 64 for row, column in corners)
    assert len(set(corners)) > 100
    plain = [crop_corner(mask, 64, (0.0, 0.0), rng) for _ in range(200)]
    assert sum(row <= 250 < row + 64 and column <= 13 < column + 64 for row, column in plain) < 40


def test_workers_share_the_crops_that_one_worker_would_draw(monkeypatch):
    config = DataConfig(crop=64)
    indices = [0, 1, 2, 1]

    def draw():
        return draw_batch(pool(), indices, config, PLAIN, no_features, torch.device("cpu"), np.random.default_rng(7))

    whole = draw()
    parts = []
    for rank in range(2):
        monkeypatch.setattr(batches, "shard", lambda items, rank=rank: list(items)[rank * 2 : rank * 2 + 2])
        parts.append(draw())
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.masks for part in parts]), whole.masks)
    assert torch.equal(torch.cat([part.clusters for part in parts]), whole.clusters)


def test_a_share_of_the_samples_is_bare_and_drawing_it_changes_nothing_else():
    indices, config = [0, 1, 2] * 40, DataConfig(crop=64)

    def draw(drop):
        rng = np.random.default_rng(5)
        return draw_batch(pool(), indices, config, PLAIN, no_features, torch.device("cpu"), rng, drop)

    never, sometimes, always = (draw(drop) for drop in (0.0, 0.5, 1.0))
    assert never.bare is None and always.bare.all()
    assert 40 < int(sometimes.bare.sum()) < 80
    assert torch.equal(never.images, sometimes.images) and torch.equal(never.masks, sometimes.masks)


def inside(corners, row, column):
    return np.mean([top <= row < top + 64 and left <= column < left + 64 for top, left in corners])


def test_hard_crops_contain_a_false_alarm_and_are_drawn_only_where_there_is_one():
    rng = np.random.default_rng(0)
    mask, hard = np.zeros((500, 500), np.uint8), np.zeros((500, 500), bool)
    mask[450, 13] = 255
    hard[40, 460] = True
    corners = [crop_corner(mask, 64, (0.25, 0.5), rng, 1, hard) for _ in range(600)]
    assert inside(corners, 40, 460) == pytest.approx(0.5, abs=0.08)
    assert inside(corners, 450, 13) == pytest.approx(0.25, abs=0.08)
    assert inside([crop_corner(mask, 64, (1.0, 0.5), rng, 1, hard) for _ in range(600)], 450, 13) == pytest.approx(
        0.5, abs=0.08
    )
    for none in (None, np.zeros((500, 500), bool)):
        corners = [crop_corner(mask, 64, (0.25, 0.5), np.random.default_rng(1), 1, none) for _ in range(9)]
        assert corners == [crop_corner(mask, 64, (0.25, 0.0), np.random.default_rng(1)) for _ in range(9)]


def test_hard_crops_of_a_batch_are_placed_on_the_alarms_of_their_images():
    drawn = pool(((70, 90), (400, 400), (40, 200)))
    hard = [np.zeros(scene.image.shape, bool) for scene in drawn.scenes]
    hard[1][13, 350] = True
    drawn.hard = hard
    config = DataConfig(crop=64, target_crops=0.0, hard_crops=1.0)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        batch = draw_batch(drawn, [1, 0], config, PLAIN, no_features, torch.device("cpu"), rng)
        _, row, column = batch.maps[0][0].tolist()
        assert row <= 13 < row + 64 and column <= 350 < column + 64
