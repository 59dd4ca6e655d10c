"""The 55 statistics of a whole picture by which images are clustered (method, section 8).

Each family has a module of its own, whose docstrings define its statistics and give their units. A statistic that has
no value for a picture (without edges, constant or tiny) is NaN.

>>> import numpy as np
>>> picture = np.random.default_rng(0).integers(0, 256, (64, 96)).astype(np.uint8)
>>> values = dict(zip(STATISTICS, image_statistics(picture), strict=True))
>>> int(values["height"]), int(values["width"])
(64, 96)
"""

import numpy as np

from semprior.clustering.common import gradient
from semprior.clustering.edges import edge_statistics
from semprior.clustering.intensity import intensity_statistics
from semprior.clustering.scales import scale_statistics
from semprior.clustering.spectrum import spectrum_statistics
from semprior.clustering.texture import texture_statistics

STATISTICS_VERSION = 1  # increase it when a statistic of any image changes: it keys cached statistics

STATISTICS: tuple[str, ...] = (
    # Size, pixels.
    *("height", "width"),
    # Grey values: intensity.py
    *("mean", "std", "skewness", "kurtosis"),
    *("percentile_1", "percentile_10", "percentile_50", "percentile_90", "percentile_99"),
    *("dynamic_range", "rms_contrast", "entropy", "gini", "otsu_separation"),
    # Gradient: edges.py
    *("laplacian_variance", "tenengrad", "orientation_entropy", "orientation_coherence"),
    *("edge_density", "corner_density", "edge_anisotropy", "edge_gradient", "edge_dimension"),
    # Neighbouring grey values: texture.py
    *("glcm_contrast", "glcm_homogeneity", "glcm_energy", "glcm_correlation", "glcm_entropy"),
    *("lbp_entropy", "lbp_edge", "lbp_nonuniform"),
    *("mscn_variance", "mscn_kurtosis"),
    # Frequencies: spectrum.py
    *("spectrum_slope", "spectrum_centroid", "spectrum_bandwidth", "spectrum_flatness", "spectrum_high_share"),
    *("gabor_4_0", "gabor_4_45", "gabor_4_90", "gabor_4_135"),
    *("gabor_8_0", "gabor_8_45", "gabor_8_90", "gabor_8_135"),
    # Scales: scales.py
    *("dog_contrast", "dog_peak", "peak_density", "noise_sigma", "illumination"),
    *("scale_variance_2", "scale_variance_8"),
)


def image_statistics(image: np.ndarray) -> np.ndarray:
    """The statistics of one picture, in the order of `STATISTICS`.

    Args:
        image: (H, W) uint8 grey values, at least one pixel.

    Returns:
        (55,) float64; NaN where a statistic has no value for this picture.

    Raises:
        ValueError: the dtype or shape is another one, or there are no pixels.
    """
    if image.dtype != np.uint8 or image.ndim != 2 or not image.size:
        raise ValueError(f"expected a (H, W) uint8 picture, got {image.dtype} of shape {image.shape}")
    image = np.ascontiguousarray(image)
    values = {
        "height": float(image.shape[0]),
        "width": float(image.shape[1]),
        **intensity_statistics(image),
        **edge_statistics(image, gradient(image)),
        **texture_statistics(image),
        **spectrum_statistics(image),
        **scale_statistics(image),
    }
    return np.array([values[name] for name in STATISTICS], np.float64)
