"""Seeds: published reference values, and contrast seeds of targets of known shape."""

import cv2
import numpy as np
import pytest

from semprior.data.layout import Scene
from semprior.evaluation.metrics import count_image, summarise
from semprior.labels.seeds import SEEDS, contrast_seed, edge_seed


@pytest.fixture(scope="module")
def splits(sirst):
    def read(folder, name):
        return cv2.imread(str(sirst / folder / f"{name}.png"), cv2.IMREAD_GRAYSCALE)

    return {
        split: [
            (read("images", name), np.argwhere(read("masks_centroid", name) > 127), read("labels", name) > 127)
            for name in (sirst / "mode" / f"{split}.txt").read_text().split()
        ]
        for split in ("train", "val")
    }


def test_published_anchors(splits):
    train = [edge_seed(image, points) for image, points, _ in splits["train"]]
    assert len(train) == 171
    assert sum(seed.succeeded.sum() for seed in train) == 141
    assert sum(len(seed.succeeded) for seed in train) == 218
    pool = [seed for seed in train if seed.succeeded.mean() >= 0.8]
    assert len(pool) == 103
    assert sum(len(seed.succeeded) for seed in pool) == 129
    assert sum(seed.succeeded.sum() for seed in pool) == 128
    assert sum(seed.mask.sum() for seed in pool) == 2439
    validation = [edge_seed(image, points) for image, points, _ in splits["val"]]
    assert len(validation) == 42
    assert sum(seed.succeeded.sum() for seed in validation) == 30
    assert sum(len(seed.succeeded) for seed in validation) == 52
    assert sum(seed.mask.sum() for seed in validation) == 636


@pytest.mark.parametrize("coarse", [False, True])
def test_contrast_seeds_overlap_the_true_masks(splits, coarse):
    rng = np.random.default_rng(0)
    counts = []
    for image, points, mask in [*splits["train"], *splits["val"]]:
        if coarse:
            _, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
            targets = [np.argwhere(labels == labels[tuple(point)]) for point in points]
            points = np.array([target[rng.integers(len(target))] for target in targets]).reshape(-1, 2)
        counts.append(count_image(contrast_seed(image, points).mask, mask))
    found = summarise(counts)
    assert found.iou > 0.77
    assert found.niou > 0.80


def scene(*spots, shape=(64, 80), background=None, seed=0):
    """Gaussian spots (row, column, amplitude, sigma) on a noisy background; image and the masks of the spots."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.full(shape, 100.0) if background is None else background.astype(float)
    masks = []
    for row, column, amplitude, sigma in spots:
        profile = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2))
        image = image + amplitude * profile
        masks.append(profile > 0.3)
    return np.clip(np.rint(image + rng.normal(0, 1, shape)), 0, 255).astype(np.uint8), masks


def seed_of(name, image, points, boxes=None):
    return next(SEEDS[name]([Scene("", image, points, boxes=boxes)], {}))


def iou(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


@pytest.mark.parametrize("amplitude", [100, -80, 25, -25])
@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.5])
def test_bright_and_dark_targets(amplitude, sigma):
    image, (mask,) = scene((30, 40, amplitude, sigma))
    seed = contrast_seed(image, np.array([[30, 40]]))
    assert seed.succeeded.all()
    assert iou(seed.mask, mask) > 0.6


@pytest.mark.parametrize("offset", [(2, 0), (-1, 2), (-2, -2)])
def test_a_point_may_miss_the_peak(offset):
    image, (mask,) = scene((30, 40, 90, 2.0))
    seed = contrast_seed(image, np.array([[30 + offset[0], 40 + offset[1]]]))
    assert iou(seed.mask, mask) > 0.7


def test_a_slope_under_the_target_does_not_join_it():
    slope = np.linspace(40, 200, 80)[None].repeat(64, axis=0)
    image, (mask,) = scene((30, 40, 50, 1.5), background=slope)
    assert iou(contrast_seed(image, np.array([[30, 40]])).mask, mask) > 0.6


def test_a_target_on_an_edge_between_bands():
    bands = np.where(np.arange(64) < 27, 160.0, 60.0)[:, None].repeat(80, axis=1)
    image, (mask,) = scene((31, 40, 80, 1.5), background=bands)
    assert iou(contrast_seed(image, np.array([[31, 40]])).mask, mask) > 0.6


def test_touching_targets_have_separate_regions():
    image, masks = scene((30, 36, 100, 1.8), (30, 43, 40, 1.8))
    both = contrast_seed(image, np.array([[30, 36], [30, 43]]))
    assert both.succeeded.all()
    assert iou(both.mask, masks[0] | masks[1]) > 0.7
    alone = contrast_seed(image, np.array([[30, 36]]))
    assert not alone.mask[30, 43]


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("point", [(0, 0), (0, 79), (63, 0), (63, 79), (30, 0)])
def test_targets_at_the_border(name, point):
    image, _ = scene((*point, 90, 1.5))
    seed = seed_of(name, image, np.array([point]))
    assert seed.mask[point]
    assert seed.mask.sum() < 60


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_failed_point_gives_its_own_pixel(name, value):
    seed = seed_of(name, np.full((40, 50), value, np.uint8), np.array([[7, 9], [39, 49]]))
    assert not seed.succeeded.any()
    np.testing.assert_array_equal(np.argwhere(seed.mask), [[7, 9], [39, 49]])


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (12, 9)])
def test_images_smaller_than_the_windows(name, shape):
    image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    point = (shape[0] // 2, shape[1] // 2)
    assert seed_of(name, image, np.array([point])).mask[point]


@pytest.mark.parametrize("name", SEEDS)
def test_no_points_no_mask(name):
    seed = seed_of(name, np.zeros((20, 20), np.uint8), np.zeros((0, 2), np.int64))
    assert seed.mask.shape == (20, 20)
    assert not seed.mask.any()
    assert seed.succeeded.shape == (0,)


@pytest.mark.parametrize("name", SEEDS)
def test_the_order_of_points_and_the_rest_of_the_image_do_not_matter(name):
    image, _ = scene((20, 20, 90, 1.5), (25, 30, 60, 2), (50, 60, 70, 1.2))
    points = np.array([[20, 20], [25, 30], [50, 60]])
    seed = seed_of(name, image, points)
    again = seed_of(name, image, points[::-1])
    np.testing.assert_array_equal(seed.mask, again.mask)
    np.testing.assert_array_equal(seed.succeeded, again.succeeded[::-1])
    wider = np.pad(image, ((0, 30), (0, 40)), mode="edge")
    np.testing.assert_array_equal(seed_of(name, wider, points).mask[:40, :60], seed.mask[:40, :60])


def test_large_regions_are_refused():
    image = np.full((80, 80), 60, np.uint8)
    image[28:52, 28:52] = 200  # 576 pixels
    seed = contrast_seed(image, np.array([[40, 40]]))
    assert seed.mask.sum() == 1
    assert not seed.succeeded.any()


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_never_leaves_its_box(name):
    image = np.full((40, 50), 40, np.uint8)
    image[10:16, 10:22] = 200
    points, box = np.array([[12, 13]]), np.array([[9, 11, 15, 18]])
    free, bound = seed_of(name, image, points).mask, seed_of(name, image, points, box).mask
    limit = np.zeros(image.shape, bool)
    limit[9:15, 11:18] = True
    assert not (bound & ~limit).any() and bound[12, 13]
    np.testing.assert_array_equal(seed_of(name, image, points, np.array([[0, 0, 40, 50]])).mask, free)
    if name == "contrast":
        assert (free & ~limit).any() and np.count_nonzero(bound) > 20
