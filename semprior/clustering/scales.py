"""Statistics over scales: blobs, noise, illumination and the share of the variance at each scale."""

from math import nan, sqrt

import cv2
import numpy as np

from semprior.clustering.common import blur, grouped_median, histogram, mean_and_variance, quotient

DOG_SIGMAS = (1.5, 7.0)  # pixels
PEAK_SIDE = 5  # pixels
PEAK_HEIGHT, PEAK_RISE = 4.0, 1.0  # least height of a peak, in mean absolute responses and in grey levels
GAUSSIAN_MAD = 1.4826  # standard deviation of Gaussian noise in units of its median absolute deviation
ILLUMINATION_CELLS = 8  # along each side

_SECOND_DIFFERENCE = np.array([1, -2, 1], np.float32)
_NOISE_GAIN = 6.0  # standard deviation of second differences along both axes of white noise of deviation 1


def scale_statistics(image: np.ndarray) -> dict[str, float]:
    """Statistics of a (H, W) uint8 picture over scales (method, section 8).

    Returns:
        - ``dog_contrast``, ``dog_peak``: standard deviation and maximum, in grey levels, of the difference of Gaussians
          of sigma 1.5 and 7 pixels, the second made at half the resolution.
        - ``peak_density``: peaks as a share of all pixels. A peak is a 5x5 maximum of that difference above both
          4 times the mean of its absolute value and 1 grey level.
        - ``noise_sigma``: 1.4826 times the median absolute response to the mask (1 -2 1; -2 4 -2; 1 -2 1) / 6, grey
          levels. The mask ignores slopes and straight edges along rows and columns and has gain 1 for white noise.
          Responses are assumed uniform within their rounding, so that a constant picture has 0.06. NaN for a
          picture of fewer than 3 rows or columns.
        - ``scale_variance_2``, ``scale_variance_8``: variance of the picture averaged over cells of 2x2, and those over
          cells to 8x8 pixels (a little more where they do not divide the sides), as a share of its variance; NaN if
          constant or if fewer than 2 cells fit along a side.
        - ``illumination``: standard deviation over mean of the picture averaged in the same way over 8x8 equal
          cells in all (fewer for a picture of fewer than 16 rows or columns); NaN if black.
    """
    picture = image.astype(np.float32)
    halves = _averaged(picture, *(max(1, length // 2) for length in image.shape))
    eighths = _averaged(halves, *(max(1, length // 8) for length in image.shape))
    cells = _averaged(halves, *(min(ILLUMINATION_CELLS, length) for length in halves.shape))
    fine, coarse = DOG_SIGMAS
    response = blur(picture, fine) - cv2.resize(blur(halves, coarse / 2), picture.shape[::-1])
    spread = mean_and_variance(response)[1]
    whole = mean_and_variance(image)[1]
    mean, variance = mean_and_variance(cells)
    return {
        "dog_contrast": sqrt(spread),
        "dog_peak": float(response.max()),
        "peak_density": _peaks(response) / image.size,
        "noise_sigma": _noise(image),
        "illumination": quotient(sqrt(variance), mean),
        "scale_variance_2": _share(halves, whole),
        "scale_variance_8": _share(eighths, whole),
    }


def _averaged(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _share(averaged: np.ndarray, whole: float) -> float:
    return quotient(mean_and_variance(averaged)[1], whole) if min(averaged.shape) > 1 else nan


def _peaks(response: np.ndarray) -> int:
    mean = cv2.norm(response, cv2.NORM_L1) / response.size
    peaks = response == cv2.dilate(response, np.ones((PEAK_SIDE, PEAK_SIDE), np.uint8))
    peaks &= response > max(PEAK_HEIGHT * mean, PEAK_RISE)
    return int(np.count_nonzero(peaks))


def _noise(image: np.ndarray) -> float:
    if min(image.shape) < 3:
        return nan
    response = cv2.sepFilter2D(image, cv2.CV_16S, _SECOND_DIFFERENCE, _SECOND_DIFFERENCE)[1:-1, 1:-1]
    # Grey values are rounded: a response k covers k - 1/2 to k + 1/2, and 0 covers 0 to 1/2, half a bin.
    counts = np.repeat(histogram(np.abs(response).view(np.uint16), 2048, 2048) / 2, 2)[1:]
    counts[0] *= 2
    return GAUSSIAN_MAD * grouped_median(counts) / 2 / _NOISE_GAIN
