"""The terms of metrics image by image, and the metrics of their sums over images.

Every metric is a function of sums over images. A table with the terms of one image in each row therefore gives the
metric of any choice of images: of all, of a bootstrap sample, of the images that several runs have held out. Two tables
of the same images compare two networks image by image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

POINT_TERMS = (
    *("common_area", "joint_area", "common_pixels", "joint_pixels"),
    *("points", "found", "size", "false_area", "pixels"),
)
"""Terms of the metrics by points. `common_area` and `joint_area`: sums of ``min(a, b)`` and ``max(a, b)`` over targets,
the area away from points added to the latter; `common_pixels` and `joint_pixels`: with the masks of the previous
evaluation; `points` and `found`: their numbers; `size`: sum of ``min(a, b) / max(a, b)``; `false_area`: away from any
point; `pixels`: of the image."""
MASK_TERMS = (
    *("intersection", "union", "targets", "matched", "false_pixels", "pixels"),
    *("image_iou", "image_weight"),
)
"""Terms of the metrics by masks: the fields of `ImageCounts`; the IoU of the image, and its weight in the mean of
nIoU."""
_RATIOS = {
    "point_pd": ("found", "points", 1.0),
    "point_fa": ("false_area", "pixels", 1e6),
    "point_size": ("size", "found", 1.0),
    "point_agreement": ("common_pixels", "joint_pixels", 1.0),
    "iou": ("intersection", "union", 1.0),
    "niou": ("image_iou", "image_weight", 1.0),
    "pd": ("matched", "targets", 1.0),
    "fa": ("false_pixels", "pixels", 1e6),
}
METRICS = ("point_score", *_RATIOS)
"""The metrics that sums give; those of the teacher have `TEACHER` before them."""
TEACHER = "teacher/"
"""Prefix of the teacher's terms and metrics."""


@dataclass(frozen=True, eq=False)
class ImageSums:
    """The terms of one evaluation, image by image.

    Attributes:
        names: of the N images.
        terms: names of the K columns: `POINT_TERMS`, `MASK_TERMS`, and those of the teacher with `TEACHER` before them.
        table: (N,K) float32.
    """

    names: tuple[str, ...]
    terms: tuple[str, ...]
    table: np.ndarray

    def __eq__(self, other: object) -> bool:
        """Whether names, terms and numbers are the same."""
        if not isinstance(other, ImageSums):
            return NotImplemented
        named = (self.names, self.terms) == (other.names, other.terms)
        return named and np.array_equal(self.table, other.table)


def image_sums(names: Sequence[str], tables: Mapping[str, np.ndarray]) -> ImageSums:
    """Put the columns of an evaluation together.

    Args:
        names: of the N images.
        tables: (N,) by name of the term.
    """
    columns = [np.asarray(column, np.float32) for column in tables.values()]
    return ImageSums(tuple(names), tuple(tables), np.stack(columns, axis=1))


def metric_of(name: str, terms: Sequence[str], sums: np.ndarray) -> np.ndarray:
    """A metric of sums over images.

    Args:
        name: of the metric: one of `METRICS`, or of the teacher, ``teacher/iou``.
        terms: names of the K columns.
        sums: (..., K) sums of the columns.

    Returns:
        (...) float64. Where a metric by points is undefined it is 0, one by masks is NaN.

    Raises:
        ValueError: a term of the metric is missing.
        KeyError: there is no such metric.
    """
    columns = iter([sums[..., terms.index(term)] for term in terms_of(name)])
    name = name.removeprefix(TEACHER)

    def ratio() -> np.ndarray:
        above, below = next(columns), next(columns)
        if name.startswith("point_"):
            below = np.maximum(below, 1e-12)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = above / below
        return found

    value: np.ndarray = ratio() * (1 + ratio()) / 2 if name == "point_score" else _RATIOS[name][2] * ratio()
    return value


def terms_of(name: str) -> tuple[str, ...]:
    """The terms that a metric is made of.

    Raises:
        KeyError: there is no such metric.
    """
    prefix = TEACHER if name.startswith(TEACHER) else ""
    own = name.removeprefix(prefix)
    needed = POINT_TERMS[:4] if own == "point_score" else _RATIOS[own][:2]
    return tuple(f"{prefix}{term}" for term in needed)
