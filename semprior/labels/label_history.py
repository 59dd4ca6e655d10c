"""The pseudo-masks of a few images over the epochs of a run, which its report shows.

Of each image there is the part around its first target. A few kilobytes an evolution are kept; training reads none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semprior.data.training_set import TrainingSet

MOST_IMAGES = 6
SIDE = 64  # of the part of an image, pixels


@dataclass(frozen=True)
class LabelWindow:
    """A part of an image and of its pseudo-mask, both (h,w) uint8.

    Attributes:
        name: of the image.
        image: grey levels.
        soft: the soft pseudo-mask; values of at least 128 are target, 255 is permanent.
    """

    name: str
    image: np.ndarray
    soft: np.ndarray


def label_windows(training_set: TrainingSet, soft_of: Callable[[int], np.ndarray]) -> list[LabelWindow]:
    """The windows of a few training images with targets, spread over the training set; the same at every call.

    Args:
        training_set: the images of a run.
        soft_of: the soft pseudo-mask of an image, (H,W) uint8, by its index.
    """
    with_targets = [index for index in training_set.train_indices if len(training_set.scenes[index].points)]
    number = min(MOST_IMAGES, len(with_targets))
    places = np.linspace(0, len(with_targets) - 1, number).round().astype(int)
    windows = []
    for index in (with_targets[place] for place in places):
        scene = training_set.scenes[index]
        window = window_around(scene.points[0], scene.image.shape, SIDE)
        windows.append(LabelWindow(scene.name, scene.image[window], soft_of(index)[window]))
    return windows


def window_around(centre: Sequence[int] | np.ndarray, shape: tuple[int, ...], side: int) -> tuple[slice, slice]:
    """Rows and columns of a square around a pixel, moved so that it lies in the image, and cut where it is larger.

    Args:
        centre: row and column.
        shape: height and width of the image.
        side: of the square, in pixels.
    """
    starts = [
        int(np.clip(int(place) - side // 2, 0, max(extent - side, 0)))
        for place, extent in zip(centre, shape, strict=True)
    ]
    rows, columns = (slice(start, min(start + side, extent)) for start, extent in zip(starts, shape, strict=True))
    return rows, columns


def stored_windows(windows: Sequence[LabelWindow]) -> dict[str, np.ndarray]:
    """Windows as arrays; `restored_windows` is the inverse."""
    arrays = {"names": np.array([window.name for window in windows], np.str_)}
    for number, window in enumerate(windows):
        arrays |= {f"image.{number}": window.image, f"soft.{number}": window.soft}
    return arrays


def restored_windows(arrays: Mapping[str, np.ndarray]) -> list[LabelWindow]:
    """The windows that `stored_windows` returned.

    Raises:
        ValueError: the arrays are not those of windows.
    """
    windows = []
    for number, name in enumerate(arrays.get("names", np.zeros(0, np.str_)).tolist()):
        image, soft = arrays.get(f"image.{number}"), arrays.get(f"soft.{number}")
        if image is None or soft is None or image.ndim != 2 or image.shape != soft.shape:
            raise ValueError(f"the window of image {number} is incomplete")
        if image.dtype != np.uint8 or soft.dtype != np.uint8:
            raise ValueError(f"the window of image {number} has values of another type")
        windows.append(LabelWindow(str(name), image, soft))
    return windows
