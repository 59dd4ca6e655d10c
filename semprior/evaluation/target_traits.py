"""Size, contrast, elongation and kind of the true targets, measured on the image and its mask.

The surroundings of a target are the pixels at most `REACH` rows and columns outside its bounding box, without all
targets and the pixels within `GAP` of them, where their light spills over. `docs/metrics.md` states the definitions for
users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from semprior.data.connected_components import label_regions

Kind = Literal["salient", "filamentary", "faint", "camouflaged"]
KINDS: tuple[Kind, ...] = get_args(Kind)

REACH, GAP = 10, 2  # pixels
LEAST_CLUTTER = 1.0  # grey levels; a smooth background has no clutter, and quantisation alone about 0.3
FILAMENT_ELONGATION, FILAMENT_LENGTH = 2.0, 6.0  # ratio of the axes; pixels
SALIENT_CONTRAST, SALIENT_RISE = 5.0, 15.0  # ratio; grey levels
CALM_CLUTTER = 4.0  # grey levels


@dataclass(frozen=True)
class TargetTraits:
    """What is measured of one true target.

    Attributes:
        size: in pixels.
        rise: absolute difference of the means of target and surroundings, in grey levels of 0..255.
        contrast: local signal-to-clutter ratio, `rise` over `clutter` (at least `LEAST_CLUTTER`).
        clutter: standard deviation of the surroundings, in grey levels of 0..255.
        elongation: ratio of the long to the short axis of the ellipse with the moments of the pixels, at least 1.
        length: long axis in pixels, of a rectangle with these moments.
    """

    size: int
    rise: float
    contrast: float
    clutter: float
    elongation: float
    length: float

    @property
    def kind(self) -> Kind:
        """The first that applies: filamentary, salient; then faint on a calm background, camouflaged on clutter."""
        if self.elongation >= FILAMENT_ELONGATION and self.length >= FILAMENT_LENGTH:
            return "filamentary"
        if self.contrast >= SALIENT_CONTRAST and self.rise >= SALIENT_RISE:
            return "salient"
        return "faint" if self.clutter < CALM_CLUTTER else "camouflaged"


def target_traits(image: np.ndarray, truth: np.ndarray) -> list[TargetTraits]:
    """Measure the targets of an image, the 8-connected regions of its mask in the order of `find_regions`.

    Args:
        image: (H,W) uint8, grey.
        truth: (H,W) bool.
    """
    labels = label_regions(truth)
    side = 2 * GAP + 1
    near = cv2.dilate(truth.view(np.uint8), np.ones((side, side), np.uint8)).astype(bool)
    return [_traits(image, labels, near, number) for number in range(1, int(labels.max(initial=0)) + 1)]


def _traits(image: np.ndarray, labels: np.ndarray, near: np.ndarray, number: int) -> TargetTraits:
    pixels = np.argwhere(labels == number)
    top, left = np.maximum(pixels.min(axis=0) - REACH, 0)
    bottom, right = pixels.max(axis=0) + REACH + 1
    window = image[top:bottom, left:right].astype(np.float64)
    around = window[~near[top:bottom, left:right]]
    if not around.size:  # targets fill the window
        around = window[labels[top:bottom, left:right] != number]
    inside = float(image[pixels[:, 0], pixels[:, 1]].mean())
    mean, clutter = (float(around.mean()), float(around.std())) if around.size else (inside, 0.0)
    # A pixel is a unit square, whose own variance is 1/12 along each axis.
    moments = np.cov(pixels.T, bias=True) + np.eye(2) / 12 if len(pixels) > 1 else np.eye(2) / 12
    short, long = np.linalg.eigvalsh(moments)
    return TargetTraits(
        size=len(pixels),
        rise=abs(inside - mean),
        contrast=abs(inside - mean) / max(clutter, LEAST_CLUTTER),
        clutter=clutter,
        elongation=float(np.sqrt(long / short)),
        length=float(np.sqrt(12 * long)),
    )
