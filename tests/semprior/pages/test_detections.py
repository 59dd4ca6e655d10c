"""Pictures of detections count as the metrics count, and show first what tells most."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semprior.evaluation.metrics import count_image
from semprior.evaluation.point_score import point_table
from semprior.pages.detections import MOST_CROPS, WINDOW, ExaminedImage, Findings, Place, detection_pictures, examine

SHAPE = (24, 32)


@st.composite
def scenes(draw):
    """Probabilities, a mask and points, all of small blobs that may touch."""
    seed, density = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.01, 0.05, 0.2]))
    random = np.random.default_rng(seed)
    probability = np.where(random.random(SHAPE) < density, random.random(SHAPE), 0.1).astype(np.float32)
    mask = random.random(SHAPE) < density
    points = random.integers(0, SHAPE, (draw(st.integers(0, 5)), 2))
    return probability, mask, points


@given(scenes())
def test_with_masks_it_counts_as_the_metrics(scene):
    probability, mask, points = scene
    found, counts = examine(probability, points, mask), count_image(probability > 0.5, mask)
    assert (len(found.targets), len(found.targets) - found.misses) == (counts.targets, counts.matched)
    areas = [np.pi * place.radius**2 for place in found.false_alarms]
    assert round(sum(areas)) == counts.false_pixels
    assert all(place.score > 0.5 for place in (*found.false_alarms, *(one for one in found.targets if one.hit)))


@given(scenes())
def test_by_points_it_counts_as_the_point_score(scene):
    probability, _, points = scene
    found = examine(probability, points)
    row = point_table([probability > 0.5], None, [points], [np.ones(len(points))])[0]
    assert (len(found.targets), len(found.targets) - found.misses) == (row[4], row[5])
    assert round(sum(np.pi * place.radius**2 for place in found.false_alarms)) == row[7]


def test_a_miss_says_how_near_it_was():
    probability = np.full(SHAPE, 0.05, np.float32)
    probability[10, 12] = 0.4
    probability[3, 3] = 0.9
    points = np.array([[11, 13]])
    mask = np.zeros(SHAPE, bool)
    mask[9:12, 11:14] = True
    for found in (examine(probability, points), examine(probability, points, mask)):
        (target,), (alarm,) = found.targets, found.false_alarms
        assert not target.hit
        assert target.score == pytest.approx(0.4)
        assert (alarm.row, alarm.column, alarm.score) == (3, 3, pytest.approx(0.9))


def place(row=50, column=50, score=0.9, hit=True):
    return Place(row, column, 2.0, score, hit)


def image(name, *findings):
    return ExaminedImage(name, np.zeros((100, 120), np.uint8), findings)


AGREED = Findings((place(),), ())
MISSED = Findings((place(score=0.3, hit=False),), ())
ALARMED = Findings((place(),), (place(20, 20, 0.7, hit=False), place(80, 100, 0.6, hit=False)))


def test_images_in_which_two_differ_most_come_first():
    images = [
        image("same", AGREED, AGREED),
        image("one", AGREED, MISSED),
        image("two", ALARMED, AGREED),
        image("missed", MISSED, MISSED),
    ]
    pictures = detection_pictures(images, ["best", "preset"], most=3)
    assert [strip.title for strip in pictures.strips] == ["two", "one", "same"]
    assert "Best: 3 of 4 targets hit, 1 missed, 2 false alarms. Preset: 2 of 4" in pictures.caption
    assert "3 of 4 images are shown" in pictures.caption
    whole, other, part, opposite = pictures.strips[1].pictures
    assert [mark.kind for mark in (*whole.marks, *other.marks)] == ["hit", "miss"]
    assert (part.caption, opposite.caption) == ("best: hit, 0.90", "preset: missed, 0.30")
    assert part.crop == opposite.crop == (26, 26, WINDOW, WINDOW)
    assert part.zoom == 3
    assert pictures.strips[1].together == 2


def test_images_in_which_one_fails_most_come_first():
    images = [image("sound", AGREED), image("missed", MISSED), image("alarmed", ALARMED)]
    pictures = detection_pictures(images, ["student"])
    assert [strip.title for strip in pictures.strips] == ["alarmed", "missed", "sound"]
    captions = [picture.caption for picture in pictures.strips[0].pictures]
    assert captions == ["student: 1 hit, 2 false alarms", "false alarm, 0.70", "false alarm, 0.60", "hit, 0.90"]
    assert "false alarm at row 20, column 20 (0.70)" in pictures.strips[0].pictures[0].alt


def test_parts_stay_inside_the_image_and_neighbours_share_one():
    corners = Findings((place(1, 1), place(4, 4), place(99, 119)), ())
    (strip,) = detection_pictures([image("corners", corners)], ["student"]).strips
    assert [picture.crop for picture in strip.pictures[1:]] == [(0, 0, 48, 48), (52, 72, 48, 48)]
    assert len(strip.pictures[1].marks) == 2
    (small,) = detection_pictures(
        [ExaminedImage("small", np.zeros((20, 30), np.uint8), (Findings((place(5, 5),), ()),))], ["x"]
    ).strips
    assert small.pictures[1].crop == (0, 0, 20, 30)


def test_many_places_are_counted_and_not_all_enlarged():
    many = Findings(tuple(place(row, column) for row in (10, 35, 60, 85) for column in (10, 40, 70, 100)), ())
    (strip,) = detection_pictures([image("many", many)], ["student"]).strips
    assert len(strip.pictures) == 1 + MOST_CROPS
    assert strip.title == f"many ({16 - MOST_CROPS} more places are not enlarged)"


def test_no_image_is_no_picture():
    pictures = detection_pictures([], ["student"])
    assert pictures.strips == ()
    assert "0 of 0 targets" in pictures.caption


def test_findings_of_another_number_of_detectors_are_refused():
    with pytest.raises(ValueError, match="another number"):
        detection_pictures([image("one", AGREED)], ["best", "preset"])
