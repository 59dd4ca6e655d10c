"""Parts of a split: what belongs to which target, and that all parts add up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from semprior.data.connected_components import find_regions, label_regions
from semprior.evaluation.breakdown import (
    NO_TARGET,
    break_down,
    contrast_name,
    evaluate_image,
    size_name,
)
from semprior.evaluation.conventions import CONVENTIONS
from semprior.evaluation.metrics import count_image
from semprior.evaluation.target_traits import TargetTraits

OURS = CONVENTIONS["semprior"]
MASKS = arrays(bool, (9, 14))


def evaluated(predicted, truth, name="image", subset=None, convention=OURS):
    return evaluate_image(name, subset, np.zeros(truth.shape, np.uint8), predicted, truth, convention)


def boxes(*places, shape=(40, 40)):
    mask = np.zeros(shape, bool)
    for row, column, height, width in places:
        mask[row : row + height, column : column + width] = True
    return mask


@pytest.mark.parametrize("convention", CONVENTIONS.values(), ids=CONVENTIONS)
@settings(max_examples=100, deadline=None)
@given(predicted=MASKS, truth=MASKS)
def test_targets_and_pixels_astray_add_up_to_the_image(convention, predicted, truth):
    found = evaluated(predicted, truth, convention=convention)
    assert found.counts == count_image(predicted, truth, convention.false_area)
    assert sum(target.intersection for target in found.targets) == found.counts.intersection
    assert sum(target.union for target in found.targets) + found.astray == found.counts.union
    assert sum(target.matched for target in found.targets) == found.counts.matched
    assert [target.traits.size for target in found.targets] == find_regions(truth).areas.tolist()


@settings(max_examples=100, deadline=None)
@given(mask=MASKS)
def test_labels_number_the_regions_in_their_order(mask):
    labels = label_regions(mask)
    assert ((labels > 0) == mask).all()
    assert np.bincount(labels[mask], minlength=1)[1:].tolist() == find_regions(mask).areas.tolist()


def test_pixels_outside_belong_to_the_target_that_shares_most():
    truth = boxes((10, 10, 2, 2), (10, 14, 3, 3))
    predicted = boxes((10, 10, 3, 7))  # over both: 4 pixels of the first, 9 of the second, 8 of neither
    first, second = evaluated(predicted, truth).targets
    assert (first.intersection, first.union) == (4, 4)
    assert (second.intersection, second.union) == (9, 17)


def test_a_component_beside_its_target_belongs_to_it_if_it_is_matched():
    truth = boxes((10, 10, 1, 1), (30, 30, 2, 2))
    found = evaluated(boxes((10, 12, 1, 1), (20, 20, 2, 2)), truth)
    assert [(target.intersection, target.union, target.matched) for target in found.targets] == [
        (0, 2, True),
        (0, 4, False),
    ]
    assert (found.astray, found.counts.false_pixels) == (4, 4)


def test_the_rates_of_a_part_are_those_of_its_targets_and_its_images():
    both = evaluated(boxes((10, 10, 3, 3), (2, 2, 2, 2)), boxes((10, 10, 3, 3), (30, 30, 4, 4)))
    small = evaluated(boxes((10, 10, 3, 2)), boxes((10, 10, 3, 3)))
    empty = evaluated(boxes((1, 1, 1, 5)), boxes())
    parts = {part.name: part for part in break_down([both, small, empty], "size", OURS)}
    assert list(parts) == ["1-9", "10-19", NO_TARGET]
    first = parts["1-9"].metrics
    assert (first.images, first.targets, first.pd) == (2, 2, 1)
    assert first.iou == pytest.approx(15 / 18)
    assert first.niou == pytest.approx((1 + 6 / 9) / 2)
    assert first.fa == pytest.approx(1e6 * 4 / 3200)  # the false alarm of the first image, over both images
    second = parts["10-19"]
    assert (second.metrics.images, second.metrics.iou, second.metrics.pd) == (1, 0, 0)
    assert second.metrics.fa == pytest.approx(1e6 * 4 / 1600)  # it counts in every part that the image has a target of
    assert np.isnan(list(second.errors.values())).all()
    nothing = parts[NO_TARGET].metrics
    assert nothing.fa == pytest.approx(1e6 * 5 / 1600)
    assert np.isnan(nothing.pd)


def test_subsets_are_parts_of_the_images_with_all_that_is_in_them():
    images = [
        evaluated(boxes((2, 2, 2, 2)), boxes((10, 10, 3, 3)), f"image{index}", "first" if index < 3 else "second")
        for index in range(4)
    ]
    first, second = break_down(images, "subset", OURS)
    assert (first.name, first.metrics.images, second.name, second.metrics.images) == ("first", 3, "second", 1)
    assert first.metrics.fa == pytest.approx(1e6 * 4 / 1600)
    assert first.errors["fa"] == pytest.approx(0)


def traits(size=1, contrast=1.0):
    return TargetTraits(size, contrast, contrast, 1.0, 1.0, 1.0)


def test_bins_have_no_gaps():
    assert [size_name(traits(size=size)) for size in (1, 9, 10, 19, 20, 39, 40, 79, 80, 5000)] == [
        *("1-9", "1-9", "10-19", "10-19", "20-39", "20-39", "40-79", "40-79", "80+", "80+")
    ]
    assert [contrast_name(traits(contrast=ratio)) for ratio in (0, 1.99, 2, 3.99, 4, 8, 15.9, 16, 900)] == [
        *("0-2", "0-2", "2-4", "2-4", "4-8", "8-16", "8-16", "16+", "16+")
    ]
