"""The 55 statistics of a picture as a research script computes them (method, section 8).

One family after the other, in float64 and each from the picture itself, so that gradients, edges, histograms and
transforms are made anew wherever they are wanted. Every function takes a (H, W) uint8 picture; a statistic without a
value for it is NaN. Where the method leaves a definition open, `semprior.clustering.statistics` documents the one that
both use.
"""

from math import nan, pi

import cv2
import numpy as np
from scipy import ndimage, signal, stats
from scipy.fft import next_fast_len

REACH = 5  # of a Gabor filter, in standard deviations of its envelope


def image_statistics(image: np.ndarray) -> dict[str, float]:
    """All 55 of a (H, W) uint8 picture by name, in the order of `semprior.clustering.statistics.STATISTICS`."""
    return {
        "height": float(image.shape[0]),
        "width": float(image.shape[1]),
        **moments(image),
        **percentiles(image),
        **contrast(image),
        "entropy": shannon(np.histogram(image, 256, (0, 256))[0]),
        "gini": gini(image),
        "otsu_separation": otsu(image),
        **sharpness(image),
        **orientation(image),
        **edges_and_corners(image),
        "edge_dimension": box_dimension(image),
        **cooccurrence(image),
        **binary_patterns(image),
        **normalised_contrast(image),
        **radial_spectrum(image),
        **gabor(image),
        **blobs(image),
        "noise_sigma": noise(image),
        "illumination": illumination(image),
        **scale_variances(image),
    }


def constant(image: np.ndarray) -> bool:
    """Whether all pixels are equal."""
    return bool(image.min() == image.max())


def shannon(weights: np.ndarray) -> float:
    """Entropy of non-negative weights, bits; NaN if all are 0."""
    if weights.sum() == 0:
        return nan
    shares = weights[weights > 0] / weights.sum()
    return float(-(shares * np.log2(shares)).sum())


def moments(image: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation, skewness and excess kurtosis."""
    values = image.ravel().astype(np.float64)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "skewness": nan if constant(image) else float(stats.skew(values)),
        "kurtosis": nan if constant(image) else float(stats.kurtosis(values)),
    }


def percentiles(image: np.ndarray) -> dict[str, float]:
    """The smallest value that a share of the pixels does not exceed."""
    ordered = np.sort(image.ravel())
    # A rank is rounded up in whole numbers: in floating point, 0.1 * 30 is not 3.
    ranks = {percent: -(-percent * image.size // 100) for percent in (1, 10, 50, 90, 99)}
    return {f"percentile_{percent}": float(ordered[rank - 1]) for percent, rank in ranks.items()}


def contrast(image: np.ndarray) -> dict[str, float]:
    """Dynamic range and RMS contrast."""
    values = image.astype(np.float64)
    return {
        "dynamic_range": float(values.max() - values.min()),
        "rms_contrast": float(values.std() / values.mean()) if values.any() else nan,
    }


def gini(image: np.ndarray) -> float:
    """Gini coefficient of the sorted values."""
    values = np.sort(image.ravel().astype(np.float64))
    if not values.any():
        return nan
    rank = np.arange(1, values.size + 1)
    return float(((2 * rank - values.size - 1) * values).sum() / (values.size * values.sum()))


def otsu(image: np.ndarray) -> float:
    """Largest variance between two classes over all thresholds, as a share of the variance."""
    if constant(image):
        return nan
    grey = np.arange(256)
    counts = np.histogram(image, 256, (0, 256))[0]
    best = 0.0
    for threshold in range(1, 256):
        below, above = counts[:threshold].sum(), counts[threshold:].sum()
        if below and above:
            low = (counts[:threshold] * grey[:threshold]).sum() / below
            high = (counts[threshold:] * grey[threshold:]).sum() / above
            best = max(best, below * above * (low - high) ** 2 / image.size**2)
    return float(best / image.astype(np.float64).var())


def sobel(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient along columns and along rows, each (H, W) float64, grey levels per pixel."""
    values = image.astype(np.float64)
    return cv2.Sobel(values, cv2.CV_64F, 1, 0) / 8, cv2.Sobel(values, cv2.CV_64F, 0, 1) / 8


def canny(image: np.ndarray) -> np.ndarray:
    """(H, W) bool edges, hysteresis 5 and 10 grey levels per pixel."""
    across, down = (np.rint(8 * part).astype(np.int16) for part in sobel(image))
    return cv2.Canny(across, down, 40, 80, L2gradient=True) > 0


def sharpness(image: np.ndarray) -> dict[str, float]:
    """Variance of the Laplacian, and tenengrad."""
    across, down = sobel(image)
    return {
        "laplacian_variance": float(cv2.Laplacian(image.astype(np.float64), cv2.CV_64F).var()),
        "tenengrad": float((across**2 + down**2).mean()),
    }


def orientation(image: np.ndarray) -> dict[str, float]:
    """Entropy of the orientation histogram, 8 bins over half a turn, and coherence of the structure tensor."""
    across, down = sobel(image)
    magnitude, angle = cv2.cartToPolar(across, down)
    weights, _ = np.histogram((angle + pi / 16) % pi, 8, (0, pi), weights=magnitude)
    xx, yy, xy = (across**2).mean(), (down**2).mean(), (across * down).mean()
    return {
        "orientation_entropy": shannon(weights) / 3,
        "orientation_coherence": float(np.hypot(xx - yy, 2 * xy) / (xx + yy)) if xx + yy else nan,
    }


def edges_and_corners(image: np.ndarray) -> dict[str, float]:
    """Shares of edge pixels and corners, and what the gradient does at the edges."""
    edges = canny(image)
    smaller = cv2.cornerMinEigenVal(image, 5, ksize=3)
    # OpenCV's unit is half a grey value of 255 per pixel, squared; a corner has two grey levels per pixel.
    corners = (smaller == ndimage.maximum_filter(smaller, 3)) & (smaller > (2 * 2 / 255) ** 2)
    across, down = sobel(image)
    angle = np.arctan2(down, across)[edges]
    return {
        "edge_density": float(edges.mean()),
        "corner_density": float(corners.mean()),
        "edge_anisotropy": float(abs(np.exp(2j * angle).mean())) if edges.any() else nan,
        "edge_gradient": float(np.hypot(across, down)[edges].mean()) if edges.any() else nan,
    }


def box_dimension(image: np.ndarray) -> float:
    """Box-counting dimension of the edges, boxes up to half the shorter side."""
    edges = canny(image)
    height, width = image.shape
    sides = [side for side in (1, 2, 4, 8, 16, 32) if 2 * side <= min(height, width)]
    if len(sides) < 3 or not edges.any():
        return nan
    counts = []
    for side in sides:
        padded = np.pad(edges, ((0, -height % side), (0, -width % side)))
        boxes = padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side)
        counts.append(boxes.any(axis=(1, 3)).sum())
    return float(np.polyfit(-np.log(sides), np.log(counts), 1)[0])


def cooccurrence(image: np.ndarray) -> dict[str, float]:
    """Haralick's measures of symmetric matrices of 32 levels, averaged over 3 distances and 4 angles."""
    level = image.astype(np.int64) // 8
    height, width = level.shape
    i, j = np.indices((32, 32))
    found: dict[str, list[float]] = {
        name: [] for name in ("contrast", "homogeneity", "energy", "correlation", "entropy")
    }
    for distance in (1, 2, 4):
        for down, right in ((0, distance), (distance, distance), (distance, 0), (distance, -distance)):
            if down >= height or abs(right) >= width:
                continue
            here = level[: height - down, max(0, -right) : width - max(0, right)]
            there = level[down:, max(0, right) : width - max(0, -right)]
            matrix = np.bincount((32 * here + there).ravel(), minlength=32 * 32).reshape(32, 32)
            matrix = (matrix + matrix.T) / (2 * here.size)
            mean = (matrix * i).sum()
            variance = (matrix * (i - mean) ** 2).sum()
            found["contrast"].append((matrix * (i - j) ** 2).sum())
            found["homogeneity"].append((matrix / (1 + (i - j) ** 2)).sum())
            found["energy"].append(np.sqrt((matrix**2).sum()))
            if variance > 0:
                found["correlation"].append((matrix * (i - mean) * (j - mean)).sum() / variance)
            found["entropy"].append(shannon(matrix))
    return {f"glcm_{name}": float(np.mean(values)) if values else nan for name, values in found.items()}


def binary_patterns(image: np.ndarray) -> dict[str, float]:
    """Rotation-invariant uniform local binary patterns of 8 neighbours."""
    height, width = image.shape
    if min(height, width) < 3:
        return dict.fromkeys(("lbp_entropy", "lbp_edge", "lbp_nonuniform"), nan)
    centre = image[1:-1, 1:-1]
    around = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    ring = [image[1 + row : height - 1 + row, 1 + column : width - 1 + column] >= centre for row, column in around]
    bright, changes = np.zeros(centre.shape, np.int64), np.zeros(centre.shape, np.int64)
    for k in range(8):
        bright += ring[k]
        changes += ring[k] != ring[k - 1]
    classes = np.where(changes <= 2, bright, 9)
    shares = np.bincount(classes.ravel(), minlength=10) / classes.size
    return {
        "lbp_entropy": shannon(shares),
        "lbp_edge": float(shares[3:6].sum()),
        "lbp_nonuniform": float(shares[9]),
    }


def normalised_contrast(image: np.ndarray) -> dict[str, float]:
    """Variance and excess kurtosis of the mean-subtracted contrast-normalised pixels."""
    values = image.astype(np.float64)
    mean = cv2.GaussianBlur(values, (7, 7), 7 / 6)
    deviation = np.sqrt(np.maximum(cv2.GaussianBlur(values**2, (7, 7), 7 / 6) - mean**2, 0))
    normalised = (values - mean) / (deviation + 1)
    centred = normalised - normalised.mean()
    variance = (centred**2).mean()
    kurtosis = nan if constant(image) else float((centred**4).mean() / variance**2 - 3)
    return {"mscn_variance": float(variance), "mscn_kurtosis": kurtosis}


def windowed(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture made fit for a Fourier transform.

    Returns:
        the picture less its mean under a sin^2 window, times that window, with zeros to a length of fast transforms
        on the right and at the bottom, and the window (H, W); both float64.
    """
    down, across = (np.sin(pi * (np.arange(length) + 0.5) / length) ** 2 for length in image.shape)
    window = np.outer(down, across)
    picture = (image - (image * window).sum() / window.sum()) * window
    return np.pad(picture, [(0, next_fast_len(length, real=True) - length) for length in image.shape]), window


def radial_spectrum(image: np.ndarray) -> dict[str, float]:
    """Slope, centroid, bandwidth, flatness and high share of the power over rings 1/64 cycles per pixel wide."""
    names = [f"spectrum_{name}" for name in ("slope", "centroid", "bandwidth", "flatness", "high_share")]
    if constant(image):
        return dict.fromkeys(names, nan)
    power = np.abs(np.fft.fft2(windowed(image)[0])) ** 2
    # In single precision, where a radius that is a whole number of rings is one, as it is not quite in double.
    rows, columns = (np.fft.fftfreq(length).astype(np.float32) for length in power.shape)
    radius = np.sqrt(rows[:, None] ** 2 + columns**2)
    frequencies, totals, levels = [], [], []
    for ring in range(32):
        inside = (radius > ring / 64) & (radius <= (ring + 1) / 64)
        if inside.any():
            frequencies.append((ring + 0.5) / 64)
            totals.append(power[inside].sum())
            levels.append(power[inside].mean())
    frequency, total, level = np.array(frequencies), np.array(totals), np.array(levels)
    if total.sum() <= 1e-20 * power.sum():  # nothing but errors of rounding
        return dict.fromkeys(names, nan)
    level = np.maximum(level, 1e-12 * level.max())  # a ring without any power has no logarithm
    share = total / total.sum()
    centroid = (share * frequency).sum()
    values = (
        np.polyfit(np.log(frequency), np.log(level), 1)[0] if len(level) > 2 else nan,
        centroid,
        np.sqrt((share * (frequency - centroid) ** 2).sum()),
        np.exp(np.log(level).mean()) / level.mean(),
        share[frequency > 0.25].sum(),
    )
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def gabor(image: np.ndarray) -> dict[str, float]:
    """Mean squared responses of the windowed picture to complex Gabor filters, one convolution each part."""
    picture, window = windowed(image)
    found = {}
    for wavelength in (4, 8):
        for degrees in (0, 45, 90, 135):
            spread = 0.56 * wavelength
            reach = round(REACH * spread)
            rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
            along = columns * np.cos(np.radians(degrees)) + rows * np.sin(np.radians(degrees))
            envelope = np.exp(-(rows**2 + columns**2) / (2 * spread**2)) / (2 * pi * spread**2)
            periodic = np.pad(picture, reach, mode="wrap")  # as a Fourier transform takes it
            real = cv2.filter2D(periodic, cv2.CV_64F, envelope * np.cos(2 * pi * along / wavelength))
            imaginary = cv2.filter2D(periodic, cv2.CV_64F, envelope * np.sin(2 * pi * along / wavelength))
            response = (real**2 + imaginary**2)[reach:-reach, reach:-reach]
            energy = float(response.sum() / (window**2).sum())
            found[f"gabor_{wavelength}_{degrees}"] = nan if constant(image) else energy
    return found


def shrunk(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Averages of (H, W) float64 values over (height, width) cells."""
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)


def half(image: np.ndarray) -> np.ndarray:
    """The picture at half its resolution, float64."""
    return shrunk(image.astype(np.float64), *(max(1, length // 2) for length in image.shape))


def blobs(image: np.ndarray) -> dict[str, float]:
    """Contrast, maximum and peaks of the difference of Gaussians of sigma 1.5 and, at half resolution, 7."""
    fine = cv2.GaussianBlur(image.astype(np.float64), (9, 9), 1.5, borderType=cv2.BORDER_REFLECT)
    coarse = cv2.GaussianBlur(half(image), (21, 21), 3.5, borderType=cv2.BORDER_REFLECT)
    response = fine - cv2.resize(coarse, image.shape[::-1])
    peaks = response == ndimage.maximum_filter(response, 5)
    peaks &= response > max(4 * np.abs(response).mean(), 1)
    return {
        "dog_contrast": float(response.std()),
        "dog_peak": float(response.max()),
        "peak_density": float(peaks.mean()),
    }


def noise(image: np.ndarray) -> float:
    """Noise by the median absolute second difference, taken as spread evenly over its rounding."""
    if min(image.shape) < 3:
        return nan
    mask = np.outer([1, -2, 1], [1, -2, 1])
    response = np.abs(signal.convolve2d(image.astype(np.float64), mask, mode="valid"))
    level, below, here = 0, 0, (response == 0).sum()
    while 2 * (below + here) < response.size:
        level, below = level + 1, below + here
        here = (response == level).sum()
    share = (response.size / 2 - below) / here  # of the pixels of this response, those below the median
    median = level - 0.5 + share if level else share / 2  # 0 stands for 0 to 1/2
    return float(1.4826 * median / 6)


def illumination(image: np.ndarray) -> float:
    """Standard deviation over mean of 8x8 cells."""
    halves = half(image)
    cells = shrunk(halves, *(min(8, length) for length in halves.shape))
    return float(cells.std() / cells.mean()) if image.any() else nan


def scale_variances(image: np.ndarray) -> dict[str, float]:
    """Variances of the picture averaged over 2x2 and 8x8 pixels, as shares of its own."""
    halves = half(image)
    eighths = shrunk(halves, *(max(1, length // 8) for length in image.shape))
    whole = image.astype(np.float64).var()
    found = {"scale_variance_2": halves, "scale_variance_8": eighths}
    return {
        name: nan if constant(image) or min(cells.shape) < 2 else float(cells.var() / whole)
        for name, cells in found.items()
    }
