"""Statistics of neighbouring grey values: co-occurrence, local binary patterns, contrast-normalised pixels."""

from math import nan

import cv2
import numpy as np

from semprior.clustering.common import entropy_bits, histogram, mean_and_variance

LEVELS = 32
DISTANCES = (1, 2, 4)  # pixels
_GLCM = ("contrast", "homogeneity", "energy", "correlation", "entropy")
_LEVEL = np.arange(LEVELS, dtype=np.float64)
_DIFFERENCE = np.square(_LEVEL[:, None] - _LEVEL).ravel()
_STEPS = ((0, 1), (1, 1), (1, 0), (1, -1))  # rows and columns to the neighbour at 0, 45, 90 and 135 degrees
_RING = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))  # the 8 neighbours, clockwise
MSCN_SIDE, MSCN_SIGMA = 7, 7 / 6  # pixels


def texture_statistics(image: np.ndarray) -> dict[str, float]:
    """Texture of a (H, W) uint8 picture (method, section 8).

    Returns:
        - ``glcm_contrast`` (levels squared), ``glcm_homogeneity``, ``glcm_energy``, ``glcm_correlation`` and
          ``glcm_entropy`` (bits), see `cooccurrence_statistics`.
        - ``lbp_entropy`` (bits), ``lbp_edge``, ``lbp_nonuniform``, see `pattern_statistics`.
        - ``mscn_variance``, ``mscn_kurtosis``: variance and excess kurtosis of the mean-subtracted
          contrast-normalised pixels ``(value - mean) / (deviation + 1)``, mean and deviation over a 7x7
          Gaussian window of sigma 7/6; the kurtosis is NaN if constant.
    """
    return {**cooccurrence_statistics(image), **pattern_statistics(image), **_mscn_statistics(image)}


def cooccurrence_statistics(image: np.ndarray) -> dict[str, float]:
    """Haralick's measures of the symmetric co-occurrence matrices of a (H, W) uint8 picture in 32 grey levels.

    There is one matrix per distance (1, 2, 4) and angle (4); on a diagonal, the distance counts rows and columns. With
    p_ij a matrix that sums to 1, the statistics are the means over all non-empty matrices of
    ``sum p (i - j)^2``, ``sum p / (1 + (i - j)^2)``, ``sqrt(sum p^2)``,
    ``sum p (i - mean)(j - mean) / variance`` (over the matrices whose variance is not 0) and ``-sum p log2 p``; NaN
    if there are none.
    """
    counts = _cooccurrences(image).reshape(-1, LEVELS**2)
    pairs = counts.sum(axis=1)
    matrices = counts[pairs > 0] / pairs[pairs > 0, None]
    if not len(matrices):
        return dict.fromkeys((f"glcm_{name}" for name in _GLCM), nan)
    contrast = matrices @ _DIFFERENCE
    marginal = matrices.reshape(-1, LEVELS, LEVELS).sum(axis=2)
    mean = marginal @ _LEVEL
    variance = marginal @ _LEVEL**2 - mean**2
    varied = np.count_nonzero(marginal, axis=1) > 1
    # E(i - j)^2 = 2 variance - 2 covariance, since both marginals of a symmetric matrix are equal.
    correlation = 1 - contrast[varied] / (2 * variance[varied])
    logarithm = np.log2(matrices, out=np.zeros_like(matrices), where=matrices > 0)
    return {
        "glcm_contrast": float(contrast.mean()),
        "glcm_homogeneity": float((matrices @ (1 / (1 + _DIFFERENCE))).mean()),
        "glcm_energy": float(np.sqrt((matrices * matrices).sum(axis=1)).mean()),
        "glcm_correlation": float(correlation.mean()) if varied.any() else nan,
        "glcm_entropy": abs(float(np.vdot(matrices, logarithm)) / len(matrices)),
    }


def _cooccurrences(image: np.ndarray) -> np.ndarray:
    """(12, 32, 32) float64 symmetric counts of pairs of levels."""
    level = image >> 3
    counts = np.zeros((len(DISTANCES) * len(_STEPS), LEVELS, LEVELS))
    height, width = image.shape
    for index, (distance, (rows, columns)) in enumerate((d, step) for d in DISTANCES for step in _STEPS):
        down, right = rows * distance, columns * distance
        if down >= height or abs(right) >= width:
            continue
        first = level[: height - down, max(0, -right) : width - max(0, right)]
        second = level[down:, max(0, right) : width - max(0, -right)]
        counts[index] = cv2.calcHist([first, second], [0, 1], None, [LEVELS] * 2, [0, LEVELS] * 2)
    return counts + counts.transpose(0, 2, 1)


def pattern_statistics(image: np.ndarray) -> dict[str, float]:
    """Rotation-invariant uniform local binary patterns (8 neighbours at distance 1) of a (H, W) uint8 picture.

    The class of a pixel inside the border is the number of neighbours that are not darker, 0 to 8, if these are
    contiguous on the ring (at most two changes around it), else 9.

    Returns:
        ``lbp_entropy`` of the ten classes (bits), and the shares of ``lbp_edge`` (classes 3 to 5: a straight edge or
        nearly) and ``lbp_nonuniform`` (class 9). NaN for a picture of fewer than 3 rows or columns.
    """
    height, width = image.shape
    if min(height, width) < 3:
        return dict.fromkeys(("lbp_entropy", "lbp_edge", "lbp_nonuniform"), nan)
    centre = image[1:-1, 1:-1]
    codes = np.zeros(centre.shape, np.uint8)
    for bit, (row, column) in enumerate(_RING):
        neighbour = image[row : row + height - 2, column : column + width - 2]
        codes |= (neighbour >= centre).view(np.uint8) << np.uint8(bit)
    classes = np.bincount(_PATTERN_CLASSES, histogram(codes, 256, 256), minlength=10)
    return {
        "lbp_entropy": entropy_bits(classes),
        "lbp_edge": float(classes[3:6].sum() / codes.size),
        "lbp_nonuniform": float(classes[9] / codes.size),
    }


def _pattern_classes() -> np.ndarray:
    """(256,) int64: the class, 0 to 9, of each 8-bit pattern."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9).astype(np.int64)


_PATTERN_CLASSES = _pattern_classes()


def _mscn_statistics(image: np.ndarray) -> dict[str, float]:
    picture = image.astype(np.float32)
    picture -= round(cv2.mean(image)[0])  # a level near the mean keeps the difference of squares exact
    window = (MSCN_SIDE, MSCN_SIDE)
    mean = cv2.GaussianBlur(picture, window, MSCN_SIGMA, borderType=cv2.BORDER_REFLECT_101)
    square = cv2.GaussianBlur(picture * picture, window, MSCN_SIGMA, borderType=cv2.BORDER_REFLECT_101)
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    normalised = (picture - mean) / (deviation + 1)
    centre, variance = mean_and_variance(normalised)
    normalised -= np.float32(centre)
    normalised *= normalised
    fourth = mean_and_variance(normalised)[1] + variance**2  # mean of a square = variance + squared mean
    return {
        "mscn_variance": variance,
        "mscn_kurtosis": nan if int(image.min()) == int(image.max()) else fourth / variance**2 - 3,
    }
