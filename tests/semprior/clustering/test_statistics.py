"""The 55 statistics of a picture: against plain versions, under flips, and without a value.

All against a plain version of each: benchmarks/test_plain_statistics.py.
"""

import math
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semprior.clustering.edges import box_dimension
from semprior.clustering.spectrum import power_spectrum
from semprior.clustering.statistics import STATISTICS, image_statistics
from semprior.clustering.texture import cooccurrence_statistics, pattern_statistics


def measured(image: np.ndarray) -> dict[str, float]:
    return dict(zip(STATISTICS, image_statistics(image).tolist(), strict=True))


def cloudy(seed: int, shape: tuple[int, int] = (61, 83), noise: float = 3.0) -> np.ndarray:
    """A smooth ground with sensor noise and one bright target."""
    rng = np.random.default_rng(seed)
    ground = cv2.GaussianBlur(rng.normal(0, 200, shape), (0, 0), 5) + 90 + rng.normal(0, noise, shape)
    ground[20:23, 30:33] += 80
    return np.clip(np.rint(ground), 0, 255).astype(np.uint8)


def stripes(wavelength: float, degrees: float, shape: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A cosine of amplitude 100 whose brightness changes along a direction."""
    rows, columns = np.indices(shape)
    phase = columns * math.cos(math.radians(degrees)) + rows * math.sin(math.radians(degrees))
    return np.rint(120 + 100 * np.cos(2 * math.pi * phase / wavelength)).astype(np.uint8)


def test_there_are_55_of_different_names():
    assert len(STATISTICS) == len(set(STATISTICS)) == 55
    values = image_statistics(cloudy(0))
    assert values.shape == (55,)
    assert values.dtype == np.float64


def test_all_are_finite_on_real_images(sirst):
    for name in (sirst / "mode" / "val.txt").read_text().split()[::3]:
        values = measured(cv2.imread(str(sirst / "images" / f"{name}.png"), cv2.IMREAD_GRAYSCALE))
        absent = {key for key, value in values.items() if not math.isfinite(value)}
        if values["edge_density"] == 0:  # a soft sky
            absent -= {"edge_anisotropy", "edge_gradient", "edge_dimension"}
        assert not absent, name


@pytest.mark.parametrize(
    "image",
    [
        *(np.full(shape, 7, np.uint8) for shape in ((1, 1), (1, 9), (2, 2), (3, 3), (5, 1), (40, 50))),
        *(np.zeros(shape, np.uint8) for shape in ((1, 1), (33, 20))),
        np.arange(40, dtype=np.uint8)[None],
        np.arange(40, dtype=np.uint8)[:, None],
        np.array([[0, 255], [255, 0]], np.uint8),
        np.arange(9, dtype=np.uint8).reshape(3, 3),
        np.eye(17, dtype=np.uint8) * 255,
    ],
    ids=lambda image: f"{image.shape}-{image.max()}",
)
def test_a_missing_value_is_nan_without_a_warning(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = image_statistics(image)
    assert not np.isinf(values).any()
    found = dict(zip(STATISTICS, values, strict=True))
    assert (found["height"], found["width"]) == image.shape
    for name in ("mean", "std", "entropy", "tenengrad", "edge_density", "dog_contrast"):
        assert np.isfinite(found[name]), name


def test_a_constant_picture():
    values = measured(np.full((40, 50), 7, np.uint8))
    without = {"skewness", "kurtosis", "otsu_separation", "orientation_entropy", "orientation_coherence"}
    without |= {"edge_anisotropy", "edge_gradient", "edge_dimension", "glcm_correlation", "mscn_kurtosis"}
    without |= {"scale_variance_2", "scale_variance_8"}
    without |= {name for name in STATISTICS if name.startswith(("spectrum_", "gabor_"))}
    assert {name for name, value in values.items() if math.isnan(value)} == without
    for name in (
        "std",
        "entropy",
        "gini",
        "dynamic_range",
        "rms_contrast",
        "tenengrad",
        "edge_density",
        "peak_density",
    ):
        assert values[name] == 0, name
    assert values["percentile_1"] == values["percentile_99"] == values["mean"] == 7
    assert (values["glcm_energy"], values["glcm_homogeneity"], values["glcm_entropy"]) == (1, 1, 0)
    assert values["noise_sigma"] < 0.1
    assert values["dog_contrast"] < 1e-4


def test_wrong_input_is_refused():
    for image in (np.zeros((4, 4)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            image_statistics(image)


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_gini_and_otsu_by_definition(seed):
    image = cloudy(seed, (35, 41))
    values, flat = measured(image), image.ravel().astype(np.float64)
    for percent in (1, 10, 50, 90, 99):
        assert values[f"percentile_{percent}"] == np.percentile(flat, percent, method="inverted_cdf")
    difference = np.abs(flat[:, None] - flat[None, :]).mean()
    assert values["gini"] == pytest.approx(difference / (2 * flat.mean()))
    between = [
        np.mean(low) * (1 - np.mean(low)) * (flat[low].mean() - flat[~low].mean()) ** 2
        for low in (flat <= threshold for threshold in np.unique(flat)[:-1])
    ]
    assert values["otsu_separation"] == pytest.approx(max(between) / flat.var())


def slow_cooccurrence(image):
    found = {name: [] for name in ("contrast", "homogeneity", "energy", "correlation", "entropy")}
    height, width = image.shape
    for distance in (1, 2, 4):
        for rows, columns in ((0, distance), (distance, distance), (distance, 0), (distance, -distance)):
            matrix = np.zeros((32, 32))
            for row in range(height):
                for column in range(width):
                    if 0 <= row + rows < height and 0 <= column + columns < width:
                        first, second = int(image[row, column]) // 8, int(image[row + rows, column + columns]) // 8
                        matrix[first, second] += 1
                        matrix[second, first] += 1
            matrix /= matrix.sum()
            i, j = np.indices(matrix.shape)
            mean = (matrix * i).sum()
            variance = (matrix * (i - mean) ** 2).sum()
            found["contrast"].append((matrix * (i - j) ** 2).sum())
            found["homogeneity"].append((matrix / (1 + (i - j) ** 2)).sum())
            found["energy"].append(math.sqrt((matrix**2).sum()))
            found["correlation"].append((matrix * (i - mean) * (j - mean)).sum() / variance)
            found["entropy"].append(-sum(p * math.log2(p) for p in matrix.ravel() if p > 0))
    return {f"glcm_{name}": np.mean(values) for name, values in found.items()}


@pytest.mark.parametrize("seed", range(2))
def test_cooccurrence_against_a_plain_version(seed):
    image = cloudy(seed, (31, 40))
    assert cooccurrence_statistics(image) == pytest.approx(slow_cooccurrence(image), rel=1e-9)


def slow_patterns(image):
    classes = []
    for row in range(1, image.shape[0] - 1):
        for column in range(1, image.shape[1] - 1):
            around = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
            ring = [int(image[row + r, column + c] >= image[row, column]) for r, c in around]
            changes = sum(ring[k] != ring[k - 1] for k in range(8))
            classes.append(sum(ring) if changes <= 2 else 9)
    shares = np.bincount(classes, minlength=10) / len(classes)
    return {
        "lbp_entropy": -sum(share * math.log2(share) for share in shares if share),
        "lbp_edge": shares[3] + shares[4] + shares[5],
        "lbp_nonuniform": shares[9],
    }


@pytest.mark.parametrize("seed", range(2))
def test_binary_patterns_against_a_plain_version(seed):
    image = cloudy(seed, (31, 40))
    assert pattern_statistics(image) == pytest.approx(slow_patterns(image))


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([2, 20, 256]),
)
@settings(max_examples=40, deadline=None)
def test_any_picture_has_finite_or_missing_values_within_bounds(seed, shape, levels):
    image = np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = measured(image)
    assert not any(math.isinf(value) for value in values.values())
    shares = ["gini", "otsu_separation", "orientation_entropy", "orientation_coherence", "edge_density"]
    shares += ["corner_density", "peak_density", "edge_anisotropy", "glcm_energy", "glcm_homogeneity", "lbp_edge"]
    shares += ["lbp_nonuniform", "spectrum_flatness", "spectrum_high_share"]
    for name in shares:
        assert math.isnan(values[name]) or -1e-9 <= values[name] <= 1 + 1e-5, name


def mirrored_names(name: str) -> str:
    """The statistic of a picture that equals statistic `name` of its mirror image: diagonals are exchanged."""
    for suffix, mirrored in (("_45", "_135"), ("_135", "_45")):
        if name.startswith("gabor_") and name.endswith(suffix):
            return name.removesuffix(suffix) + mirrored
    return name


@pytest.mark.parametrize(
    "flip", [lambda image: image[:, ::-1], lambda image: image[::-1]], ids=["sides", "upside-down"]
)
@pytest.mark.parametrize("shape", [(61, 83), (64, 96)])
def test_a_mirror_image_has_the_same_statistics(flip, shape):
    image = cloudy(3, shape)
    straight, mirrored = measured(image), measured(flip(image))
    for name in set(STATISTICS) - {"edge_dimension"}:  # the grid of boxes starts at one corner of the picture
        rough = name.startswith("edge_")  # so does the thinning of edges
        assert mirrored[mirrored_names(name)] == pytest.approx(straight[name], rel=0.15 if rough else 2e-3), name


def test_a_picture_on_its_side_exchanges_what_has_a_direction():
    image = cloudy(3, (64, 96))
    straight, turned = measured(image), measured(image.T)
    exchanged = {"height": "width", "width": "height"}
    exchanged |= {f"gabor_{length}_{a}": f"gabor_{length}_{b}" for length in (4, 8) for a, b in ((0, 90), (90, 0))}
    for name in STATISTICS:
        rough = name.startswith("edge_")  # edges are thinned by rules that are not symmetric
        assert turned[exchanged.get(name, name)] == pytest.approx(straight[name], rel=0.15 if rough else 2e-3), name


def test_independent_of_memory_layout_and_threads():
    image = cloudy(5, (113, 127))
    expected = image_statistics(image)
    threads = cv2.getNumThreads()
    try:
        for shift in range(1, 9):
            cv2.setNumThreads(1 + shift % 2)
            moved = np.empty(image.size + 16, np.uint8)[shift : shift + image.size].reshape(image.shape)
            moved[:] = image
            np.testing.assert_array_equal(image_statistics(moved), expected)
        np.testing.assert_array_equal(image_statistics(np.asfortranarray(image)), expected)
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("sigma", [2.0, 6.0, 15.0])
def test_noise_is_measured_over_any_background(sigma):
    rng = np.random.default_rng(1)
    rows, columns = np.indices((200, 200))
    ground = 100 + 0.3 * rows + 0.2 * columns + 20 * (columns > 90)
    image = np.clip(np.rint(ground + rng.normal(0, sigma, ground.shape)), 0, 255).astype(np.uint8)
    assert measured(image)["noise_sigma"] == pytest.approx(sigma, rel=0.05)


def test_power_sums_to_the_variance_of_white_noise_and_is_flat():
    image = np.random.default_rng(2).normal(128, 20, (240, 250)).round().clip(0, 255).astype(np.uint8)
    power, rows, columns = power_spectrum(image)
    assert power.shape == (rows.size, columns.size)
    assert power.sum() == pytest.approx(image.var(), rel=0.05)
    values = measured(image)
    assert values["spectrum_flatness"] > 0.9
    assert abs(values["spectrum_slope"]) < 0.1
    assert values["spectrum_high_share"] == pytest.approx(0.75, abs=0.03)  # of a disc, what lies beyond half its radius
    assert values["mscn_variance"] > 0.5


def test_steeper_spectra_have_steeper_slopes():
    rng = np.random.default_rng(3)
    rows, columns = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None]
    radius = np.hypot(rows, columns)
    radius[0, 0] = 1
    for exponent in (-1.0, -2.0):
        noise = np.fft.rfft2(rng.normal(size=(256, 256)))
        field = np.fft.irfft2(noise * radius ** (exponent / 2))
        image = np.rint(128 + 30 * field / field.std()).clip(0, 255).astype(np.uint8)
        assert measured(image)["spectrum_slope"] == pytest.approx(exponent, abs=0.25)


@pytest.mark.parametrize("wavelength", [4, 8])
@pytest.mark.parametrize("degrees", [0, 45, 90, 135])
def test_stripes_respond_to_their_gabor_filter(wavelength, degrees):
    values = measured(stripes(wavelength, degrees))
    gabor = {name: value for name, value in values.items() if name.startswith("gabor_")}
    own = f"gabor_{wavelength}_{degrees}"
    # A complex filter passes one side of the frequency plane, with half of the power of a cosine, amplitude^2 / 2.
    assert gabor.pop(own) == pytest.approx(100**2 / 4, rel=0.05)
    assert max(gabor.values()) < 100**2 / 4 / 5


def test_orientation_of_stripes_and_of_noise():
    ordered, rough = (
        measured(stripes(16, 0)),
        measured(np.random.default_rng(4).integers(0, 256, (96, 128)).astype(np.uint8)),
    )
    assert ordered["orientation_coherence"] > 0.99 > 0.1 > rough["orientation_coherence"]
    assert ordered["orientation_entropy"] < 0.01 < 0.99 < rough["orientation_entropy"]
    assert ordered["edge_anisotropy"] > 0.99
    assert ordered["edge_gradient"] > 20


def test_a_bright_square_has_its_corners_edges_and_peak():
    image = np.full((64, 64), 20, np.uint8)
    image[20:40, 20:40] = 120
    values = measured(image)
    assert values["corner_density"] * image.size == pytest.approx(4, abs=0)
    assert values["edge_density"] * image.size == pytest.approx(76, abs=8)
    assert values["tenengrad"] > 0 < values["laplacian_variance"]
    assert values["otsu_separation"] == pytest.approx(1)
    spot = np.full((64, 64), 20, np.uint8)
    spot[30:33, 30:33] = 200
    assert measured(spot)["peak_density"] * spot.size == 1


def test_variance_over_scales_of_noise_and_of_a_slope():
    noise = np.random.default_rng(5).integers(0, 256, (128, 128)).astype(np.uint8)
    values = measured(noise)
    assert values["scale_variance_2"] == pytest.approx(1 / 4, rel=0.1)
    assert values["scale_variance_8"] == pytest.approx(1 / 64, rel=0.2)
    assert values["illumination"] < 0.05
    slope = np.repeat(np.linspace(0, 255, 128).round().astype(np.uint8)[None], 128, axis=0)
    values = measured(slope)
    assert values["scale_variance_8"] > 0.98
    cells = slope.astype(float).reshape(128, 8, 16).mean(axis=(0, 2))
    assert values["illumination"] == pytest.approx(cells.std() / cells.mean(), rel=1e-4)


def test_box_dimension_of_a_line_and_of_an_area():
    line, area = np.zeros((128, 128), bool), np.ones((128, 128), bool)
    line[50] = True
    assert box_dimension(line) == pytest.approx(1)
    assert box_dimension(area) == pytest.approx(2)
    assert math.isnan(box_dimension(np.zeros((128, 128), bool)))
    assert math.isnan(box_dimension(np.ones((7, 128), bool)))
    assert box_dimension(np.ones((37, 41), bool)) == pytest.approx(2, abs=0.2)  # boxes cut by the border count


def test_sharper_pictures_measure_sharper():
    image = cloudy(6)
    soft = cv2.GaussianBlur(image, (0, 0), 2)
    sharp, blurred = measured(image), measured(soft)
    for name in ("laplacian_variance", "tenengrad", "spectrum_centroid", "spectrum_high_share", "noise_sigma"):
        assert sharp[name] > blurred[name], name
