"""Functions that several families of statistics share: gradient, edges, entropy, histograms, quotients."""

from dataclasses import dataclass
from math import nan

import cv2
import numpy as np

EDGE_LOW, EDGE_HIGH = 5.0, 10.0  # hysteresis of the edges, grey levels per pixel
SOBEL_GAIN = 8.0  # response of the plain 3x3 Sobel kernels to a slope of one grey level per pixel


@dataclass(frozen=True, eq=False)
class Gradient:
    """The 3x3 Sobel gradient of a picture and its Canny edges.

    Attributes:
        across, down: (H, W) float32, grey levels per pixel along columns and along rows.
        magnitude: (H, W) float32, grey levels per pixel.
        edges: (H, W) bool, Canny edges with hysteresis 5 and 10 grey levels per pixel.
    """

    across: np.ndarray
    down: np.ndarray
    magnitude: np.ndarray
    edges: np.ndarray


def gradient(image: np.ndarray) -> Gradient:
    """Sobel gradient and Canny edges of a (H, W) uint8 picture, which is mirrored beyond its border."""
    across = cv2.Sobel(image, cv2.CV_16S, 1, 0, borderType=cv2.BORDER_REFLECT_101)
    down = cv2.Sobel(image, cv2.CV_16S, 0, 1, borderType=cv2.BORDER_REFLECT_101)
    edges = cv2.Canny(across, down, EDGE_LOW * SOBEL_GAIN, EDGE_HIGH * SOBEL_GAIN, L2gradient=True) > 0
    across = across.astype(np.float32) / np.float32(SOBEL_GAIN)
    down = down.astype(np.float32) / np.float32(SOBEL_GAIN)
    # Not cv2.magnitude, whose last bit depends on the memory alignment of the arrays.
    return Gradient(across, down, np.sqrt(across * across + down * down), edges)


def quotient(numerator: float, denominator: float) -> float:
    """The quotient as a float; NaN if the denominator is 0 and the statistic thus has no value for this picture."""
    return float(numerator) / float(denominator) if denominator else nan


def entropy_bits(weights: np.ndarray) -> float:
    """Shannon entropy in bits of non-negative weights of any shape and sum; NaN if all are 0."""
    positive = weights[weights > 0].astype(np.float64)
    if not positive.size:
        return nan
    shares = positive / positive.sum()
    return max(0.0, -float(shares @ np.log2(shares)))


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the least-squares line through the points of two (N,) arrays, N at least 2."""
    centred = x - x.mean()
    return float(centred @ y) / float(centred @ centred)


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a (H, W) float32 picture; the kernel ends at 3 `sigma` (pixels), the border is mirrored."""
    side = 2 * round(3 * sigma) + 1
    return cv2.GaussianBlur(picture, (side, side), sigma, borderType=cv2.BORDER_REFLECT)


def histogram(picture: np.ndarray, bins: int, top: float) -> np.ndarray:
    """(bins,) float64 counts of the values of a (H, W) uint8, uint16 or float32 picture in equal bins of [0, top)."""
    return cv2.calcHist([picture], [0], None, [bins], [0, top]).ravel().astype(np.float64)


def grouped_median(counts: np.ndarray) -> float:
    """Median, in units of bins, of values counted in (bins,) bins and assumed uniform within each bin."""
    reached = np.cumsum(counts)
    half = reached[-1] / 2
    middle = int(np.searchsorted(reached, half))
    return middle + 1 - float(reached[middle] - half) / float(counts[middle])


def mean_and_variance(picture: np.ndarray) -> tuple[float, float]:
    """Mean and population variance of a (H, W) picture, summed in double precision."""
    mean = cv2.mean(picture)[0]
    return mean, max(0.0, cv2.norm(picture, cv2.NORM_L2SQR) / picture.size - mean * mean)
