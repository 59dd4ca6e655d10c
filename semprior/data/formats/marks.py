"""The marks of targets that annotation files give, before images are looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from semprior.errors import UserError

Box = tuple[float, float, float, float]

FindImage = Callable[[str], str | None]
"""From a name that an annotation gives, such as ``seq/0001.jpg``, to that of an image; None if there is none."""


@dataclass(frozen=True)
class Mark:
    """One target.

    Attributes:
        where: file and line or entry, for messages.
        point: (x, y), column and row in pixels counted from 0; None if only a box is given.
        box: (left, top, right, bottom) in pixels, the edges of the box, so that a box around the first pixel alone is
            (0, 0, 1, 1); None if only a point is given.
        shares: whether the numbers are shares of the image's width and height instead of pixels.
    """

    where: str
    point: tuple[float, float] | None = None
    box: Box | None = None
    shares: bool = False


@dataclass
class Annotations:
    """The marks of annotation files of one format.

    Attributes:
        marks: by name of the image; an image that was annotated with nothing has an empty list.
        notes: what reading them decided, one line each.
        strangers: names that fit no image.
        labels: number of marks of each class; all of them are targets.
        splits: names of images by split, where the files tell it.
    """

    marks: dict[str, list[Mark]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    splits: dict[str, list[str]] = field(default_factory=dict)
    _given: dict[str, str] = field(default_factory=dict, repr=False)

    def claim(self, name: str, given: str, where: str) -> None:
        """Note by which name annotations call an image.

        Raises:
            UserError: another name meant the same image, like that of a frame of another sequence.
        """
        earlier = self._given.setdefault(name, given)
        if earlier != given:
            given, earlier = " ".join(given.split()), " ".join(earlier.split())
            raise UserError(f"{where}: {given} and {earlier} both seem to be the image {name}; rename one")

    def add(self, name: str, marks: list[Mark]) -> None:
        """Add the marks of an image."""
        self.marks.setdefault(name, []).extend(marks)


def extent(points: list[tuple[float, float]]) -> Box:
    """The box around the corners of a polygon (x, y)."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)
