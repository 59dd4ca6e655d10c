"""Metrics against a slow reference implementation, and their edge cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from semprior.data.connected_components import bands, find_regions
from semprior.evaluation.metrics import ImageCounts, bootstrap_errors, count_image, summarise


def plain_regions(mask):
    """The pixels of each 8-connected region; regions are sorted by their first pixels in row-major order."""
    left = {tuple(pixel) for pixel in np.argwhere(mask).tolist()}
    regions = []
    for start in sorted(left):
        if start not in left:
            continue
        left.remove(start)
        region, front = [], [start]
        while front:
            row, column = front.pop()
            region.append((row, column))
            for near in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    front.append(near)
        regions.append(np.array(region))
    return regions


def plain_count(predicted, truth):
    found, targets = plain_regions(predicted), plain_regions(truth)
    free, matched = list(range(len(found))), 0
    for target in targets:
        for candidate in free:
            # Centroids closer than 3 pixels, in whole numbers.
            own, other = len(target), len(found[candidate])
            gap = target.sum(axis=0) * other - found[candidate].sum(axis=0) * own
            if (gap**2).sum() < (3 * own * other) ** 2:
                free.remove(candidate)
                matched += 1
                break
    return ImageCounts(
        intersection=sum(bool(p and t) for p, t in zip(predicted.flat, truth.flat, strict=True)),
        union=sum(bool(p or t) for p, t in zip(predicted.flat, truth.flat, strict=True)),
        targets=len(targets),
        matched=matched,
        false_pixels=sum(len(found[candidate]) for candidate in free),
        pixels=truth.size,
    )


@pytest.mark.parametrize("density", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_reference(seed, density):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, 2))
    truth = rng.random(shape) < density
    predicted = np.where(rng.random(shape) < 0.7, truth, rng.random(shape) < density)
    assert count_image(predicted, truth) == plain_count(predicted, truth)


MASKS = arrays(bool, (7, 12))


@settings(max_examples=150, deadline=None)
@given(MASKS, MASKS)
def test_equals_the_reference_for_any_masks(predicted, truth):
    assert count_image(predicted, truth) == plain_count(predicted, truth)


@settings(max_examples=150, deadline=None)
@given(MASKS)
def test_regions_in_the_order_of_their_first_pixels(mask):
    found, plain = find_regions(mask), plain_regions(mask)
    assert found.areas.tolist() == [len(region) for region in plain]
    np.testing.assert_allclose(found.centroids, np.array([r.mean(axis=0) for r in plain]).reshape(-1, 2), atol=1e-12)
    covered = np.zeros_like(mask)
    for place in bands(mask):
        assert not covered[place].any()
        covered[place] = True
    assert covered[mask].all()


def image_of(*boxes, shape=(40, 40)):
    mask = np.zeros(shape, bool)
    for row, column, height, width in boxes:
        mask[row : row + height, column : column + width] = True
    return mask


def test_empty_predictions():
    counts = [count_image(image_of(), image_of((5, 5, 3, 3)))]
    assert counts[0] == ImageCounts(0, 9, 1, 0, 0, 1600)
    found = summarise(counts)
    assert (found.iou, found.niou, found.pd, found.fa, found.images, found.targets) == (0, 0, 0, 0, 1, 1)


def test_empty_truths_have_no_pd_but_false_alarms():
    counts = [count_image(image_of((5, 5, 2, 2)), image_of())]
    found = summarise(counts)
    assert (found.iou, found.niou, found.fa) == (0, 0, 1e6 * 4 / 1600)
    assert np.isnan(found.pd)
    assert np.isnan(bootstrap_errors(counts)["pd"])


def test_an_image_with_nothing_in_it():
    perfect = image_of((5, 5, 3, 3))
    counts = [count_image(perfect, perfect), count_image(image_of(), image_of())]
    assert summarise(counts).niou == 1
    assert summarise(counts, empty_union="zero").niou == 0.5
    assert summarise(counts).iou == summarise(counts).pd == 1
    nothing = summarise(counts[1:])
    assert np.isnan([nothing.iou, nothing.niou, nothing.pd]).all()
    assert nothing.fa == 0
    assert summarise(counts[1:], empty_union="zero").niou == 0


def test_touching_targets_are_one():
    truth = image_of((10, 10, 3, 3), (13, 13, 3, 3))  # touching at a corner
    apart = image_of((10, 10, 3, 3), (14, 14, 3, 3))
    assert count_image(truth, truth).targets == 1
    assert count_image(apart, apart).targets == 2
    merged = count_image(image_of((10, 10, 7, 7)), apart)  # one prediction over both: its centroid is 2.83 from each
    assert (merged.matched, merged.false_pixels) == (1, 0)


@pytest.mark.parametrize("shift, matched", [((0, 3), 0), ((0, 2), 1), ((2, 2), 1), ((3, 1), 0)])
def test_matches_are_strictly_closer_than_three_pixels(shift, matched):
    for size in (1, 3):
        found = count_image(image_of((10 + shift[0], 10 + shift[1], size, size)), image_of((10, 10, size, size)))
        assert found.matched == matched
        assert found.false_pixels == (1 - matched) * size * size


def test_the_first_free_component_is_taken_not_the_nearest():
    truth = image_of((10, 10, 1, 1), (12, 11, 1, 1))
    predicted = image_of((12, 10, 1, 1))
    assert count_image(predicted, truth).matched == 1
    # The upper prediction is the first for both targets; the second target must take the lower one, which is too far.
    predicted = image_of((11, 12, 1, 1), (13, 9, 1, 1), (9, 8, 1, 1))
    assert count_image(predicted, truth) == plain_count(predicted, truth)


def test_components_are_taken_in_raster_order_though_opencv_numbers_them_by_blocks():
    mask = image_of((1, 0, 1, 1), (0, 5, 1, 1))
    np.testing.assert_array_equal(find_regions(mask).centroids, [[0, 5], [1, 0]])


def test_masks_that_are_views():
    rng = np.random.default_rng(0)
    predicted, truth = rng.random((40, 60)) < 0.1, rng.random((40, 60)) < 0.1
    turned, cut = (predicted.T, truth.T), (predicted[3:30:2, 5:50], truth[3:30:2, 5:50])
    for one, other in (turned, cut):
        assert count_image(one, other) == count_image(one.copy(), other.copy()) == plain_count(one, other)


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="true mask of"):
        count_image(np.zeros((3, 4), bool), np.zeros((4, 3), bool))


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no image"):
        summarise([])
    with pytest.raises(ValueError, match="no image"):
        bootstrap_errors([])


def test_sums_and_means():
    counts = [ImageCounts(1, 2, 2, 1, 3, 100), ImageCounts(8, 10, 1, 1, 0, 300)]
    found = summarise(counts)
    assert found.iou == 9 / 12
    assert found.niou == (0.5 + 0.8) / 2
    assert found.pd == 2 / 3
    assert found.fa == pytest.approx(1e6 * 3 / 400)
    assert (found.images, found.targets) == (2, 3)


def test_bootstrap_errors():
    rng = np.random.default_rng(0)
    counts = [ImageCounts(int(i), 100, 2, int(rng.integers(3)), int(f), 1000) for i, f in rng.integers(0, 100, (80, 2))]
    errors = bootstrap_errors(counts, rounds=4000)
    share = np.array([count.intersection for count in counts]) / 100
    matched = np.array([count.matched for count in counts]) / 2
    false = np.array([count.false_pixels for count in counts]) / 1000
    for name, values in (("iou", share), ("niou", share), ("pd", matched), ("fa", 1e6 * false)):
        assert errors[name] == pytest.approx(values.std() / np.sqrt(80), rel=0.06), name
    assert errors == bootstrap_errors(counts, rounds=4000)
    assert errors != bootstrap_errors(counts, rounds=4000, seed=1)
    same = bootstrap_errors([counts[0]] * 5)
    assert same["iou"] == pytest.approx(0, abs=1e-12)
