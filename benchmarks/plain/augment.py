"""Crops and augmentation, one image at a time (method, section 7)."""

from collections.abc import Callable

import cv2
import numpy as np

# A sample is an image (H, W, 3) uint8 and a mask (H, W) uint8 of 0 and 1.
Sample = tuple[np.ndarray, np.ndarray]
Transform = Callable[[np.ndarray, np.ndarray, np.random.Generator], Sample]


def crop(
    image: np.ndarray, mask: np.ndarray, rng: np.random.Generator, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a window of `size` at a uniform offset from a grey image and a mask, both (H, W) uint8.

    What is too small is padded with 0 on the right and at the bottom.
    """
    down, right = max(0, size - image.shape[0]), max(0, size - image.shape[1])
    image = np.pad(image, ((0, down), (0, right)))
    mask = np.pad(mask, ((0, down), (0, right)))
    row = int(rng.integers(0, image.shape[0] - size + 1))
    column = int(rng.integers(0, image.shape[1] - size + 1))
    return image[row : row + size, column : column + size], mask[row : row + size, column : column + size]


def _clip(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)  # cuts fractions off


def _warp(image: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> Sample:
    size = (image.shape[1], image.shape[0])
    image = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mask = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
    return image, mask


def _centre(image: np.ndarray) -> tuple[float, float]:
    return (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2


def flip_vertical(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Upside down."""
    return image[::-1], mask[::-1]


def flip_horizontal(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Left to right."""
    return image[:, ::-1], mask[:, ::-1]


def transpose(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Rows for columns."""
    return image.swapaxes(0, 1), mask.swapaxes(0, 1)


def rot90(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """0 to 3 quarter turns."""
    turns = int(rng.integers(0, 4))
    return np.rot90(image, turns), np.rot90(mask, turns)


def brightness(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Add U(-.3, .3) * 255."""
    return _clip(image.astype(np.float32) + rng.uniform(-0.3, 0.3) * 255), mask


def contrast(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Multiply by 1 + U(-.3, .3)."""
    return _clip(image.astype(np.float32) * (1 + rng.uniform(-0.3, 0.3))), mask


def rotation(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Turn by U(-45, 45) degrees about the centre."""
    return _warp(image, mask, cv2.getRotationMatrix2D(_centre(image), rng.uniform(-45, 45), 1.0))


def shift(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Shift both ways by U(-.1, .1) of the side, sub-pixel."""
    dx, dy = rng.uniform(-0.1, 0.1) * image.shape[1], rng.uniform(-0.1, 0.1) * image.shape[0]
    return _warp(image, mask, np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]]))


def scale(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Scale by U(.8, 1.2) about the centre; the size of the image stays."""
    return _warp(image, mask, cv2.getRotationMatrix2D(_centre(image), 0.0, rng.uniform(0.8, 1.2)))


def noise(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Gaussian noise of variance U(10, 50), independent per channel."""
    sigma = np.sqrt(rng.uniform(10, 50))
    return _clip(image.astype(np.float32) + rng.normal(0, sigma, image.shape)), mask


def nothing(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """Leave the sample alone."""
    return image, mask


TRANSFORMS: tuple[tuple[Transform, float], ...] = (
    (flip_vertical, 0.5),
    (flip_horizontal, 0.5),
    (transpose, 0.5),
    (rot90, 0.5),
    (brightness, 0.2),
    (contrast, 0.2),
    (rotation, 0.3),
    (shift, 0.5),
    (scale, 0.5),
    (noise, 0.2),
    (nothing, 0.5),
    (nothing, 0.5),
)


def augment(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Sample:
    """With probability 0.5, apply three transforms drawn with replacement, in the order drawn."""
    if rng.random() < 0.5:
        shares = np.array([share for _, share in TRANSFORMS])
        for index in rng.choice(len(TRANSFORMS), size=3, replace=True, p=shares / shares.sum()):
            image, mask = TRANSFORMS[index][0](np.ascontiguousarray(image), np.ascontiguousarray(mask), rng)
    return image, mask


def batch(
    images: list[np.ndarray],
    masks: list[np.ndarray],
    rng: np.random.Generator,
    mean: float,
    std: float,
    size: int = 256,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crop and augment a batch.

    Args:
        images: grey images (H, W) uint8.
        masks: soft pseudo-masks (H, W) uint8, thresholded here (stored >= 128).
        rng: where offsets and transforms are drawn.
        mean: of the normalisation, / 255.
        std: of the normalisation, / 255.
        size: side of the crops.

    Returns:
        normalised images (B, 3, size, size) float32, masks (B, 1, size, size) float32 of 0 and 1, and the grey crops
        before augmentation (B, 1, size, size) float32 in 0..1, as the VFM takes them.
    """
    inputs, targets, crops = [], [], []
    for image, soft in zip(images, masks, strict=True):
        grey, mask = crop(image, (soft >= 128).astype(np.uint8), rng, size)
        colour, mask = augment(np.repeat(grey[:, :, None], 3, axis=2), mask, rng)
        normal = (colour.astype(np.float32) / 255 - mean) / std
        inputs.append(normal.transpose(2, 0, 1))
        targets.append(mask[None].astype(np.float32))
        crops.append(grey[None].astype(np.float32) / 255)
    return np.stack(inputs).astype(np.float32), np.stack(targets), np.stack(crops)
