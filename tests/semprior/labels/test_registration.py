"""Registration: displacements that many points show, and none that they do not."""

from dataclasses import replace

import numpy as np
import pytest

from semprior.data.layout import Scene
from semprior.labels import registration
from semprior.labels.generator_seed import generator_regions
from semprior.labels.registration import NEIGHBOURS, displacements, moved_back
from semprior.labels.seeds import assembled, generator_seeds

SHIFT = np.array([0.5, -0.4])


def rounded(rng, count):
    """Offsets of masks from the pixel nearest to their centre."""
    return rng.uniform(-0.5, 0.5, (count, 2))


def three_sizes(rng, each=200):
    areas = np.concatenate([rng.integers(*size, each) for size in ((4, 10), (20, 60), (200, 600))])
    offsets = rounded(rng, 3 * each)
    offsets[each : 2 * each] += SHIFT
    return areas, offsets


def test_the_displaced_sizes_are_found_and_no_others():
    areas, offsets = three_sizes(np.random.default_rng(0))
    found = displacements(areas, offsets)
    assert abs(found[200:400] - SHIFT).max() < 0.2
    assert not found[:200].any() and not found[400:].any()


def test_the_order_of_the_targets_does_not_matter():
    rng = np.random.default_rng(1)
    areas, offsets = three_sizes(rng)
    order = rng.permutation(len(areas))
    np.testing.assert_array_equal(displacements(areas[order], offsets[order]), displacements(areas, offsets)[order])


def ties(rng, count):
    """Masks of even sides, whose centre lies between pixels, of which the first is clicked; two fifths of them."""
    return np.where(rng.random((count, 2)) < 0.4, 0.5, 0.0)


def more_ties(rng, count):
    return np.where(rng.random((count, 2)) < 0.6, 0.5, rounded(rng, count))


def all_even(rng, count):
    return np.full((count, 2), 0.5)


def middles_of_boxes(rng, count):
    """``height // 2`` from the top of boxes."""
    sides = rng.integers(2, 9, (count, 2))
    return (sides - 1) / 2 - sides // 2


def coarse(rng, count):
    return rng.uniform(-3, 3, (count, 2))


def skewed(rng, count):
    """Clicks that scatter widely about another place than the centre: no annotation that could be registered."""
    return rng.normal(0.8, 1.5, (count, 2))


@pytest.mark.parametrize("draw", [rounded, ties, more_ties, all_even, middles_of_boxes, coarse, skewed])
def test_rounding_and_hurried_clicks_displace_nothing(draw):
    rng = np.random.default_rng(2)
    assert not displacements(rng.integers(4, 300, 500), draw(rng, 500)).any()


def test_few_targets_tell_nothing():
    offsets = np.full((NEIGHBOURS - 1, 2), 0.5)
    assert not displacements(np.full(len(offsets), 20), offsets).any()
    assert displacements(np.zeros(0), np.zeros((0, 2))).shape == (0, 2)


def test_probabilities_move_back_by_parts_of_pixels():
    values = np.zeros((9, 9), np.float32)
    values[4, 4] = 1
    np.testing.assert_array_equal(np.argwhere(moved_back(values, np.array([2.0, -1.0]))), [[2, 5]])
    half = moved_back(values, np.array([0.5, 0.0]))
    assert half[3, 4] == pytest.approx(0.5) and half[4, 4] == pytest.approx(0.5) and half.sum() == pytest.approx(1)


def discs(row_shift, column_shift, images=2, each=9):
    """Images with discs whose annotated masks are displaced, points at the pixel nearest to the masks' centre."""
    rng, made = np.random.default_rng(3), []
    rows, columns = np.mgrid[:150, :150]
    for index in range(images):
        grey, mask, points = np.full((150, 150), 60.0), np.zeros((150, 150), bool), []
        for place in range(each):
            centre = np.array([25 + 50 * (place // 3), 25 + 50 * (place % 3)]) + rng.uniform(-5, 5, 2)
            grey += 120 / (1 + np.exp(3 * (np.hypot(rows - centre[0], columns - centre[1]) - 3)))
            seen = centre + np.array([row_shift, column_shift])
            mask |= np.hypot(rows - seen[0], columns - seen[1]) < 3
            points.append(np.rint(seen).astype(int))
        image = np.clip(grey + rng.normal(0, 2, grey.shape), 0, 255).astype(np.uint8)
        made.append(Scene(str(index), image, np.array(points), mask))
    return made


def overlap(scenes, masks):
    pairs = [(found & scene.mask, found | scene.mask) for found, scene in zip(masks, scenes, strict=True)]
    return sum(both.sum() for both, _ in pairs) / sum(either.sum() for _, either in pairs)


@pytest.mark.parametrize(("shift", "least"), [((0.0, 0.0), 0.0), ((-0.7, -0.7), 0.1)])
def test_seeds_lie_where_the_points_say(shift, least, monkeypatch):
    monkeypatch.setattr(registration, "NEIGHBOURS", 16)
    scenes = discs(*shift)
    plain = [assembled(s.image, s.points, generator_regions(s.image, s.points)).mask for s in scenes]
    registered = [seed.mask for seed in generator_seeds(scenes, {})]
    gained = overlap(scenes, registered) - overlap(scenes, plain)
    assert gained > least if least else abs(gained) < 0.01


def test_subsets_of_a_joined_data_set_are_registered_apart(monkeypatch):
    """Each was annotated by other people; one is displaced, the other is not, and together they would be by half."""
    monkeypatch.setattr(registration, "NEIGHBOURS", 16)
    displaced, true = discs(-0.7, -0.7), [replace(scene, name=f"b{scene.name}") for scene in discs(0.0, 0.0)]
    subsets = {scene.name: "a" for scene in displaced} | {scene.name: "b" for scene in true}
    joined = [seed.mask for seed in generator_seeds([*displaced, *true], subsets)]
    apart = [seed.mask for scenes in (displaced, true) for seed in generator_seeds(scenes, {})]
    assert all(np.array_equal(one, other) for one, other in zip(joined, apart, strict=True))
