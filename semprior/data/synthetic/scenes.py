"""Synthetic infrared scenes: a background, up to three targets with true masks, and a sensor with its faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from semprior.data.finding.split_lists import SPLITS
from semprior.data.images import encode_png, raise_fault
from semprior.data.layout import Scene
from semprior.data.points import centroid_points, point_image
from semprior.data.splits import seeded_splits
from semprior.data.synthetic.backgrounds import BACKGROUNDS, Shape
from semprior.data.synthetic.targets import KINDS, add_target
from semprior.io.atomic_files import atomic_folder

BACKGROUND_SHARES = {"sky": 0.25, "clouds": 0.3, "sea": 0.15, "ground": 0.15, "treetops": 0.15}
TARGET_COUNTS = (0.06, 0.66, 0.2, 0.08)  # shares of images with 0, 1, 2 and 3 targets


def synth_scene(
    rng: np.random.Generator,
    size: Shape | None = None,
    *,
    name: str = "scene",
    background: str | None = None,
    kinds: Sequence[str] | None = None,
) -> Scene:
    """Draw a scene.

    Args:
        rng: the source of randomness; equal states give equal scenes.
        size: (H,W), at least 64 each; by default drawn around 200x256.
        name: of the scene.
        background: a key of `BACKGROUNDS`; by default drawn.
        kinds: of the targets, from `targets.KINDS`; by default up to three are drawn. A target that does not fit is
            omitted.

    Returns:
        The scene with its mask, and points at the targets' centroids.
    """
    if size is None:
        size = (int(rng.integers(170, 241)), int(rng.integers(210, 311)))
    if background is None:
        background = str(rng.choice(list(BACKGROUND_SHARES), p=list(BACKGROUND_SHARES.values())))
    if kinds is None:
        count = rng.choice(len(TARGET_COUNTS), p=TARGET_COUNTS)
        kinds = [str(kind) for kind in rng.choice(list(KINDS), count, p=list(KINDS.values()))]
    radiance = BACKGROUNDS[background](rng, size)
    radiance = cv2.GaussianBlur(radiance.astype(np.float32), (0, 0), rng.uniform(0.6, 1.0))  # the optics
    radiance = _vignetted(rng, np.clip(radiance, 4, 250))
    noise = float(np.exp(rng.uniform(np.log(0.4), np.log(3))))
    mask = np.zeros(size, bool)
    for kind in kinds:
        radiance, mask = add_target(rng, radiance, mask, kind, noise)
    image = sensed(rng, radiance, noise)
    return Scene(name, image, centroid_points(mask), mask)


def _vignetted(rng: np.random.Generator, radiance: np.ndarray) -> np.ndarray:
    """Darken towards the corners, as a lens does (cos^4 of the field angle)."""
    rows, columns = np.mgrid[: radiance.shape[0], : radiance.shape[1]].astype(np.float32)
    centre = np.array(radiance.shape) / 2 + rng.normal(0, 6, 2)
    field = np.hypot(rows - centre[0], columns - centre[1]) / np.hypot(*radiance.shape)
    reach = rng.uniform(0, 0.9)
    darkened: np.ndarray = (radiance / (1 + (reach * field) ** 2) ** 2).astype(np.float32)
    return darkened


def sensed(rng: np.random.Generator, radiance: np.ndarray, noise: float) -> np.ndarray:
    """The image (H,W) uint8 that a sensor makes of radiance, with stripes, noise and perhaps sharpening halos."""
    height, width = radiance.shape
    stripes = float(np.exp(rng.uniform(np.log(0.1), np.log(1.2))))  # grey levels
    fixed = rng.normal(0, stripes, (width,))[None] + rng.normal(0, 0.3 * stripes, (height,))[:, None]
    image: np.ndarray = radiance + fixed + noise * rng.standard_normal(radiance.shape)
    if rng.random() < 0.6:  # smoothing or compression on the way to the file
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.7))
    if rng.random() < 0.25:
        image = image + rng.uniform(0.2, 0.6) * (image - cv2.GaussianBlur(image, (0, 0), rng.uniform(3, 6)))
    grey: np.ndarray = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return grey


def scene_at(index: int, seed: int) -> Scene:
    """The scene of an index, which does not depend on other scenes."""
    return synth_scene(np.random.default_rng([seed, index]), name=f"scene_{index:04d}")


def write_scenes(folder: Path | str, count: int, seed: int = 0) -> None:
    """Write scenes as a data set in the SIRST layout: images, labels, masks_centroid and mode.

    The splits are 60 / 20 / 20. The folder appears whole or not at all.

    Args:
        folder: to create.
        count: of scenes, at least 3.
        seed: equal seeds give equal files, whatever the count.

    Raises:
        UserError: the folder exists or cannot be made, or the count is too small.
    """
    if count < 3:
        raise_fault(f"--count {count}: at least 3 scenes are needed, one for each split")
    with atomic_folder(Path(folder)) as root:
        _write_files(root, [scene_at(index, seed) for index in range(count)])


def _write_files(root: Path, scenes: list[Scene]) -> None:
    for part in ("images", "labels", "masks_centroid", "mode"):
        (root / part).mkdir()
    for scene in scenes:
        assert scene.mask is not None  # synthetic scenes have masks
        pictures = {
            "images": scene.image,
            "labels": scene.mask.astype(np.uint8) * 255,
            "masks_centroid": point_image(scene.points, scene.mask.shape),
        }
        for part, picture in pictures.items():
            (root / part / f"{scene.name}.png").write_bytes(encode_png(picture))
    splits = seeded_splits([scene.name for scene in scenes], root)
    for split in SPLITS:
        (root / "mode" / f"{split}.txt").write_text("".join(f"{name}\n" for name in splits[split]), encoding="utf-8")
