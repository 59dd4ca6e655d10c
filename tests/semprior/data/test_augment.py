"""Augmentation: image and mask move together, and transforms are drawn with their weights."""

import numpy as np
import pytest

from benchmarks.plain import augment as plain
from semprior.data import augment as module
from semprior.data.augment import TRANSFORMS, augment


def crop(seed=0, side=48):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (side, side)).astype(np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[20:26, 18:25] = 1
    return image, mask


NAMES = [transform.__name__ for transform, _ in TRANSFORMS]


def test_the_weights_are_those_of_the_method():
    weights = {}
    for (_, weight), name in zip(TRANSFORMS, NAMES, strict=True):
        weights.setdefault(name.strip("_"), []).append(weight)
    assert weights == {
        "vertical_flip": [0.5],
        "horizontal_flip": [0.5],
        "transpose": [0.5],
        "rot90": [0.5],
        "brightness": [0.2],
        "contrast": [0.2],
        "rotation": [0.3],
        "shift": [0.5],
        "scale": [0.5],
        "noise": [0.2],
        "identity": [0.5, 0.5],
    }


@pytest.mark.parametrize("transform", [t for t, _ in TRANSFORMS], ids=NAMES)
def test_shape_and_type_stay_and_image_and_mask_move_together(transform):
    _, mask = crop()
    image = np.where(mask, 220, 40).astype(np.uint8)
    for seed in range(5):
        moved, marked = transform(image, mask, np.random.default_rng(seed))
        assert moved.dtype == marked.dtype == np.uint8
        assert moved.shape[:2] == marked.shape == mask.shape
        assert set(np.unique(marked)) <= {0, 1}
        grey = moved if moved.ndim == 2 else moved[..., 0]
        inside, outside = grey[marked > 0].astype(float), grey[marked == 0].astype(float)
        assert np.median(inside) > np.median(outside) + 50


@pytest.mark.parametrize("name", ["_vertical_flip", "_horizontal_flip", "_transpose", "_rot90", "_identity"])
def test_symmetries_keep_every_grey_level(name):
    image, mask = crop()
    moved, marked = getattr(module, name)(image, mask, np.random.default_rng(1))
    assert np.array_equal(np.sort(moved, None), np.sort(image, None))
    assert marked.sum() == mask.sum()


def test_never_augmented_at_zero_and_three_draws_otherwise():
    image, mask = crop()
    same, _ = augment(image, mask, 0.0, np.random.default_rng(0))
    assert np.array_equal(same, image)
    changed = sum(not np.array_equal(augment(image, mask, 1.0, np.random.default_rng(s))[0], image) for s in range(200))
    # three identities leave it unchanged, and a symmetry drawn twice undoes itself
    assert 180 < changed < 200


def test_half_of_the_crops_are_augmented():
    image, mask = crop()
    changed = sum(not np.array_equal(augment(image, mask, 0.5, np.random.default_rng(s))[0], image) for s in range(600))
    assert 0.42 < changed / 600 < 0.55


def test_noise_differs_between_channels_and_has_the_variance_of_the_method():
    image = np.full((200, 200), 128, np.uint8)
    for seed in range(4):
        noisy, _ = module._noise(image, image, np.random.default_rng(seed))
        assert noisy.shape == (200, 200, 3)
        assert not np.array_equal(noisy[..., 0], noisy[..., 1])
        assert 9 < noisy[..., 2].astype(float).var() < 52


def test_the_same_generator_gives_the_same_crop():
    image, mask = crop()
    for seed in range(20):
        pairs = [augment(image, mask, 1.0, np.random.default_rng(seed)) for _ in range(2)]
        assert all(np.array_equal(a, b) for a, b in zip(*pairs, strict=True))


def test_truncated_grey_levels_are_those_of_the_plain_form():
    image, mask = crop()
    for name in ("brightness", "contrast"):
        for seed in range(5):
            (chosen,) = [t for t, _ in TRANSFORMS if t.__name__ == f"_{name}"]
            found = module._TRUNCATED[chosen](image, mask, np.random.default_rng(seed))[0]
            expected = getattr(plain, name)(np.repeat(image[..., None], 3, 2), mask, np.random.default_rng(seed))[0]
            assert np.mean(found != expected[..., 0]) < 0.01  # where rounding differs at a whole number
    flat = np.full((64, 64), 128, np.uint8)
    lost = [
        transform(flat, flat, np.random.default_rng(2))[0].astype(float).mean() - 128
        for transform in (module._noise, module._TRUNCATED[module._noise])
    ]
    expected = plain.noise(np.repeat(flat[..., None], 3, 2), flat, np.random.default_rng(2))[0].astype(float).mean()
    assert lost[0] - lost[1] == pytest.approx(0.5, abs=0.02)
    assert lost[1] == pytest.approx(expected - 128, abs=0.2)


def test_augment_truncates_where_it_is_told(monkeypatch):
    image, mask = crop()
    monkeypatch.setattr(module, "_CUMULATED", np.array([0] * 5 + [1] * 7))  # contrast alone
    rounded, cut = (augment(image, mask, 1.0, np.random.default_rng(1), cutting)[0] for cutting in (False, True))
    assert (rounded >= cut).all() and (rounded > cut).any()
