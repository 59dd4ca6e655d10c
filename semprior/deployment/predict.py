"""Predicts images and writes masks, probabilities and detections to a folder.

For each image there are ``NAME_mask.png`` (0 and 255), ``NAME_probability.png`` (255 times the probability) and, on
request, ``NAME_overlay.png``. ``detections.csv`` has a row for each 8-connected component of a mask:
``image,x,y,score,area``, where ``image`` is NAME as `csv_cell` shows it (a name like ``=1`` would be a formula), ``x``
(column) and ``y`` (row) are its centroid in pixels, ``score`` is its highest probability and ``area`` its number of
pixels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from semprior.data.images import encode_png, read_image, stem
from semprior.deployment.evaluate import checked_threshold
from semprior.deployment.load_model import Student
from semprior.deployment.onnx_model import OnnxStudent
from semprior.errors import UserError
from semprior.io.atomic_files import write_atomically
from semprior.io.foreign_text import csv_cell

TABLE = "detections.csv"
COLUMNS = ("image", "x", "y", "score", "area")
_BATCH = 16  # images in memory
_RED = (255, 48, 48)


@dataclass(frozen=True)
class Detection:
    """One 8-connected component of a predicted mask.

    Attributes:
        x: column of its centroid, in pixels from the centre of the first column.
        y: row of its centroid.
        score: highest probability in it.
        area: in pixels.
    """

    x: float
    y: float
    score: float
    area: int


def detections(probability: np.ndarray, threshold: float) -> list[Detection]:
    """The components of the pixels whose probability, (H,W) float32, exceeds a threshold, from top to bottom."""
    mask = (probability > threshold).astype(np.uint8)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    found = []
    for component in range(1, count):
        left, top, width, height, area = (int(number) for number in stats[component])
        inside = labels[top : top + height, left : left + width] == component
        score = probability[top : top + height, left : left + width][inside].max()
        x, y = centroids[component]
        found.append(Detection(float(x), float(y), float(score), area))
    return sorted(found, key=lambda detection: (detection.y, detection.x))


def predict(
    student: Student | OnnxStudent,
    images: Sequence[Path],
    out: Path,
    *,
    overlay: bool = False,
    threshold: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> int:
    """Predict images and write the results to a folder.

    Every image is read once before anything is written. Files of the same name in `out` are replaced; the table of
    detections is written last.

    Args:
        student: from `load_model.load_student` or `onnx_model.load_onnx`; its intensity range is applied to the images.
        images: files.
        out: folder, created if it does not exist.
        overlay: whether to write the images with outlines of the targets, too.
        threshold: of the probability, in 0..1; None for the one that the run chose on the images it held out.
        say: takes one line for each thing the user should know.

    Returns:
        The number of detections.

    Raises:
        UserError: an image cannot be read, or the threshold is outside 0..1; nothing was written.
    """
    threshold = student.info.threshold if threshold is None else checked_threshold(threshold)
    if not images:
        raise UserError("IMAGE: name at least one image")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is not a folder")
    names = output_names(images)
    for image in images:
        grey = read_image(image, student.info.intensity)
        if isinstance(student, OnnxStudent) and grey is not None:
            student.require_size(grey.shape, str(image))
    kinds = ("mask", "probability", "overlay")[: 3 if overlay else 2]
    _refuse_overwriting(images, {out / f"{name}_{kind}.png" for name in names for kind in kinds} | {out / TABLE})
    for image, name in zip(images, names, strict=True):
        if name != stem(image.name):
            say(f"{image}: another image has the same name; this one is called {name}")
    out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, Detection]] = []
    for name, grey, probability in _predicted(student, images, names):
        mask = probability > threshold
        pictures = {"mask": mask.astype(np.uint8) * 255, "probability": np.rint(probability * 255).astype(np.uint8)}
        if overlay:
            pictures["overlay"] = outlined(grey, mask)
        for kind, picture in pictures.items():
            write_atomically(out / f"{name}_{kind}.png", encode_png(picture))
        rows += [(name, detection) for detection in detections(probability, threshold)]
    write_atomically(out / TABLE, _table(rows).encode())
    return len(rows)


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H,W) uint8 with red outlines around the targets of a mask (H,W) bool: (H,W,3) uint8 RGB."""
    picture = np.repeat(image[..., None], 3, axis=2)
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    picture[grown & ~near] = _RED
    return picture


def output_names(images: Sequence[Path]) -> list[str]:
    """A name for each image: its own without extension; a repeated name gets ``-2``, ``-3``, ..."""
    own = [stem(image.name) for image in images]
    names: list[str] = []
    for name in own:
        chosen, number = name, 1
        while chosen in names or (number > 1 and chosen in own):
            number += 1
            chosen = f"{name}-{number}"
        names.append(chosen)
    return names


def _refuse_overwriting(images: Sequence[Path], outputs: set[Path]) -> None:
    written = {path.resolve() for path in outputs}
    for image in images:
        if image.resolve() in written:
            raise UserError(f"{image}: would be overwritten by a result; choose another --out")


def _predicted(
    student: Student | OnnxStudent, images: Sequence[Path], names: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, image (H,W) uint8 and probability (H,W) float32 of each image, with a few images in memory."""
    for start in range(0, len(images), _BATCH):
        batch = slice(start, start + _BATCH)
        grey = [_read(image, student) for image in images[batch]]
        yield from zip(names[batch], grey, student.probabilities(grey), strict=True)


def _read(image: Path, student: Student | OnnxStudent) -> np.ndarray:
    grey = read_image(image, student.info.intensity)
    assert grey is not None  # without a list of faults, a fault is raised
    return grey


def _table(rows: Sequence[tuple[str, Detection]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, found in rows:
        writer.writerow((csv_cell(name), f"{found.x:.2f}", f"{found.y:.2f}", f"{found.score:.4f}", found.area))
    return text.getvalue()
