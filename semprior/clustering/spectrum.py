"""Spatial frequencies: the radial power spectrum and Gabor energies, both from one Fourier transform."""

from math import nan, pi, sqrt

import numpy as np
from scipy.fft import fftfreq, next_fast_len, rfft2, rfftfreq

from semprior.clustering.common import slope

RING_WIDTH = 1 / 64  # cycles per pixel
RINGS = 32  # up to 0.5 cycles per pixel
HIGH_FREQUENCY = 0.25  # cycles per pixel
GABOR_WAVELENGTHS = (4, 8)  # pixels
GABOR_ANGLES = (0, 45, 90, 135)  # degrees, across the stripes
GABOR_ENVELOPE = 0.56  # standard deviation of the round envelope in wavelengths: a bandwidth of one octave

_RADIAL = ("slope", "centroid", "bandwidth", "flatness", "high_share")


def spectrum_statistics(image: np.ndarray) -> dict[str, float]:
    """Statistics of the power spectrum of a (H, W) uint8 picture (method, section 8); all NaN if it is constant.

    The picture minus its mean under the window is multiplied by a ``sin^2`` window, which hides its borders. Powers
    are scaled so that they sum to the variance of white noise.

    Returns:
        Over rings 1/64 cycles per pixel wide, from above 0 to 0.5 cycles per pixel:

        - ``spectrum_slope``: slope of log(mean power of a ring) against log(frequency); NaN below three rings.
        - ``spectrum_centroid``, ``spectrum_bandwidth``: mean and standard deviation of the frequency weighted by
          power, cycles per pixel.
        - ``spectrum_flatness``: geometric over arithmetic mean of the rings' mean powers, 0 to 1 (white).
        - ``spectrum_high_share``: share of the power above 0.25 cycles per pixel.

        And ``gabor_L_A`` for wavelengths L of 4 and 8 pixels and angles A of 0, 45, 90, 135 degrees: mean squared
        response, in grey levels squared, to a complex Gabor filter with a round envelope of standard deviation
        0.56 L and a gain of 1 at its own frequency. By Parseval's theorem it is a sum over the spectrum.
    """
    if int(image.min()) == int(image.max()):
        return dict.fromkeys((*(f"spectrum_{name}" for name in _RADIAL), *_gabor_names()), nan)
    power, rows, columns = power_spectrum(image)
    return {**_radial(power, rows, columns), **_gabor(power, rows, columns)}


def power_spectrum(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Power spectrum of a picture, on half of the frequency plane.

    Args:
        image: (H, W) uint8.

    Returns:
        power: (rows, columns) float32, grey levels squared. A frequency that represents itself and its opposite has
            the power of both, so that the sum equals that over the whole plane.
        rows: (rows, 1), columns: (1, columns) float32: frequencies along rows and columns, cycles per pixel.
    """
    height, width = image.shape
    down, across = _window(height), _window(width)
    picture = image.astype(np.float32)
    mean = float(down @ picture @ across) / (float(down.sum()) * float(across.sum()))
    picture -= np.float32(mean)
    picture *= down[:, None]
    picture *= across
    height, width = (next_fast_len(length, real=True) for length in image.shape)  # padded with zeros to a fast length
    transform = rfft2(picture, (height, width))
    power = transform.real**2 + transform.imag**2
    power *= np.float32(2 / (height * width * float((down**2).sum()) * float((across**2).sum())))
    power[:, 0] /= 2
    if width % 2 == 0:
        power[:, -1] /= 2
    return power, fftfreq(height)[:, None].astype(np.float32), rfftfreq(width)[None].astype(np.float32)


def _window(length: int) -> np.ndarray:
    window: np.ndarray = np.sin(pi * (np.arange(length, dtype=np.float32) + 0.5) / length) ** 2
    return window


def _radial(power: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> dict[str, float]:
    radius = np.sqrt(rows**2 + columns**2)
    ring = np.ceil(radius / RING_WIDTH).astype(np.int64).ravel()  # ring r covers (r - 1, r] widths, ring 0 the mean
    ring = np.minimum(ring, RINGS + 1)  # the corners of the plane beyond 0.5
    total = np.bincount(ring, power.ravel(), minlength=RINGS + 2)[1:-1]
    alone = ring.reshape(power.shape)[:, (columns[0] == 0) | (columns[0] == 0.5)]  # the half plane contains both signs
    count = 2 * np.bincount(ring, minlength=RINGS + 2) - np.bincount(alone.ravel(), minlength=RINGS + 2)
    count = count[1:-1]
    frequency = (np.arange(RINGS) + 0.5) * RING_WIDTH
    filled = count > 0
    frequency, total, count = frequency[filled], total[filled], count[filled]
    if total.sum() <= 0:
        return dict.fromkeys((f"spectrum_{name}" for name in _RADIAL), nan)
    level = total / count
    level = np.maximum(level, 1e-12 * level.max())  # the power of a ring may be 0
    share = total / total.sum()
    centroid = float(share @ frequency)
    return {
        "spectrum_slope": slope(np.log(frequency), np.log(level)) if len(level) > 2 else nan,
        "spectrum_centroid": centroid,
        "spectrum_bandwidth": sqrt(float(share @ (frequency - centroid) ** 2)),
        "spectrum_flatness": float(np.exp(np.log(level).mean()) / level.mean()),
        "spectrum_high_share": float(share[frequency > HIGH_FREQUENCY].sum()),
    }


def _gabor_names() -> list[str]:
    return [f"gabor_{wavelength}_{angle}" for wavelength in GABOR_WAVELENGTHS for angle in GABOR_ANGLES]


def _gabor(power: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> dict[str, float]:
    """Energies of the Gabor filters: round Gaussians in the frequency plane, each a product of two along its axes."""
    wavelength, angle = (axis.ravel()[:, None] for axis in np.meshgrid(GABOR_WAVELENGTHS, GABOR_ANGLES, indexing="ij"))
    down, across = np.sin(angle * pi / 180) / wavelength, np.cos(angle * pi / 180) / wavelength
    spread = 1 / (2 * pi * GABOR_ENVELOPE * wavelength)  # of the filter's gain, cycles per pixel

    def passed(sign: int) -> np.ndarray:
        # The gain is exp(-d^2 / (2 spread^2)) at a distance d from the filter's frequency; power goes by its square.
        along_rows = np.exp(-(((rows.T - sign * down) / spread) ** 2))
        along_columns = np.exp(-(((columns - sign * across) / spread) ** 2))
        energies: np.ndarray = ((along_rows @ power) * along_columns).sum(axis=1)
        return energies

    # A frequency of the half plane includes the power of its opposite, for which the filter has another gain.
    energies = (passed(1) + passed(-1)) / 2
    return dict(zip(_gabor_names(), energies.tolist(), strict=True))
