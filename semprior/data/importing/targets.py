"""From marks to points and boxes in whole pixels, with a look at the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from semprior.data.annotations import boxes_within
from semprior.data.formats.marks import Box, Mark
from semprior.io.wording import plural

DARKER = 1.5  # a target is dark if its extremum falls by this many times what the brightest rises
DOT = 5  # pixels, the largest side of a dot that stands for a point
_SAME = 0.9  # overlap of boxes that mark one target twice
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_ROUNDING = 0.01  # pixels; shares of an image's size are often written with six digits


@dataclass
class Decisions:
    """What making targets decided, counted.

    Attributes:
        bright: points at the brightest local extremum of a box.
        dark: points at the darkest.
        centre: points at the centre of a box without a local extremum.
        cut: boxes cut at the border of their image.
        twice: boxes left out because another marks the same target.
        same: points left out because another lies on the same pixel.
        dots: points that are the centres of dots of several pixels.
    """

    bright: int = 0
    dark: int = 0
    centre: int = 0
    cut: int = 0
    twice: int = 0
    same: int = 0
    dots: int = 0

    def lines(self) -> list[str]:
        """One line for each kind of decision that was made."""
        found = []
        if self.bright + self.dark + self.centre:
            found.append(
                f"points of boxes: {self.bright} at the brightest local extremum, {self.dark} at the darkest,"
                f" {self.centre} at the centre, without one"
            )
        if self.cut:
            found.append(f"{plural(self.cut, 'box', 'boxes')} cut at the border of the image")
        if self.twice:
            found.append(f"{plural(self.twice, 'box', 'boxes')} left out, which mark a target for the second time")
        if self.same:
            found.append(f"{plural(self.same, 'point')} left out, on the same pixel as another")
        if self.dots:
            found.append(f"{plural(self.dots, 'dot')} of several pixels became points at their centres")
        return found


@dataclass(frozen=True)
class PixelTargets:
    """The targets of an image.

    Attributes:
        points: (P,2) int64, rows of (row, column) in row-major order.
        boxes: one (top, left, bottom, right) for each point, the last row and column exclusive, or None.
        faults: one line each; the marks that they name are left out.
    """

    points: np.ndarray
    boxes: list[tuple[int, int, int, int] | None] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def pixel_targets(
    marks: Sequence[Mark], image: np.ndarray, mask: np.ndarray | None, decisions: Decisions
) -> PixelTargets:
    """Points and boxes of an image.

    The point of a box without one is its brightest local extremum, or the darkest if that stands out more, else the
    centre. If the image has a mask, only target pixels count.

    Args:
        marks: as its annotations give them.
        image: (H,W), grey.
        mask: (H,W) bool or None.
        decisions: counts what was decided.
    """
    shape = (image.shape[0], image.shape[1])
    faults: list[str] = []
    found: list[tuple[int, int, tuple[int, int, int, int] | None]] = []
    for mark in _without_doubles(marks, decisions):
        box = None if mark.box is None else _whole(_scaled(mark.box, mark.shares, shape))
        if box is not None:
            inside = tuple(boxes_within([box], shape)[0].tolist())
            if inside[0] >= inside[2] or inside[1] >= inside[3]:
                faults.append(f"{mark.where}: the box lies outside the image, {shape[1]}x{shape[0]}, or is empty")
                continue
            decisions.cut += inside != box
            box = (inside[0], inside[1], inside[2], inside[3])
        if mark.point is not None:
            x, y = mark.point
            if mark.shares:
                x, y = x * shape[1] - 0.5, y * shape[0] - 0.5
            row, column = math.floor(y + 0.5 + _ROUNDING), math.floor(x + 0.5 + _ROUNDING)
            if not (0 <= row < shape[0] and 0 <= column < shape[1]):
                faults.append(f"{mark.where}: x={x:g}, y={y:g} is outside the image, {shape[1]}x{shape[0]}")
                continue
            if box is not None and not (box[0] <= row < box[2] and box[1] <= column < box[3]):
                faults.append(f"{mark.where}: the point x={x:g}, y={y:g} is outside its box")
                continue
        else:
            assert box is not None  # a mark has a point or a box
            row, column = box_point(image, box, mask, decisions)
        if any((row, column) == other[:2] for other in found):
            decisions.same += 1
        else:
            found.append((row, column, box))
    found.sort(key=lambda target: target[:2])
    points = np.array([target[:2] for target in found], np.int64).reshape(-1, 2)
    return PixelTargets(points, [target[2] for target in found], faults)


def _scaled(box: Box, shares: bool, shape: tuple[int, int]) -> Box:
    if not shares:
        return box
    return box[0] * shape[1], box[1] * shape[0], box[2] * shape[1], box[3] * shape[0]


def _whole(box: Box) -> tuple[int, int, int, int]:
    """The pixels that the edges of a box (left, top, right, bottom) touch, as (top, left, bottom, right)."""
    left, top, right, bottom = box
    return (
        math.floor(top + _ROUNDING),
        math.floor(left + _ROUNDING),
        math.ceil(bottom - _ROUNDING),
        math.ceil(right - _ROUNDING),
    )


def _without_doubles(marks: Sequence[Mark], decisions: Decisions) -> list[Mark]:
    kept: list[Mark] = []
    for mark in marks:
        twice = any(
            mark.box is not None and other.box is not None and _overlap(mark.box, other.box) > _SAME for other in kept
        )
        decisions.twice += twice
        kept += [] if twice else [mark]
    return kept


def _overlap(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(across, 0) * max(down, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def box_point(
    image: np.ndarray,
    box: tuple[int, int, int, int],
    mask: np.ndarray | None = None,
    decisions: Decisions | None = None,
) -> tuple[int, int]:
    """The pixel (row, column) that stands for a box.

    Args:
        image: (H,W), grey.
        box: (top, left, bottom, right) within the image, the last row and column exclusive.
        mask: (H,W) bool; if it has target pixels in the box, one of them is chosen. None for no mask.
        decisions: counts the choice.
    """
    decisions = Decisions() if decisions is None else decisions
    top, left, bottom, right = box
    margin = max(3, (bottom - top) // 2, (right - left) // 2)
    near = (slice(max(top - margin, 0), bottom + margin), slice(max(left - margin, 0), right + margin))
    window = image[near].astype(np.float32)
    rows, columns = np.mgrid[: window.shape[0], : window.shape[1]]
    rows, columns = rows + near[0].start, columns + near[1].start
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    background = float(np.median(window[~inside])) if not inside.all() else float(np.median(window))
    allowed = inside if mask is None or not (mask[near] & inside).any() else inside & mask[near]
    centre = ((top + bottom - 1) / 2, (left + right - 1) / 2)
    distance = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
    best: dict[bool, tuple[float, int]] = {}
    for dark in (False, True):
        rise = background - window if dark else window - background
        candidates = allowed & (rise >= cv2.dilate(rise, _NEIGHBOURS)) & (rise > 0)
        if candidates.any():
            highest = float(rise[candidates].max())
            ties = candidates & (rise == highest)
            best[dark] = (highest, int(np.where(ties, distance, np.inf).argmin()))
    if True in best and (False not in best or best[True][0] > DARKER * best[False][0]):
        decisions.dark += 1
        chosen = best[True][1]
    elif False in best:
        decisions.bright += 1
        chosen = best[False][1]
    else:
        decisions.centre += 1
        chosen = int(np.where(allowed, distance, np.inf).argmin())
    return int(rows.flat[chosen]), int(columns.flat[chosen])


def dot_points(marks: np.ndarray, decisions: Decisions) -> np.ndarray | None:
    """The points of an image of points: single pixels, and the centres of dots of at most 5x5 pixels.

    Args:
        marks: (H,W) bool.
        decisions: counts the dots.

    Returns:
        (P,2) int64, or None if a region is larger, or is no filled dot: then it is a mask.
    """
    count, _, stats, centroids = cv2.connectedComponentsWithStats(marks.view(np.uint8), connectivity=8)
    for label in range(1, count):
        width, height, area = (
            int(stats[label, key]) for key in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA)
        )
        if max(width, height) > DOT or abs(width - height) > 1 or area < 0.5 * width * height:
            return None
        decisions.dots += area > 1
    points = np.floor(centroids[1:, ::-1] + 0.5).astype(np.int64)
    ordered: np.ndarray = points[np.lexsort((points[:, 1], points[:, 0]))]
    return ordered


def regions_without(marks: np.ndarray, above: np.ndarray) -> int:
    """How many 8-connected regions of `marks` (H,W) bool have no pixel of `above` (H,W) bool."""
    count, labels = cv2.connectedComponents(marks.view(np.uint8), connectivity=8)
    return count - 1 - len(np.unique(labels[above & marks]))


def order_of_numbers(pairs: Sequence[tuple[float, float]], image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """How well pairs of numbers fit an image, read as (x, y) and as (row, column).

    Args:
        pairs: of one image.
        image: (H,W), grey.
        mask: (H,W) bool or None.

    Returns:
        (2,3) float64: for each of the two orders, how many pairs lie within the image, how many on a target of the
        mask, and the sum of how far the pixels stand out from their surroundings.
    """
    fits = np.zeros((2, 3))
    for order in (0, 1):
        for pair in pairs:
            x, y = pair if order == 0 else pair[::-1]
            row, column = math.floor(y + 0.5), math.floor(x + 0.5)
            if not (0 <= row < image.shape[0] and 0 <= column < image.shape[1]):
                continue
            around = image[max(row - 8, 0) : row + 9, max(column - 8, 0) : column + 9].astype(np.float64)
            middle = np.median(around)
            spread = np.median(np.abs(around - middle)) + 1e-9 + 0.01 * (around.max() - around.min())
            fits[order] += (
                1,
                mask is not None and bool(mask[row, column]),
                min(abs(float(image[row, column]) - middle) / spread, 20) if spread > 1e-9 else 0,
            )
    return fits
