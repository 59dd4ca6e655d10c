"""Pictures of what one or two detectors found: hits, misses and false alarms, whole and enlarged.

Hits are counted as the metrics count them: with masks as `semprior.evaluation.metrics`, with points alone as the point
score (`semprior.evaluation.point_score`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from semprior.data.connected_components import find_regions, label_regions
from semprior.evaluation.metrics import THRESHOLD, match_regions
from semprior.evaluation.point_score import MATCH_DISTANCE, match_points
from semprior.io.foreign_text import page_name
from semprior.pages.blocks import Mark, Picture, Pictures, Strip

MOST_IMAGES = 12
MOST_CROPS = 8  # of an image
WINDOW = 48  # side of an enlarged part, pixels
ZOOM = 3.0  # of an enlarged part
_WHOLE_WIDTH = 320  # of a whole image, pixels of the screen
_APART = 12.0  # pixels; nearer places share an enlarged part
_MARGIN = 3.0  # pixels between a target and its mark


@dataclass(frozen=True)
class Place:
    """A target or a false alarm in an image.

    Attributes:
        row: of its centre, in pixels.
        column: of its centre.
        radius: of a circle with its area, in pixels.
        score: the highest probability in it, 0..1.
        hit: whether it is a target that was found.
    """

    row: float
    column: float
    radius: float
    score: float
    hit: bool = False


@dataclass(frozen=True)
class Findings:
    """What a detector found in one image.

    Attributes:
        targets: the true ones, in an order that is the same for every detector.
        false_alarms: predicted components that belong to no target.
        threshold: of the probability, above which the detector predicts a target.
    """

    targets: tuple[Place, ...]
    false_alarms: tuple[Place, ...]
    threshold: float = THRESHOLD

    @property
    def misses(self) -> int:
        """Number of targets that were not found."""
        return sum(not target.hit for target in self.targets)


@dataclass(frozen=True)
class ExaminedImage:
    """An image, and what each detector found in it.

    Attributes:
        name: of the image.
        image: (H,W) uint8, grey.
        findings: of each detector, in the order of the detectors' names.
    """

    name: str
    image: np.ndarray
    findings: tuple[Findings, ...]


def examine(
    probability: np.ndarray, points: np.ndarray, mask: np.ndarray | None = None, threshold: float = THRESHOLD
) -> Findings:
    """Find the hits, misses and false alarms of one image.

    Args:
        probability: (H,W) float32, of a detector.
        points: (P,2) int, rows of (row, column); not used if there is a mask.
        mask: (H,W) bool, the true targets, whose components the predicted ones are matched with; None to match them
            with the points.
        threshold: of the probability, which the detector's run chose.
    """
    predicted = probability > threshold
    by = _by_points(probability, predicted, points) if mask is None else _by_mask(probability, predicted, mask)
    return Findings(*by, threshold)


def _by_mask(
    probability: np.ndarray, predicted: np.ndarray, mask: np.ndarray
) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    found, truth = find_regions(predicted), find_regions(mask)
    matches = match_regions(found, truth)
    scores = _highest(probability, label_regions(predicted), len(found))
    at_targets = _highest(probability, label_regions(mask), len(truth))
    targets = tuple(
        _place(centre, area, scores[match] if match >= 0 else own, hit=bool(match >= 0))
        for centre, area, own, match in zip(truth.centroids, truth.areas, at_targets, matches, strict=True)
    )
    free = np.setdiff1d(np.arange(len(found)), matches)
    return targets, tuple(_place(found.centroids[k], found.areas[k], scores[k]) for k in free)


def _by_points(
    probability: np.ndarray, predicted: np.ndarray, points: np.ndarray
) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    found = match_points(predicted, points)
    scores = _highest(probability, found.labels, len(found.areas))
    reach = int(MATCH_DISTANCE)
    targets = []
    for point, owner in zip(points, found.owners, strict=True):
        if owner:
            targets.append(_place(point, found.areas[owner - 1], scores[owner - 1], hit=True))
        else:
            top, left = np.maximum(point - reach, 0)
            around = probability[top : point[0] + reach + 1, left : point[1] + reach + 1]
            targets.append(_place(point, 1.0, float(around.max())))
    free = np.setdiff1d(np.arange(len(found.areas)), found.owners - 1)
    return tuple(targets), tuple(_place(found.centroids[k], found.areas[k], scores[k]) for k in free)


def _highest(probability: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The highest probability in each of the components 1..count, (count,) float32."""
    highest = np.zeros(count + 1, np.float32)
    inside = labels > 0
    np.maximum.at(highest, labels[inside], probability[inside])
    return highest[1:]


def _place(centre: np.ndarray, area: float, score: float, *, hit: bool = False) -> Place:
    return Place(float(centre[0]), float(centre[1]), float(np.sqrt(area / np.pi)), float(score), hit)


def detection_pictures(images: Sequence[ExaminedImage], detectors: Sequence[str], most: int = MOST_IMAGES) -> Pictures:
    """Pictures of the images that tell most: where two detectors differ most, or where one fails most.

    For each image there is the whole for every detector, and enlarged parts around targets and false alarms.

    Args:
        images: any number of them.
        detectors: names of the one or two detectors whose findings the images hold.
        most: number of images to show.

    Raises:
        ValueError: an image has the findings of another number of detectors.
    """
    if len(detectors) not in (1, 2) or any(len(image.findings) != len(detectors) for image in images):
        raise ValueError(f"findings of another number of detectors than {len(detectors)}")
    rank = _disagreement if len(detectors) == 2 else _failures
    chosen = sorted(images, key=rank, reverse=True)[:most]
    return Pictures(
        tuple(_strip(image, detectors) for image in chosen),
        f"{_totals(images, detectors)} {_choice(len(chosen), len(images), detectors)}{_thresholds(images, detectors)}"
        f" Enlarged parts are magnified {ZOOM:g} times.{_beside(images)}",
    )


def _failures(image: ExaminedImage) -> tuple[float, ...]:
    """The more a detector fails in an image, the larger it is; of equal ones the less certain are larger."""
    (found,) = image.findings
    doubt = max((1 - target.score for target in found.targets), default=0.0)
    return found.misses + len(found.false_alarms), doubt


def _disagreement(image: ExaminedImage) -> tuple[float, ...]:
    """The more two detectors differ in an image, the larger it is."""
    one, other = image.findings
    pairs = list(zip(one.targets, other.targets, strict=True))
    differing = sum(a.hit != b.hit for a, b in pairs)
    differing += sum(not _near(place, other.false_alarms) for place in one.false_alarms)
    differing += sum(not _near(place, one.false_alarms) for place in other.false_alarms)
    return differing, sum(abs(a.score - b.score) for a, b in pairs)


def _near(place: Place, others: Sequence[Place], distance: float = MATCH_DISTANCE) -> bool:
    return any(np.hypot(place.row - other.row, place.column - other.column) < distance for other in others)


def _totals(images: Sequence[ExaminedImage], detectors: Sequence[str]) -> str:
    sentences = []
    for number, name in enumerate(detectors):
        found = [image.findings[number] for image in images]
        targets, misses = sum(len(one.targets) for one in found), sum(one.misses for one in found)
        false = sum(len(one.false_alarms) for one in found)
        alarms = f"{false} false alarm{'' if false == 1 else 's'}"
        hits = targets - misses
        sentences.append(f"{name[:1].upper()}{name[1:]}: {hits} of {targets} targets hit, {misses} missed, {alarms}.")
    return " ".join(sentences)


def _choice(shown: int, total: int, detectors: Sequence[str]) -> str:
    first = "those in which the two differ most" if len(detectors) == 2 else "those with most misses and false alarms"
    which = f"{shown} of {total} images are shown" if shown < total else "All images are shown"
    return f"{which}, {first} first. The number beside a mark is the highest probability there; "


def _thresholds(images: Sequence[ExaminedImage], detectors: Sequence[str]) -> str:
    """From which probability on a target counts as found: of each detector, and of each fold's."""
    of_each = [sorted({image.findings[number].threshold for image in images}) for number in range(len(detectors))]
    if all(one == of_each[0] for one in of_each):
        return f"a target counts as found above {' or '.join(f'{value:g}' for value in of_each[0])}."
    each = ", ".join(
        f"by {name} above {' or '.join(f'{value:g}' for value in values)}"
        for name, values in zip(detectors, of_each, strict=True)
    )
    return f"a target counts as found {each}."


def _beside(images: Sequence[ExaminedImage]) -> str:
    """Why a target can be missed where something was predicted, if there is such a one."""
    every = [found for image in images for found in image.findings]
    if all(target.hit or target.score <= found.threshold for found in every for target in found.targets):
        return ""
    return (
        f" A prediction whose centre is {MATCH_DISTANCE:g} pixels or more from that of a target does not count for it:"
        " the target is missed, and the prediction a false alarm."
    )


def _strip(image: ExaminedImage, detectors: Sequence[str]) -> Strip:
    height, width = image.image.shape
    whole = min(2.0, _WHOLE_WIDTH / max(height, width))
    marks = [_marks(found) for found in image.findings]
    pictures = [
        Picture(image.image, _in_words(name, found), f"{name}: {_counted(found)}", own, zoom=whole)
        for name, found, own in zip(detectors, image.findings, marks, strict=True)
    ]
    places = list(_places(image.findings))
    for place in places[:MOST_CROPS]:
        crop = _crop(place, height, width)
        for name, found, own in zip(detectors, image.findings, marks, strict=True):
            text = _at(place, found)
            caption = f"{name}: {text}" if len(detectors) > 1 else text
            inside = tuple(mark for mark in own if _within(mark, crop))
            alt = f"Enlarged part at row {place.row:.0f}, column {place.column:.0f}, {name}: {text}."
            pictures.append(Picture(image.image, alt, caption, inside, crop, ZOOM))
    more = len(places) - MOST_CROPS
    title = page_name(image.name) + (f" ({more} more places are not enlarged)" if more > 0 else "")
    return Strip(title, tuple(pictures), len(detectors))


def _marks(found: Findings) -> tuple[Mark, ...]:
    targets = [
        Mark(one.row, one.column, one.radius + _MARGIN, "hit" if one.hit else "miss", f"{one.score:.2f}")
        for one in found.targets
    ]
    false = [
        Mark(one.row, one.column, one.radius + _MARGIN, "false alarm", f"{one.score:.2f}") for one in found.false_alarms
    ]
    return (*targets, *false)


def _places(findings: Sequence[Findings]) -> Iterator[Place]:
    """Places to enlarge: targets on which the detectors differ, misses, false alarms, hits; each neighbourhood once."""
    columns = list(zip(*(found.targets for found in findings), strict=True))
    ranked = sorted(columns, key=lambda same: (len({one.hit for one in same}) == 1, same[0].hit))
    missed = [same[0] for same in ranked if not all(one.hit for one in same)]
    hit = [same[0] for same in ranked if all(one.hit for one in same)]
    false = sorted((place for found in findings for place in found.false_alarms), key=lambda place: -place.score)
    taken: list[Place] = []
    for place in (*missed, *false, *hit):
        if not _near(place, taken, _APART):
            taken.append(place)
            yield place


def _crop(place: Place, height: int, width: int) -> tuple[int, int, int, int]:
    rows, columns = min(WINDOW, height), min(WINDOW, width)
    top = int(np.clip(round(place.row) - rows // 2, 0, height - rows))
    left = int(np.clip(round(place.column) - columns // 2, 0, width - columns))
    return top, left, rows, columns


def _within(mark: Mark, crop: tuple[int, int, int, int]) -> bool:
    top, left, rows, columns = crop
    return top <= mark.row < top + rows and left <= mark.column < left + columns


def _at(place: Place, found: Findings) -> str:
    """What a detector found at a place, in a few words."""
    for target in found.targets:
        if _near(target, [place], 0.5):
            return f"{'hit' if target.hit else 'missed'}, {target.score:.2f}"
    for alarm in found.false_alarms:
        if _near(alarm, [place]):
            return f"false alarm, {alarm.score:.2f}"
    return "nothing here"


def _counted(found: Findings) -> str:
    counts = (
        (len(found.targets) - found.misses, "hit", "hits"),
        (found.misses, "missed", "missed"),
        (len(found.false_alarms), "false alarm", "false alarms"),
    )
    return ", ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count) or "nothing"


def _in_words(name: str, found: Findings) -> str:
    places = [
        f"{'hit' if one.hit else 'missed target'} at row {one.row:.0f}, column {one.column:.0f} ({one.score:.2f})"
        for one in found.targets
    ]
    places += [
        f"false alarm at row {one.row:.0f}, column {one.column:.0f} ({one.score:.2f})" for one in found.false_alarms
    ]
    return f"Detections of {name}: {'; '.join(places) or 'nothing'}."
