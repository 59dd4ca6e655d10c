"""The marks of targets that annotation files give, before images are looked at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from semprior.errors import UserError

Box = tuple[float, float, float, float]

FindImage = Callable[[str], str | None]
"""From a name that an annotation gives, such as ``seq/0001.jpg``, to that of an image; None if there is none."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What splits are called in names of files and folders, and in columns of tables."""
SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(SPLIT_WORDS)})(?=$|[^a-z])", re.IGNORECASE)
"""Finds such a word in a name like ``instances_train2017``."""


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
        sizes: width and height of the image that was annotated, where the files tell it.
    """

    marks: dict[str, list[Mark]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    splits: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[str, tuple[float, float]] = field(default_factory=dict)
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

    def note_splits(self, path: Path, names: Iterable[str | None]) -> None:
        """Note the images of a file whose name tells a split, such as ``instances_train.json``."""
        if match := SPLIT.search(path.stem):
            self.splits.setdefault(SPLIT_WORDS[match[1].lower()], []).extend(name for name in names if name is not None)


def find_beside(find_image: FindImage, given: str, path: Path) -> str | None:
    """The image that an annotation file names; one beside it, if images of several folders have this name."""
    return find_image(given) or find_image(str(path.parent / given))


def extent(points: list[tuple[float, float]]) -> Box:
    """The box around the corners of a polygon (x, y)."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)
