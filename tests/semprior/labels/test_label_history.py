"""The pseudo-masks of a few images over the epochs of a run: the same images each time, read back as they were."""

from types import SimpleNamespace

import numpy as np
import pytest

from semprior.data.layout import Scene
from semprior.labels.label_history import (
    MOST_IMAGES,
    SIDE,
    label_windows,
    restored_windows,
    stored_windows,
    window_around,
)


def images(count, shape=(100, 40)):
    """Scenes with a point, except for every third, of which all but the last two train."""
    scenes = []
    for number in range(count):
        points = np.array([[number % shape[0], number % shape[1]]])[: int(number % 3 > 0)]
        scenes.append(Scene(f"<Größe>{number}", np.full(shape, number, np.uint8), points.reshape(-1, 2)))
    return SimpleNamespace(scenes=scenes, train_indices=range(count - 2))


def test_windows_are_of_training_images_with_targets_and_read_back():
    training_set = images(32)
    soft = [np.arange(4000, dtype=np.uint16).reshape(100, 40).astype(np.uint8)] * 32
    windows = label_windows(training_set, soft.__getitem__)
    numbers = [int(window.name.removeprefix("<Größe>")) for window in windows]
    assert len(set(numbers)) == MOST_IMAGES
    assert all(number % 3 and number < 30 for number in numbers)
    assert {window.image.shape for window in windows} == {(SIDE, 40)}
    again = restored_windows(stored_windows(windows))
    assert [window.name for window in again] == [window.name for window in windows]
    for one, other in zip(again, windows, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.soft, other.soft)


@pytest.mark.parametrize("count", [2, 4])
def test_few_images_or_none_are_enough(count):
    windows = label_windows(images(count), lambda index: np.zeros((100, 40), np.uint8))
    assert len(windows) == max(0, count - 3)
    assert len(restored_windows(stored_windows(windows))) == len(windows)


def test_a_window_lies_in_the_image():
    assert window_around((0, 99), (80, 100), 64) == (slice(0, 64), slice(36, 100))
    assert window_around((50, 50), (200, 200), 64) == (slice(18, 82), slice(18, 82))
    assert window_around((5, 5), (10, 20), 64) == (slice(0, 10), slice(0, 20))


@pytest.mark.parametrize(
    "change", [{"soft.0": None}, {"image.0": np.zeros((2, 2))}, {"soft.0": np.zeros((3, 3), np.uint8)}]
)
def test_arrays_of_something_else_are_refused(change):
    windows = label_windows(images(8), lambda index: np.zeros((100, 40), np.uint8))
    arrays = {name: array for name, array in (stored_windows(windows) | change).items() if array is not None}
    with pytest.raises(ValueError, match="window of image 0"):
        restored_windows(arrays)
