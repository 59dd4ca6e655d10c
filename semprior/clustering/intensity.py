"""Statistics of the histogram of grey values: moments, percentiles, contrast, entropy, Gini coefficient, Otsu."""

from math import nan, sqrt

import numpy as np

from semprior.clustering.common import entropy_bits, histogram, quotient

PERCENTILES = (1, 10, 50, 90, 99)
_GREY = np.arange(256, dtype=np.float64)


def intensity_statistics(image: np.ndarray) -> dict[str, float]:
    """Statistics of the grey values of a (H, W) uint8 picture (method, section 8).

    Returns:
        - ``mean``, ``std``: grey levels (population standard deviation).
        - ``skewness``, ``kurtosis``: standardised third and fourth moments, the latter minus 3; NaN if constant.
        - ``percentile_P`` for P in 1, 10, 50, 90, 99: the smallest grey value that P% of the pixels do not exceed.
        - ``dynamic_range``: largest minus smallest grey value.
        - ``rms_contrast``: standard deviation / mean; NaN if black.
        - ``entropy``: of the 256-bin histogram, bits.
        - ``gini``: Gini coefficient of the grey values, 0 (all equal) to 1; NaN if black.
        - ``otsu_separation``: largest variance between two classes cut by one threshold, as a share of the
          total variance, 0 to 1; NaN if constant.
    """
    counts = histogram(image, 256, 256)
    shares = counts / image.size
    mean = float(shares @ _GREY)
    centred = _GREY - mean
    variance = float(shares @ centred**2)
    constant = np.count_nonzero(counts) == 1
    present = np.flatnonzero(counts)
    statistics = {
        "mean": mean,
        "std": sqrt(variance),
        "skewness": nan if constant else float(shares @ centred**3) / variance**1.5,
        "kurtosis": nan if constant else float(shares @ centred**4) / variance**2 - 3,
        "dynamic_range": float(present[-1] - present[0]),
        "rms_contrast": quotient(sqrt(variance), mean),
        "entropy": entropy_bits(counts),
        "gini": _gini(counts),
        "otsu_separation": nan if constant else _otsu(shares, mean) / variance,
    }
    reached = np.cumsum(counts)
    for percent in PERCENTILES:
        statistics[f"percentile_{percent}"] = float(np.searchsorted(reached * 100, percent * image.size))
    return statistics


def _gini(counts: np.ndarray) -> float:
    """Gini coefficient: ``sum (2 rank - n - 1) value / (n sum value)`` of sorted values ranked from 1."""
    pixels = float(counts.sum())
    before = np.cumsum(counts) - counts
    # Pixels of equal grey value have consecutive ranks; their sum is that of an arithmetic series.
    ranks = counts * before + counts * (counts + 1) / 2
    return quotient(float((2 * ranks - (pixels + 1) * counts) @ _GREY), pixels * float(counts @ _GREY))


def _otsu(shares: np.ndarray, mean: float) -> float:
    """Largest variance between the two classes at or below and above a threshold, grey levels squared."""
    below = np.cumsum(shares)[:-1]
    moment = np.cumsum(shares * _GREY)[:-1]
    spread = below * (1 - below)
    cuts = spread > 1e-12
    return float(((mean * below[cuts] - moment[cuts]) ** 2 / spread[cuts]).max(initial=0.0))
