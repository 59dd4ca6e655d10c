"""Full masks -> point labels: one pixel per target (8-connected component), at its centroid or anywhere on it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from semprior.data.annotations import POINT_FOLDER, POINT_TABLE
from semprior.data.images import encode_png, intensity_range_of, raise_fault
from semprior.data.layout import find_layout, read_scenes
from semprior.io.atomic_files import atomic_folder


def centroid_points(mask: np.ndarray) -> np.ndarray:
    """The target pixel nearest to the centroid of each component; among several, the first in row-major order.

    Args:
        mask: (H,W) bool.

    Returns:
        (P,2) int64 rows of (row, column), in the order of the components.
    """
    centred = [_nearest(pixels, pixels.mean(axis=0)) for pixels in _components(mask)]
    return np.array(centred, np.int64).reshape(-1, 2)


def coarse_points(mask: np.ndarray, seed: int | np.random.Generator) -> np.ndarray:
    """A random pixel of each component, like the click of a hurried annotator.

    Args:
        mask: (H,W) bool.
        seed: equal seeds give equal points.

    Returns:
        (P,2) int64 rows of (row, column), in the order of the components.
    """
    rng = np.random.default_rng(seed)
    clicked = [pixels[rng.integers(len(pixels))] for pixels in _components(mask)]
    return np.array(clicked, np.int64).reshape(-1, 2)


def target_boxes(mask: np.ndarray) -> np.ndarray:
    """The box of each component, in the order of `centroid_points` and `coarse_points`.

    Args:
        mask: (H,W) bool.

    Returns:
        (P,4) int64 rows of (top, left, bottom, right), the last row and column exclusive.
    """
    boxes = [(*pixels.min(axis=0), *(pixels.max(axis=0) + 1)) for pixels in _components(mask)]
    return np.array(boxes, np.int64).reshape(-1, 4)


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """Pixels (n,2) of each 8-connected component."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [np.argwhere(labels == label) for label in range(1, count)]


def _nearest(pixels: np.ndarray, centre: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = pixels[np.argmin(((pixels - centre) ** 2).sum(axis=1))]
    return nearest


def image_seed(seed: int, name: str) -> int:
    """The seed of one image, whose points thus depend on no other image."""
    digest = hashlib.sha256(f"points:{seed}:{name}".encode(errors="surrogateescape"))
    return int.from_bytes(digest.digest()[:8], "big")


def write_points(root: Path | str, coarse: bool = False, seed: int = 0) -> int:
    """Write ``masks_centroid/`` from the masks of a data set, for every image that its splits list.

    Args:
        root: folder of the data set.
        coarse: whether to choose random target pixels instead of centroids.
        seed: of coarse points.

    Returns:
        The number of points written.

    Raises:
        UserError: there are points already, or an image or mask has a fault; nothing is written.
    """
    root = Path(root)
    for path in (root / POINT_FOLDER, root / POINT_TABLE):
        if path.exists():
            raise_fault(f"{path}: exists already; move it away to make new points")
    layout = find_layout(root)
    intensity = intensity_range_of(paths[0] for paths in layout.images.values())
    scenes = [s for split in layout.splits for s in read_scenes(layout, split, intensity, masks="required")]
    count = 0
    with atomic_folder(root / POINT_FOLDER) as folder:
        for scene in scenes:
            assert scene.mask is not None  # required above
            points = coarse_points(scene.mask, image_seed(seed, scene.name)) if coarse else centroid_points(scene.mask)
            (folder / f"{scene.name}.png").write_bytes(encode_png(point_image(points, scene.mask.shape)))
            count += len(points)
    return count


def point_image(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Points (P,2) as an image (H,W) uint8: 255 at each, 0 elsewhere."""
    image = np.zeros(shape, np.uint8)
    image[points[:, 0], points[:, 1]] = 255
    return image
